"""Batched physics: equal to single worlds bit for bit, and loud when a world diverges."""

# MuJoCo's names come from compiled modules without stubs.
# pyright: reportAttributeAccessIssue=false

from pathlib import Path

import mujoco
import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError, SensorimotorError, SimulationError
from sensorimotor.sim.batch import BatchedPhysics, advance_one
from sensorimotor.sim.push_t import SUBSTEPS, PushTConfig, load_model, start_positions

WORLDS = 6


def physics(*, threads: int = 1, worlds: int = WORLDS) -> BatchedPhysics:
    made = BatchedPhysics(load_model(), worlds=worlds, substeps=SUBSTEPS, threads=threads)
    made.place(starts(worlds))
    return made


def starts(worlds: int) -> np.ndarray:
    return start_positions(range(worlds), PushTConfig())


def pushes(steps: int, worlds: int = WORLDS, seed: int = 0) -> np.ndarray:
    """Targets (steps, worlds, 2) scattered round the middle of the block, so that there is much contact."""
    generator = np.random.default_rng(seed)
    return starts(worlds)[:, :2] + generator.normal(0, 0.05, (steps, worlds, 2))


@pytest.fixture(autouse=True)
def _warnings_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo appends its warnings to a file in the working folder


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_worlds_equal_single_steps_bit_for_bit_whatever_the_threads(threads: int) -> None:
    batch = physics(threads=threads)
    model = load_model()
    singles = [mujoco.MjData(model) for _ in range(WORLDS)]
    for single, start in zip(singles, starts(WORLDS), strict=True):
        single.qpos[:] = start
    for targets in pushes(40):
        batch.advance(targets)
        for single, target in zip(singles, targets, strict=True):
            advance_one(model, single, target, substeps=SUBSTEPS)
    np.testing.assert_array_equal(batch.qpos, [single.qpos for single in singles])
    np.testing.assert_array_equal(batch.qvel, [single.qvel for single in singles])
    assert (
        np.abs(batch.qpos[:, :3] - starts(WORLDS)[:, :3]).max(axis=1).min() > 1e-3
    )  # every block was pushed
    batch.close()


def test_a_carried_warm_start_would_not_be_the_same() -> None:
    """Why `advance_one` clears it: the solver's answer depends on where it starts."""
    model = load_model()
    same = []
    for world, start in enumerate(starts(WORLDS)):
        fresh, carried = mujoco.MjData(model), mujoco.MjData(model)
        fresh.qpos[:] = carried.qpos[:] = start
        for target in pushes(40)[:, world]:
            advance_one(model, fresh, target, substeps=SUBSTEPS)
            carried.ctrl[:] = target
            mujoco.mj_step(model, carried, nstep=SUBSTEPS)
        same.append(np.array_equal(fresh.qpos, carried.qpos))
    assert not all(same)


def test_a_world_does_not_depend_on_its_neighbours() -> None:
    together, alone = physics(), BatchedPhysics(load_model(), worlds=1, substeps=SUBSTEPS)
    alone.place(starts(WORLDS)[3:4])
    for targets in pushes(20):
        together.advance(targets)
        alone.advance(targets[3:4])
    np.testing.assert_array_equal(together.state[3], alone.state[0])


def test_a_closed_loop_follows_open_loop_to_the_first_solver_restart() -> None:
    """One long call and many short ones agree where nothing touches: only contacts use the warm start."""
    long, short = physics(), physics()
    free = np.repeat(starts(WORLDS)[:, None, 3:], 4, axis=1) * 1.02
    states = long.play(free)
    for step in range(4):
        short.advance(free[:, step])
        np.testing.assert_allclose(states[:, step], short.state, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(long.state, states[:, -1])


def test_time_advances_by_whole_control_steps() -> None:
    batch = physics()
    for targets in pushes(7):
        batch.advance(targets)
    np.testing.assert_allclose(batch.state[:, 0], 0.7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_names_its_world_and_moves_nothing(bad: float) -> None:
    batch = physics()
    before = batch.state.copy()
    targets = pushes(1)[0]
    targets[4, 1] = bad
    with pytest.raises(SimulationError, match="world 4 has an action"):
        batch.advance(targets)
    np.testing.assert_array_equal(batch.state, before)


@pytest.mark.parametrize(("velocity", "dof"), [(np.nan, 0), (1e12, 0), (-np.inf, 4), (1e200, 2)])
def test_a_diverged_world_is_an_error_that_names_it(velocity: float, dof: int) -> None:
    """MuJoCo itself would reset such a world to its default pose and go on."""
    batch = physics(threads=2)
    batch.advance(pushes(1)[0])
    batch.qvel[2, dof] = velocity
    with pytest.raises(SimulationError, match=r"world 2 .* \(1 of 6 worlds"):
        batch.advance(pushes(1)[0])
    batch.place(starts(WORLDS))
    batch.advance(pushes(1)[0])  # placed anew, it goes on


def test_a_diverged_single_world_is_an_error_too() -> None:
    model = load_model()
    data = mujoco.MjData(model)
    with pytest.raises(SimulationError, match="action"):
        advance_one(model, data, np.array([np.nan, 0.0]), substeps=SUBSTEPS)
    data.qvel[0] = 1e12
    with pytest.raises(SimulationError, match="state"):
        advance_one(model, data, np.zeros(2), substeps=SUBSTEPS)


def test_threads_are_limited_by_worlds_and_default_to_the_machine() -> None:
    assert physics(threads=64).threads == WORLDS
    assert 1 <= physics(threads=0).threads <= WORLDS


@pytest.mark.parametrize("wrong", [{"worlds": 0}, {"substeps": 0}, {"threads": -1}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least"):
        BatchedPhysics(load_model(), **({"worlds": 1, "substeps": 1} | wrong))


def test_closed_worlds_say_so() -> None:
    batch = physics(threads=2)
    batch.close()
    batch.close()
    with pytest.raises(SensorimotorError, match="closed"):
        batch.advance(pushes(1)[0])
