"""Lazy arrays give what the arrays they stand for would give, and read no more than is asked for."""

import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes, concatenate, open_episodes, save_episodes
from sensorimotor.data.formats import load_dataset
from sensorimotor.data.formats.robomimic import write_robomimic
from sensorimotor.data.lazy import Joined, LazyArray, Mapped, Taken, as_array, is_lazy, join, same, take
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows

Array = np.ndarray[Any, Any]


class Counted(LazyArray):
    """An array that notes which rows were read."""

    def __init__(self, values: Array) -> None:
        super().__init__(values.shape, values.dtype)
        self.values, self.asked = values, []

    def read(self, rows: Array) -> Array:
        self.asked += rows.tolist()
        return self.values[rows]


def negative(rows: Array) -> Array:
    return 255 - rows


def numbers(count: int = 10) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, 2, 3), dtype=np.uint8)


def seeing(*, lengths: tuple[int, ...] = (5, 4, 6), side: int = 8, seed: int = 0) -> Episodes:
    """Episodes with a camera of noise."""
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    return Episodes(
        spec=Spec(
            observation={
                "state": Field(shape=(2,)),
                "image.top": Field(shape=(side, side, 3), dtype="uint8"),
            },
            action=Field(shape=(2,)),
            control_hz=10,
        ),
        observation={
            "state": generator.normal(size=(total, 2)).astype(np.float32),
            "image.top": generator.integers(0, 256, (total, side, side, 3), dtype=np.uint8),
        },
        action=generator.normal(size=(total, 2)).astype(np.float32),
        ends=np.cumsum(lengths),
    )


def written(episodes: Episodes, path: Path, compression: Any) -> tuple[Episodes, Episodes]:
    """The same file read whole and lazily."""
    write_robomimic(episodes, path, compression=compression)
    return load_dataset(path), load_dataset(path, lazy_images=True)


INDICES = [
    3,
    -1,
    slice(None),
    slice(2, 7),
    slice(8, 2, -2),
    slice(4, 4),
    np.array([1, 4, 4, 0]),
    np.array([[3, 2], [2, 9]]),
    np.array([], dtype=np.int64),
    np.arange(10) % 3 == 0,
    [0, 5],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("make", ["plain", "taken", "joined", "mapped", "all"])
def test_indexing_means_what_numpy_means(index: Any, make: str) -> None:
    values = numbers()
    order = np.random.default_rng(1).permutation(10)
    lazy, expected = {
        "plain": lambda: (Counted(values), values),
        "taken": lambda: (Taken(Counted(values), order), values[order]),
        "joined": lambda: (Joined([Counted(values[:3]), values[3:4], Counted(values[4:])]), values),
        "mapped": lambda: (Mapped(Counted(values), negative), negative(values)),
        "all": lambda: (
            Taken(Joined([Mapped(Counted(values[:6]), negative), values[6:]]), order),
            np.concatenate([negative(values[:6]), values[6:]])[order],
        ),
    }[make]()
    assert (lazy.shape, lazy.dtype, len(lazy), lazy.ndim) == (expected.shape, np.uint8, 10, 3)
    assert lazy.nbytes == expected.nbytes
    np.testing.assert_array_equal(lazy[index], expected[index])
    assert lazy[index].dtype == np.uint8


def test_wrong_rows_are_numpys_error() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        Counted(numbers())[np.array([10])]


def test_each_row_is_read_once_and_in_order() -> None:
    lazy = Counted(numbers())
    lazy[np.array([[7, 2], [7, 7], [1, 2]])]
    assert lazy.asked == [1, 2, 7]


def test_selecting_and_joining_read_nothing() -> None:
    values = numbers()
    lazy = Counted(values)
    joined = join([take(as_array(lazy), np.array([3, 1])), values])
    assert is_lazy(joined)
    assert lazy.asked == []
    np.testing.assert_array_equal(np.asarray(joined), np.concatenate([values[[3, 1]], values]))
    assert lazy.asked == [1, 3]


def test_selections_of_selections_are_one() -> None:
    values = numbers()
    twice = Taken(Taken(Counted(values), np.array([5, 3, 9])), np.array([2, 0]))
    assert isinstance(twice.source, Counted)
    np.testing.assert_array_equal(twice[:], values[[9, 5]])


def test_lazy_arrays_are_compared_by_their_numbers() -> None:
    values = numbers()
    other = values.copy()
    other[9, 1, 2] += 1
    assert same(as_array(Counted(values)), values)
    assert not same(as_array(Counted(values)), as_array(Counted(other)))
    assert not same(as_array(Counted(values)), values[:9])
    assert same(np.array([np.nan]), np.array([np.nan]))
    assert same(np.array(["left"]), np.array(["left"]))
    assert not same(np.array(["left"]), np.array(["right"]))


def test_arrays_in_memory_stay_arrays() -> None:
    values = numbers()
    assert not is_lazy(take(values, np.array([1])))
    assert not is_lazy(join([values, values]))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_lazy_windows_are_the_eager_ones_bit_for_bit(tmp_path: Path, compression: Any) -> None:
    eager, lazy = written(seeing(), tmp_path / "a.hdf5", compression)
    assert is_lazy(lazy.observation["image.top"])
    assert not is_lazy(lazy.observation["state"])
    spec = eager.spec.chunked(observation_steps=3, horizon=4, execute=2)
    index = np.random.default_rng(0).permutation(np.arange(15).repeat(2))
    a, b = Windows(eager, spec).batch(index), Windows(lazy, spec).batch(index)
    assert all(np.array_equal(a.observation[key], b.observation[key]) for key in a.observation)
    assert np.array_equal(a.action, b.action)


def test_episodes_are_selected_joined_checked_and_saved_without_reading_them_all(tmp_path: Path) -> None:
    eager, lazy = written(seeing(), tmp_path / "a.hdf5", "gzip")
    lazy.check_finite()
    both = [concatenate([e.select([2, 0]), e]) for e in (eager, lazy)]
    assert is_lazy(both[1].observation["image.top"])
    np.testing.assert_array_equal(both[1].observation["image.top"][:], both[0].observation["image.top"])
    save_episodes(both[1], tmp_path / "folder")
    np.testing.assert_array_equal(
        open_episodes(tmp_path / "folder").observation["image.top"], both[0].observation["image.top"]
    )


@pytest.mark.parametrize("name", ["b.hdf5", "b.zarr", "b.zarr.zip", "b.npz", "b_lerobot"])
def test_lazy_episodes_are_written_as_eager_ones(tmp_path: Path, name: str) -> None:
    from sensorimotor.data.formats import save_dataset

    eager, lazy = written(seeing(), tmp_path / "a.hdf5", None)
    pytest.importorskip("zarr" if "zarr" in name else "pyarrow" if "lerobot" in name else "h5py")
    save_dataset(lazy, tmp_path / name, format="lerobot" if "lerobot" in name else None)
    again = load_dataset(tmp_path / name)
    assert again.spec == eager.spec
    for key, value in eager.observation.items():
        np.testing.assert_array_equal(again.observation[key], value)


def test_formats_that_cannot_read_lazily_say_so(tmp_path: Path) -> None:
    from sensorimotor.data.errors import DataError
    from sensorimotor.data.formats import save_dataset

    save_dataset(seeing(), tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"lazy_images.*not one of the npz reader's"):
        load_dataset(tmp_path / "a.npz", lazy_images=True)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_lazy_array_can_be_pickled_before_and_after_it_was_read(tmp_path: Path, compression: Any) -> None:
    eager, lazy = written(seeing(), tmp_path / "a.hdf5", compression)
    frames = lazy.observation["image.top"]
    fresh = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(fresh[:], eager.observation["image.top"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fresh))[3], eager.observation["image.top"][3])


