"""Dataset files of other projects and ours: what kind a file is, is decided by its content."""

import zipfile
from pathlib import Path
from typing import Any, Literal, assert_never, get_args

from ..episodes import Episodes, open_episodes, save_episodes
from ..errors import DataError
from ..files import recover_folder
from ..schema import nearest
from ..spec import Spec
from .description import expect

Format = Literal["robomimic", "zarr", "lerobot", "npz", "folder"]
FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".hdf5": "robomimic",
    ".h5": "robomimic",
    ".zarr": "zarr",
    ".zip": "zarr",
    ".npz": "npz",
    "": "folder",
}


def load_dataset(
    path: Path | str, *, format: Format | None = None, require_finite: bool = True, **options: Any
) -> Episodes:
    """Open a dataset of any known format.

    Args:
        path: file or folder.
        format: one of `FORMATS`; found out from the content if absent.
        require_finite: refuse arrays that hold a NaN or an infinity.
        options: keywords of the format's reader, such as `spec`, `control_hz`, `observation` or `filter_key`.

    Raises:
        DataError: if the file is unreadable, incomplete, of no known format, or not finite.
    """
    path = Path(path)
    if not path.exists():
        recover_folder(path)
    format = format or detect_format(path)
    episodes = _read(path, _known(format), options)
    if require_finite:
        try:
            episodes.check_finite()
        except DataError as error:
            raise DataError(f"{path}: {error}; or open it as it is with require_finite=False") from error
    return episodes


def _read(path: Path, format: Format, options: dict[str, Any]) -> Episodes:
    match format:
        case "robomimic":
            from .robomimic import read_robomimic as read
        case "zarr":
            from .zarr import read_zarr as read
        case "lerobot":
            from .lerobot import read_lerobot as read
        case "npz":
            from .npz import read_npz as read
        case "folder":
            read = _read_folder
        case _:
            assert_never(format)
    try:
        return read(path, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise DataError(f"{path}: {error}; that option is not one of the {format} reader's") from error


def _read_folder(
    path: Path, *, spec: Spec | None = None, control_hz: float | None = None, memory_map: bool = True
) -> Episodes:
    return expect(open_episodes(path, memory_map=memory_map), spec=spec, control_hz=control_hz)


def save_dataset(episodes: Episodes, path: Path | str, *, format: Format | None = None) -> None:
    """Write a dataset; it appears whole or not at all.

    Args:
        episodes: what to write.
        path: file or folder; a dataset of the same format that is already there is replaced.
        format: one of `FORMATS`; from the suffix if absent (none means `folder`).
    """
    path = Path(path)
    if format is None:
        if path.suffix not in _SUFFIXES:
            known = ", ".join(f"{suffix or 'no suffix'}: {name}" for suffix, name in _SUFFIXES.items())
            raise DataError(
                f"no format is known by the suffix of {path}; pass format=, or use one of {known}"
            )
        format = _SUFFIXES[path.suffix]
    match _known(format):
        case "robomimic":
            from .robomimic import write_robomimic as write
        case "zarr":
            from .zarr import write_zarr as write
        case "lerobot":
            from .lerobot import write_lerobot as write
        case "npz":
            from .npz import write_npz as write
        case "folder":
            write = save_episodes
        case _:
            assert_never(format)
    write(episodes, path)


def _known(format: str) -> Format:
    if format not in FORMATS:
        raise DataError(f"unknown format {format!r}; {nearest(format, FORMATS)}")
    return format


def detect_format(path: Path | str) -> Format:
    """The format of a file or folder, by its content.

    Raises:
        DataError: if there is nothing, or nothing known; a pickle is named and refused.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is nothing at {path}; give a file or folder of one of {', '.join(FORMATS)}")
    found = _folder_format(path) if path.is_dir() else _file_format(path)
    if found is None:
        raise DataError(f"{path} is of no known format; known are {', '.join(FORMATS)}")
    return found


def _folder_format(path: Path) -> Format | None:
    marks: dict[str, Format] = {
        "episodes.json": "folder",
        "meta/info.json": "lerobot",
        ".zgroup": "zarr",
        "zarr.json": "zarr",
    }
    return next((format for mark, format in marks.items() if (path / mark).exists()), None)


def _file_format(path: Path) -> Format | None:
    with path.open("rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        return "robomimic"
    if head.startswith(b"PAR1"):
        raise DataError(
            f"{path} is one table of a dataset; give the dataset's folder, which holds meta/info.json"
        )
    names = _zip_names(path) if head.startswith(b"PK") else []
    if path.suffix in {".pkl", ".pickle"} or _is_pickle(head) or any(n.endswith("data.pkl") for n in names):
        raise DataError(
            f"{path} is a pickle, and loading one runs whatever code it holds; where you trust it, load it with its "
            "own tools and write its arrays with numpy.savez(path, state=..., action=..., episode_ends=...)"
        )
    if any(name.endswith(".zgroup") for name in names):
        return "zarr"
    return "npz" if names and all(name.endswith(".npy") for name in names) else None


def _is_pickle(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6)


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is a zip cut short ({error}); copy it again") from error
