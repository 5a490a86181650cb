"""Evaluation on a task small enough to know every number by hand: worlds on a line, walking to +1."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import Policy
from sensorimotor.sim.baselines import HoldStill, UniformRandom
from sensorimotor.sim.evaluation import Evaluation, evaluate
from sensorimotor.sim.manipulation.observation import make_spec
from sensorimotor.sim.task import Step

LINE = Spec(
    observation={"state": Field(shape=(1,), unit="m")},
    action=Field(shape=(1,), unit="m", low=(-1.0,), high=(1.0,)),
    control_hz=10,
)


class Line:
    """World i starts at -(seed % 10) / 10 and moves by its action; success at 0.5, ten steps at most."""

    spec, max_steps = LINE, 10

    def __init__(self, worlds: int) -> None:
        self.worlds = worlds

    def reset(self, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        self.x = -(np.array(seeds) % 10) / 10
        self.t = 0
        return self._observe()

    def _observe(self) -> dict[str, np.ndarray]:
        return {"state": self.x[:, None].astype(np.float32)}

    def step(self, action: np.ndarray) -> Step:
        self.x = self.x + action[:, 0].astype(np.float64)
        self.t += 1
        done = self.x >= 0.5 - 1e-6
        ended = np.full(self.worlds, self.t >= self.max_steps) & ~done
        return Step(self._observe(), np.clip(self.x, 0, 1), done, ended, done, np.clip(self.x, 0, 1))

    def render(self, world: int, *, size: int = 256) -> np.ndarray:
        return np.full((size, size, 3), 255 * self.x[world].clip(0, 1), dtype=np.uint8)

    def close(self) -> None:
        """Nothing to release."""


class Walk(Policy):
    """Two steps of a fixed length per chunk."""

    def __init__(self, length: float = 0.1, spec: Spec = LINE) -> None:
        super().__init__(spec.chunked(observation_steps=1, horizon=2, execute=2))
        self.length = length

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        return torch.full((len(observation["state"]), samples, 2, 1), self.length)


def test_every_number_of_a_known_walk() -> None:
    """From -0.k in steps of 0.1 success takes 5 + k steps; the limit of ten cuts off k > 5."""
    result = evaluate(Walk(), Line(10), episodes=10)
    np.testing.assert_array_equal(result.seeds, np.arange(100_000, 100_010))
    np.testing.assert_array_equal(result.length, [5, 6, 7, 8, 9, 10, 10, 10, 10, 10])
    np.testing.assert_array_equal(result.solved_at, [5, 6, 7, 8, 9, 10, 0, 0, 0, 0])
    np.testing.assert_array_equal(result.success, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(result.coverage[6:], [0.4, 0.3, 0.2, 0.1], atol=1e-6)
    assert result.success_rate.value == 0.6


def test_an_episode_may_go_on_after_its_first_success() -> None:
    class Onwards(Line):
        def step(self, action: np.ndarray) -> Step:
            step = super().step(action)
            return replace(step, terminated=step.terminated & (self.x >= 0.8 - 1e-6))

    result = evaluate(Walk(), Onwards(2), episodes=2)
    np.testing.assert_array_equal(result.solved_at, [5, 6])
    np.testing.assert_array_equal(result.length, [8, 9])


@pytest.mark.parametrize("worlds", [1, 3, 4, 10])
def test_the_number_of_worlds_changes_nothing(worlds: int) -> None:
    result, reference = (evaluate(Walk(), Line(n), episodes=10) for n in (worlds, 10))
    for name in ("seeds", "success", "reward", "coverage", "length", "solved_at"):
        np.testing.assert_array_equal(getattr(result, name), getattr(reference, name))


def test_the_best_moment_counts_even_if_it_is_lost_again() -> None:
    class ThereAndBack(Walk):
        def sample(self, observation: Mapping[str, Tensor], **kwargs: object) -> Tensor:
            return torch.tensor([0.4, -0.4]).view(1, 1, 2, 1).expand(len(observation["state"]), 1, 2, 1)

    result = evaluate(ThereAndBack(), Line(1), episodes=1)
    assert result.coverage[0] == pytest.approx(0.4)
    assert not result.success[0]


def test_latency_and_duration_come_from_the_injected_clock() -> None:
    ticks = iter(range(10**6))
    result = evaluate(Walk(), Line(1), episodes=1, clock=lambda: next(ticks) * 0.25)
    np.testing.assert_allclose(result.latency_ms, 250.0)
    assert result.seconds > 0


def test_json_holds_every_episode(tmp_path: Path) -> None:
    result = evaluate(Walk(), Line(4), episodes=4, name="walk")
    result.save(tmp_path / "evaluation.json")
    read = json.loads((tmp_path / "evaluation.json").read_text())
    assert read["policy"] == "walk"
    assert read["success"]["value"] == 1.0
    assert [row["length"] for row in read["per_episode"]] == [5, 6, 7, 8]
    assert read["per_episode"][3]["seed"] == 100_003


def test_videos_of_the_first_episodes_end_with_success(tmp_path: Path) -> None:
    import imageio.v2 as imageio

    result = evaluate(Walk(), Line(2), episodes=4, videos=3, folder=tmp_path)
    assert [Path(p).name for p in result.videos] == [
        f"episode_{seed}.mp4" for seed in (100_000, 100_001, 100_002)
    ]
    frames = np.asarray(imageio.mimread(result.videos[0]))
    assert len(frames) == 5 + 10  # five steps, and a second of the last frame
    red, green, blue = frames[-1][-4, -4].astype(int)
    assert green > red + 30
    assert green > blue + 10


def test_a_policy_of_another_robot_is_refused() -> None:
    wide = Spec(observation=LINE.observation, action=Field(shape=(2,)), control_hz=10)
    with pytest.raises(SpecError, match=r"action shape.*\(2,\).*\(1,\)"):
        evaluate(Walk(spec=wide), Line(1), episodes=1)


def test_impossible_arguments_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        evaluate(Walk(), Line(1), episodes=0)
    with pytest.raises(ConfigError, match="folder"):
        evaluate(Walk(), Line(1), episodes=1, videos=1)


def test_hold_still_commands_where_it_is() -> None:
    result = HoldStill(LINE).sample({"state": torch.tensor([[[0.25]], [[-0.5]]])}, samples=3)
    assert result.shape == (2, 3, 1, 1)
    assert result[:, 0, 0, 0].tolist() == [0.25, -0.5]


def test_hold_still_asks_for_no_increment_where_actions_are_increments() -> None:
    spec = make_spec("lift", {})
    result = HoldStill(spec).sample({"state": torch.full((2, 1, 9), 0.7)}, samples=3)
    assert torch.equal(result, torch.zeros(2, 3, 1, 7))


def test_uniform_random_fills_its_bounds_and_repeats_by_seed() -> None:
    policy = UniformRandom(LINE)
    state = {"state": torch.zeros(1000, 1, 1)}
    a, b = (policy.sample(state, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.min() < -0.98
    assert a.max() > 0.98
    assert a.abs().max() <= 1


def test_baselines_refuse_tasks_they_do_not_fit() -> None:
    unbounded = Spec(observation={"other": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10)
    with pytest.raises(ConfigError, match="bounds"):
        UniformRandom(unbounded)
    with pytest.raises(ConfigError, match="state"):
        HoldStill(unbounded)


def test_an_evaluation_of_many_episodes_has_a_narrow_interval() -> None:
    rates = [Evaluation(**_arrays(n)).success_rate for n in (50, 500)]
    assert rates[1].high - rates[1].low < 0.5 * (rates[0].high - rates[0].low)


def _arrays(n: int) -> dict:
    half = np.arange(n) % 2
    return {
        "task": "t",
        "policy": "p",
        "seeds": np.arange(n),
        "success": half.astype(bool),
        "reward": half * 1.0,
        "coverage": half * 1.0,
        "length": half,
        "solved_at": half,
        "latency_ms": np.ones(3),
        "seconds": 1.0,
    }