def _sum_of(frames: Any, rows: Any, answers: Any) -> None:
    answers.put(int(frames[rows].astype(np.int64).sum()))


@pytest.mark.parametrize(("method", "compression"), [("fork", None), ("fork", "gzip"), ("spawn", "gzip")])
def test_workers_read_while_their_parent_does(tmp_path: Path, method: str, compression: Any) -> None:
    """A file opened before a fork is opened anew by the child: the two would share one position in it."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    eager, lazy = written(seeing(lengths=(40, 40), side=24), tmp_path / "a.hdf5", compression)
    frames, whole = lazy.observation["image.top"], eager.observation["image.top"]
    np.testing.assert_array_equal(frames[:2], whole[:2])  # now it is open
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [
        context.Process(  # pyright: ignore[reportAttributeAccessIssue]
            target=_sum_of, args=(frames, np.arange(80), answers)
        )
        for _ in range(2 if method == "fork" else 1)
    ]
    for child in children:
        child.start()
    for row in range(80):
        np.testing.assert_array_equal(frames[row], whole[row])
    totals = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
    assert totals == [int(whole.astype(np.int64).sum())] * len(children)


def test_a_closed_array_opens_again_and_a_moved_file_is_named(tmp_path: Path) -> None:
    from sensorimotor.data.errors import DataError
    from sensorimotor.data.formats.hdf5_rows import Hdf5Rows

    eager, lazy = written(seeing(), tmp_path / "a.hdf5", "gzip")
    frames: Any = lazy.observation["image.top"]
    assert isinstance(frames, Hdf5Rows)
    np.testing.assert_array_equal(frames[1], eager.observation["image.top"][1])
    frames.close()
    np.testing.assert_array_equal(frames[2], eager.observation["image.top"][2])
    frames.close()
    (tmp_path / "a.hdf5").rename(tmp_path / "b.hdf5")
    with pytest.raises(DataError, match=r"a\.hdf5 cannot be read any more"):
        frames[0]


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"chunks": (1, 8, 8, 3), "compression": "gzip", "shuffle": True},
        {"chunks": (1, 8, 8, 3), "compression": "gzip"},
        {"chunks": (4, 8, 8, 3), "compression": "gzip"},
        {"chunks": (1, 8, 8, 3), "compression": "gzip", "maxshape": (None, 8, 8, 3)},
        {"chunks": (3, 5, 8, 3)},
        {"chunks": (1, 8, 8, 3), "compression": "lzf"},
        {"chunks": (1, 8, 8, 3), "compression": "gzip", "fletcher32": True},
    ],
    ids=["contiguous", "shuffled", "gzip", "four frames", "growing", "odd chunks", "lzf", "checksum"],
)
def test_every_layout_of_the_file_is_read_alike(tmp_path: Path, layout: dict[str, Any]) -> None:
    import h5py

    from sensorimotor.data.formats.hdf5_rows import Hdf5Rows

    values = [e.observation["image.top"] for e in (seeing(), seeing(seed=1))]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = [file.create_dataset(f"d{i}/x", data=v, **layout) for i, v in enumerate(values)]
        lazy = Hdf5Rows(tmp_path / "a.h5", made)
    whole = np.concatenate(values)
    for index in INDICES[:9]:
        np.testing.assert_array_equal(lazy[index], whole[index])
    np.testing.assert_array_equal(lazy[np.array([29, 0, 14, 15])], whole[[29, 0, 14, 15]])


def test_frames_never_written_are_those_that_reading_everything_gives(tmp_path: Path) -> None:
    import h5py

    from sensorimotor.data.formats.hdf5_rows import Hdf5Rows

    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset(
            "x", (5, 2, 3), np.uint8, chunks=(1, 2, 3), compression="gzip", fillvalue=7
        )
        made[1] = 3
        lazy, whole = Hdf5Rows(tmp_path / "a.h5", [made]), made[()]
    np.testing.assert_array_equal(lazy[:], whole)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_damaged_frames_are_named(tmp_path: Path, compression: Any) -> None:
    import h5py

    from sensorimotor.data.errors import DataError

    path = tmp_path / "a.hdf5"
    write_robomimic(seeing(), path, compression=compression)
    frames: Any = load_dataset(path, lazy_images=True).observation["image.top"]
    with h5py.File(path) as file:
        dataset: Any = file["data/demo_1/obs/image.top"]
        start = dataset.id.get_chunk_info(2).byte_offset if compression else dataset.id.get_offset()
    data = bytearray(path.read_bytes())
    if compression:
        data[start : start + 40] = bytes(40)
    path.write_bytes(data if compression else data[:start])
    wanted = r"damaged: rows 2 to 2 of /data/demo_1/obs/image\.top" if compression else "cut short"
    with pytest.raises(DataError, match=rf"a\.hdf5 is {wanted}"):
        frames[7]
    path.write_bytes(b"")
    frames.close()
    with pytest.raises(DataError, match=r"a\.hdf5 cannot be read any more"):
        frames[7]


def test_rows_that_differ_are_refused(tmp_path: Path) -> None:
    import h5py

    from sensorimotor.data.errors import DataError
    from sensorimotor.data.formats.hdf5_rows import Hdf5Rows

    with h5py.File(tmp_path / "a.h5", "w") as file:
        a, b = file.create_dataset("a", data=numbers()), file.create_dataset("b", data=numbers()[:, :1])
        with pytest.raises(DataError, match=r"/b is uint8\[1, 3\] per row, /a is uint8\[2, 3\]"):
            Hdf5Rows(tmp_path / "a.h5", [a, b])


def test_foreign_robomimic_images_are_read_lazily_by_their_name(tmp_path: Path) -> None:
    import h5py

    values = seeing(lengths=(4, 3)).observation
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for i, rows in enumerate((slice(0, 4), slice(4, 7))):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = np.zeros((rows.stop - rows.start, 2))
            for group in ("obs", "next_obs"):
                demo[f"{group}/agentview_image"] = values["image.top"][rows]
                demo[f"{group}/state"] = values["state"][rows]
    episodes = load_dataset(
        tmp_path / "a.hdf5",
        lazy_images=True,
        control_hz=20,
        observation={"state": "state", "image.agentview": "agentview_image"},
    )
    frames = episodes.observation["image.agentview"]
    assert is_lazy(frames)
    np.testing.assert_array_equal(frames[[5, 1]], values["image.top"][[5, 1]])
    assert sorted(episodes.extra) == ["next_obs.state"]  # next frames are left out


def test_recorded_next_frames_of_our_own_files_are_left_out(tmp_path: Path) -> None:
    episodes = seeing()
    odd = replace(episodes, extra={"next_obs.image.top": episodes.observation["image.top"].copy()})
    eager, lazy = written(odd, tmp_path / "a.hdf5", "gzip")
    assert list(eager.extra) == ["next_obs.image.top"]
    assert list(lazy.extra) == []


def test_frames_stand_alone_in_packed_files(tmp_path: Path, make_reader: Callable[[Path], Any]) -> None:
    write_robomimic(seeing(), tmp_path / "a.hdf5", compression="gzip")
    assert make_reader(tmp_path / "a.hdf5") == (1, 8, 8, 3)


@pytest.fixture
def make_reader() -> Callable[[Path], Any]:
    import h5py

    def chunks(path: Path) -> Any:
        with h5py.File(path) as file:
            dataset = file["data/demo_0/obs/image.top"]
            assert isinstance(dataset, h5py.Dataset)
            return dataset.chunks

    return chunks
