"""Converting: bit for bit, nothing overwritten by accident, losses reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.commands.convert import bad_episodes, compare
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats import load_dataset, save_dataset
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, check_connection


@pytest.mark.parametrize("name", ["out.hdf5", "out.zarr", "out.zarr.zip", "out.npz", "out"])
def test_a_round_trip_changes_no_bit(command, dataset: Path, recordings: Episodes, name: str) -> None:
    there, back = dataset.parent / name, dataset.parent / "back.hdf5"
    assert command("convert", f"source={dataset}", f"target={there}").code == 0
    assert command("convert", f"source={there}", f"target={back}").code == 0
    again = load_dataset(back)
    assert again.spec == recordings.spec
    np.testing.assert_array_equal(again.action, recordings.action)
    np.testing.assert_array_equal(again.ends, recordings.ends)
    for key, array in recordings.observation.items():
        np.testing.assert_array_equal(again.observation[key], array)


@pytest.mark.parametrize("name", ["out.zarr.zip", "out.npz", "out", "lerobot"])
def test_instructions_survive_a_round_trip(command, recordings: Episodes, tmp_path: Path, name: str) -> None:
    texts = np.array(["to the left", "to the right goal"])[np.arange(recordings.steps) // 7 % 2]
    spec = replace(
        recordings.spec,
        observation={**recordings.spec.observation, "instruction": Field(shape=(), dtype="str")},
    )
    told = replace(recordings, spec=spec, observation={**recordings.observation, "instruction": texts})
    save_dataset(told, tmp_path / "told.hdf5")
    options = ("target_format=lerobot",) if name == "lerobot" else ()
    there, back = tmp_path / name, tmp_path / "back.hdf5"
    done = command("convert", f"source={tmp_path / 'told.hdf5'}", f"target={there}", *options)
    assert done.code == 0, done.err
    assert command("convert", f"source={there}", f"target={back}").code == 0
    assert load_dataset(back).observation["instruction"].tolist() == texts.tolist()


def test_a_format_without_a_suffix_is_named(command, dataset: Path) -> None:
    target = dataset.parent / "lerobot"
    assert command("convert", f"source={dataset}", f"target={target}", "target_format=lerobot").code == 0
    assert (target / "meta" / "info.json").exists()


def test_an_existing_target_is_left_alone_unless_told_otherwise(command, dataset: Path) -> None:
    target = dataset.parent / "out.npz"
    target.write_text("precious")
    done = command("convert", f"source={dataset}", f"target={target}")
    assert done.code == 1
    assert "overwrite=true" in done.err
    assert target.read_text() == "precious"
    assert command("convert", f"source={dataset}", f"target={target}", "overwrite=true").code == 0
    assert len(load_dataset(target)) == 6


def test_a_file_is_not_converted_onto_itself(command, dataset: Path) -> None:
    before = dataset.read_bytes()
    assert command("convert", f"source={dataset}", f"target={dataset}", "overwrite=true").code == 1
    assert dataset.read_bytes() == before


def test_numbers_that_are_not_finite_stop_it_and_leave_no_file(command, spoilt: Path) -> None:
    target = spoilt.parent / "out.hdf5"
    done = command("convert", f"source={spoilt}", f"target={target}")
    assert done.code == 1
    assert "episode 2, step 5" in done.err
    assert not target.exists()


def test_bad_episodes_are_left_out_on_request_and_that_is_a_loss(
    command, spoilt: Path, recordings: Episodes
) -> None:
    target = spoilt.parent / "out.hdf5"
    done = command("convert", f"source={spoilt}", f"target={target}", "skip_bad=true")
    assert done.code == 3
    assert "episode 2 is left out: action is not finite at step 5" in done.err
    assert "1 of 6" in done.err
    kept = recordings.select([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(load_dataset(target).action, kept.action)


def test_nothing_bad_means_no_loss(command, dataset: Path) -> None:
    done = command("convert", f"source={dataset}", f"target={dataset.parent / 'o.npz'}", "skip_bad=true")
    assert done.code == 0
    assert "left out" not in done.err


def test_what_a_reader_has_to_leave_out_is_a_loss(command, tmp_path: Path) -> None:
    source = tmp_path / "foreign.npz"
    zeros = np.zeros((6, 2), dtype=np.float32)
    np.savez(source, state=zeros, action=zeros, episode_ends=[3, 6], camera_matrix=np.eye(3))
    done = command("convert", f"source={source}", f"target={tmp_path / 'o.hdf5'}", "control_hz=10")
    assert done.code == 3
    assert "camera_matrix" in done.err


def test_frames_of_a_lerobot_set_become_a_file_to_train_on(
    command, recordings: Episodes, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    frames = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    field = Field(shape=(8, 8, 3), dtype="uint8")
    spec = replace(recordings.spec, observation={**recordings.spec.observation, "image.top": field})
    seeing = replace(recordings, spec=spec, observation={**recordings.observation, "image.top": frames})
    save_dataset(seeing, tmp_path / "set", format="lerobot")
    done = command("convert", f"source={tmp_path / 'set'}", f"target={tmp_path / 'o.hdf5'}")
    assert done.code == 0, done.err
    lazy = load_dataset(tmp_path / "o.hdf5", lazy_images=True)
    np.testing.assert_array_equal(lazy.observation["image.top"][:], frames)


def test_every_bad_episode_is_found_where_it_is_first_bad(recordings: Episodes) -> None:
    assert bad_episodes(recordings) == {}
    environment = recordings.observation["environment"].copy()
    environment[[0, 39, 45, 119], 0] = [np.inf, np.nan, np.nan, -np.inf]
    found = bad_episodes(
        replace(recordings, observation={**recordings.observation, "environment": environment})
    )
    assert list(found) == [0, 1, 2, 5]
    assert found[1] == "environment is not finite at step 19"


def test_a_difference_of_one_bit_is_noticed(recordings: Episodes) -> None:
    compare(recordings, recordings, Path("x"))
    other = recordings.select(np.arange(6))
    other.action[-1, -1] = np.nextafter(other.action[-1, -1], np.float32(9))
    with pytest.raises(DataError, match="action read back"):
        compare(recordings, other, Path("x"))


def test_a_policy_file_that_is_not_robomimics_is_refused(command, tmp_path: Path) -> None:
    import torch

    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pth")
    done = command("convert", f"source={tmp_path / 'model.pth'}", f"target={tmp_path / 'policy'}")
    assert done.code == 1
    assert "is not robomimic's" in done.err
    assert not (tmp_path / "policy").exists()


def test_a_policy_of_robomimics_is_judged_on_its_task(command, algorithms: None, tmp_path: Path) -> None:
    """Its four observations are laid side by side as the task lays them."""
    import torch

    from sensorimotor.policies.factory import build_policy, load
    from sensorimotor.policies.robomimic_policy import Part, RobomimicConfig, RobomimicPolicy
    from sensorimotor.sim.manipulation.observation import make_spec

    sizes = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
    parts = tuple(Part(name=name, key=name, begin=0, end=size) for name, size in sizes.items())
    config = RobomimicConfig(parts=parts, settings='{"actor_layer_dims": [8]}')
    task = make_spec("lift", {})
    spec = replace(task, observation={name: Field(shape=(size,)) for name, size in sizes.items()})
    identity = {name: (torch.zeros(size), torch.ones(size)) for name, size in (sizes | {"action": 7}).items()}
    made = build_policy(config, config.chunk.apply(spec), Normalizer(identity)).eval()
    assert isinstance(made, RobomimicPolicy)
    held = {
        "model": made._algorithm.serialize(),
        "config": made._algorithm.global_config.dump(),
        "algo_name": "bc",
        "env_metadata": {"env_name": "Lift", "env_version": "1.5.2", "type": 1, "env_kwargs": {}},
        "shape_metadata": {"ac_dim": 7, "all_shapes": made._algorithm.obs_shapes},
    }
    torch.save(held, tmp_path / "model.pth")
    words = (f"source={tmp_path / 'model.pth'}", f"target={tmp_path / 'policy'}")
    assert "pass control_hz" in command("convert", *words).err
    done = command("convert", *words, "control_hz=20")
    assert done.code == 0, done.err
    assert done.out.rstrip().endswith("task=<lift, can or square, as it was trained>")
    policy = load(tmp_path / "policy")
    check_connection(policy.spec, task)
    seen = {name: torch.randn(3, 1, size) for name, size in sizes.items()}
    joined = {
        "state": torch.cat([seen[name] for name in list(sizes)[:3]], dim=-1),
        "environment": seen["object"],
    }
    assert torch.equal(policy.sample(joined), made.sample(seen))
