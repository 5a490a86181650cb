"""Recordings: the expert's, as robomimic lays them out, read by robomimic and by us, and played again."""

import importlib
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import DataError
from sensorimotor.data.formats.robomimic import read_robomimic, write_robomimic
from sensorimotor.data.spec import Field, check_connection
from sensorimotor.sim.demos import record_demos
from sensorimotor.sim.manipulation.observation import make_spec
from sensorimotor.sim.manipulation.poses import inverse, multiply, rotate
from sensorimotor.sim.manipulation.recordings import HAND, OBJECT, as_robomimic, demonstrations
from sensorimotor.sim.manipulation.task import RobosuiteConfig, RobosuiteWorlds
from sensorimotor.sim.manipulation.waypoints import WaypointsConfig


@pytest.fixture(scope="module")
def recorded(worlds: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of `lift` from starts 0 and 1."""
    recording = record_demos(RobosuiteConfig(threads=1), WaypointsConfig(), episodes=2)
    assert recording.seeds == (0, 1)
    path = tmp_path_factory.mktemp("recorded") / "lift.hdf5"
    write_robomimic(recording.episodes, path, compression="gzip")
    return path


def recording_of(
    task: Any, *, version: str | None, steps: int = 5
) -> tuple[Episodes, np.ndarray, np.ndarray]:
    """A foreign recording with random poses of hand and object, laid out as that robosuite version does."""
    generator = np.random.default_rng(0)

    def poses() -> np.ndarray:
        quaternion = generator.normal(size=(steps, 4))
        quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        return np.concatenate([generator.normal(size=(steps, 3)), quaternion], axis=1)

    hand, thing = poses(), poses()
    back = inverse(hand[:, 3:])
    near = rotate(back, thing[:, :3] - hand[:, :3])
    relative = np.concatenate([near, multiply(back, thing[:, 3:])], axis=1)
    old = version is None or version.startswith("1.4")
    if task == "lift":
        away = (thing[:, :3] - hand[:, :3]) * (-1 if old else 1)
        listed = np.concatenate([thing, away], axis=1)
    else:
        listed = np.concatenate([thing, relative] if old else [relative, thing], axis=1)
    fingers = generator.normal(size=(steps, 2))
    observation = {"robot0_eef_pos": hand[:, :3], "robot0_eef_quat": hand[:, 3:]}
    observation |= {"robot0_gripper_qpos": fingers, OBJECT: listed, "robot0_joint_vel": hand}
    observation["agentview_image"] = np.zeros((steps, 8, 8, 3), np.uint8)
    name = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare"}[task]
    made: dict[str, Any] = {"env_name": name, "type": 1} | ({"env_version": version} if version else {})
    spec = replace(
        make_spec(task, {}),
        observation={k: Field(shape=a.shape[1:], dtype=a.dtype.name) for k, a in observation.items()},
        action=Field(shape=(7,), dtype="float64"),
    )
    episodes = Episodes(
        spec=spec,
        observation=observation,
        action=generator.uniform(-1, 1, (steps, 7)),
        ends=np.array([steps]),
        metadata={"env_args": made},
    )
    return episodes, np.concatenate([hand, fingers], axis=1), thing


@pytest.mark.parametrize("version", [None, "1.4.1", "1.5.1"])
@pytest.mark.parametrize("task", ["lift", "can", "square"])
def test_a_recording_of_any_version_is_what_the_task_observes(task: Any, version: str | None) -> None:
    raw, state, thing = recording_of(task, version=version)
    episodes = demonstrations(raw, task)
    check_connection(episodes.spec, make_spec(task, {"agentview": 8}), user_name="dataset")
    assert set(episodes.observation) == {"state", "environment", "image.agentview"}
    np.testing.assert_allclose(episodes.observation["state"], state, atol=1e-6)
    environment = episodes.observation["environment"]
    at = slice(0, 7) if task == "lift" else slice(7, 14)
    np.testing.assert_allclose(environment[:, at], thing, atol=1e-6)
    # The hand plus what it sees of the object is the object.
    hand = state[:, :7]
    if task == "lift":
        np.testing.assert_allclose(hand[:, :3] + environment[:, 7:], thing[:, :3], atol=1e-5)
    else:
        np.testing.assert_allclose(
            hand[:, :3] + rotate(hand[:, 3:], environment[:, :3]), thing[:, :3], atol=1e-5
        )
        assert (environment[:, 6] >= 0).all()  # of a quaternion and its negative, the one with w >= 0


@pytest.mark.parametrize(
    ("change", "task", "said"),
    [
        (lambda e: e, "can", "the recording is of Lift, task=can is PickPlaceCan; use task=lift"),
        (
            lambda e: replace(e, metadata={"env_args": {"env_name": "Door"}}),
            "lift",
            "known are Lift, PickPlaceCan, NutAssemblySquare",
        ),
        (lambda e: without(e, "object"), "lift", "lacks 'object', which task=lift needs"),
        (lambda e: with_width(e, 14), "lift", r"'object' holds \(14,\) numbers per step"),
        (lambda e: e, "lift", None),
    ],
)
def test_what_does_not_fit_is_said(change: Any, task: Any, said: str | None) -> None:
    raw = change(recording_of("lift", version="1.5.1")[0])
    if said is None:
        demonstrations(raw, task)
        return
    with pytest.raises(DataError, match=said):
        demonstrations(raw, task)


def without(episodes: Episodes, key: str) -> Episodes:
    rest = {k: a for k, a in episodes.observation.items() if k != key}
    return replace(episodes, spec=episodes.spec.keep(tuple(rest)), observation=rest)


def with_width(episodes: Episodes, width: int) -> Episodes:
    fields = {**episodes.spec.observation, OBJECT: Field(shape=(width,), dtype="float64")}
    return replace(
        episodes,
        spec=replace(episodes.spec, observation=fields),
        observation={**episodes.observation, OBJECT: np.zeros((episodes.steps, width))},
    )


def test_the_file_has_robomimics_layout(recorded: Path) -> None:
    with h5py.File(recorded) as file:
        data: Any = file["data"]
        made = json.loads(data.attrs["env_args"])
        assert (made["env_name"], made["type"], made["env_version"]) == ("Lift", 1, "1.5.2")
        assert made["env_kwargs"]["control_freq"] == 20
        assert made["env_kwargs"]["controller_configs"]["body_parts"]["right"]["type"] == "OSC_POSE"
        demo = data["demo_1"]
        assert set(demo["obs"]) == {*HAND, OBJECT}
        steps = demo.attrs["num_samples"]
        assert demo["states"].shape == (steps, 32)
        assert demo["states"].dtype == np.float64
        model = demo.attrs["model_file"]
    assert model.startswith("<mujoco")
    assert 'file="robosuite/models/assets/' in model
    assert 'file="/' not in model  # no folder of the machine that recorded


def test_our_reader_gives_back_what_connects_to_the_task(recorded: Path, lift: RobosuiteWorlds) -> None:
    episodes = demonstrations(read_robomimic(recorded), "lift")
    check_connection(episodes.spec, lift.spec, user_name="dataset")
    starts = lift.reset(episodes.metadata["seeds"])
    for key, value in starts.items():
        np.testing.assert_allclose(episodes.observation[key][episodes.starts], value, atol=1e-6)
    assert episodes.success is not None
    assert episodes.success.all()


def test_recorded_actions_from_recorded_states_succeed_again(recorded: Path, lift: RobosuiteWorlds) -> None:
    episodes = read_robomimic(recorded)
    states = episodes.extra["states"]
    for index in range(len(episodes)):
        begin, end = int(episodes.starts[index]), int(episodes.ends[index])
        lift.restore(np.stack([states[begin]] * 2))
        for row in range(begin, end):
            np.testing.assert_array_equal(lift.state[0], states[row])
            step = lift.step(np.stack([episodes.action[row]] * 2))
        assert step.success.all()


def test_pictures_are_recorded_under_robomimics_names_and_come_back(lift: RobosuiteWorlds) -> None:
    spec = make_spec("lift", {"agentview": 8, "robot0_eye_in_hand": 8})
    generator = np.random.default_rng(0)
    seen: dict[str, Any] = {key: value[[0, 1, 0]] for key, value in lift.reset([1, 2]).items()}
    for camera in ("image.agentview", "image.robot0_eye_in_hand"):
        seen[camera] = generator.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    action = generator.uniform(-1, 1, (3, 7)).astype(np.float32)
    episodes = Episodes(spec=spec, observation=seen, action=action, ends=np.array([3]))
    raw = as_robomimic(episodes, lift, np.zeros((3, 32)), [1])
    assert set(raw.observation) == {*HAND, OBJECT, "agentview_image", "robot0_eye_in_hand_image"}
    again = demonstrations(raw, "lift")
    assert again.spec == spec
    for key, value in seen.items():
        np.testing.assert_allclose(again.observation[key], value, atol=1e-6)


def test_robomimic_reads_it(recorded: Path) -> None:
    reason = "robomimic is not installed: pip install --no-deps robomimic==0.3.0, then termcolor and tqdm"
    dataset = pytest.importorskip("robomimic.utils.dataset", reason=reason, exc_type=ImportError)
    obs_utils = importlib.import_module("robomimic.utils.obs_utils")
    keys = (*HAND, OBJECT)
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(keys)}})
    made = dataset.SequenceDataset(
        hdf5_path=str(recorded), obs_keys=keys, dataset_keys=("actions", "rewards", "dones"), seq_length=10
    )
    episodes = read_robomimic(recorded)
    assert len(made) == episodes.steps
    np.testing.assert_array_equal(made[3]["actions"], episodes.action[3:13])
    np.testing.assert_array_equal(made[3]["obs"][OBJECT], episodes.observation[OBJECT][3:13])


def test_robomimics_own_playback_succeeds(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As robomimic's playback script does: the environment from the file, its state and model, then the actions.

    robomimic 0.3 imports mujoco_py only to name its exception; a module of that name is enough.
    """
    reason = "robomimic is not installed: pip install --no-deps robomimic==0.3.0, then termcolor and tqdm"
    obs_utils = pytest.importorskip("robomimic.utils.obs_utils", reason=reason, exc_type=ImportError)
    from sensorimotor.sim.manipulation.scene import quiet

    monkeypatch.setitem(sys.modules, "mujoco_py", types.ModuleType("mujoco_py"))
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": [*HAND, OBJECT]}})
    with quiet(), h5py.File(recorded) as file:
        data: Any = file["data"]
        made = json.loads(data.attrs["env_args"])
        env_robosuite = importlib.import_module("robomimic.envs.env_robosuite")
        env = env_robosuite.EnvRobosuite(made["env_name"], **made["env_kwargs"])
        demo = data["demo_0"]
        env.reset()
        seen = env.reset_to({"model": demo.attrs["model_file"], "states": demo["states"][0]})
        for key in HAND:
            np.testing.assert_allclose(seen[key], demo[f"obs/{key}"][0], atol=1e-5)
        for action in demo["actions"][()]:
            env.step(action)
        assert env.is_success()["task"]
