"""Runners on policies whose actions say where they come from."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.execution import RecedingHorizon, TemporalEnsemble
from sensorimotor.policies.policy import Policy


class Labelled(Policy):
    """Action i of the n-th call is [call n, index i, latest observation]; keeps the observations it was given."""

    def __init__(
        self, *, observation_steps: int = 1, horizon: int = 6, execute: int = 3, start: int = 0
    ) -> None:
        super().__init__(
            Spec(
                observation={"state": Field(shape=(1,))},
                action=Field(shape=(3,)),
                control_hz=10,
                observation_steps=observation_steps,
                horizon=horizon,
                execute=execute,
                start=start,
            )
        )
        self.seen: list[Tensor] = []
        self.drawn: list[float] = []

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        batch = self.check_observation(observation)
        self.seen.append(observation["state"].clone())
        self.drawn.append(torch.rand((), generator=generator).item())
        chunk = torch.zeros(batch, samples, self.spec.horizon, 3)
        chunk[..., 0] = len(self.seen)
        chunk[..., 1] = torch.arange(self.spec.horizon)
        chunk[..., 2] = observation["state"][:, -1, 0].view(-1, 1, 1)
        return chunk


def receding(policy: Policy, **options: Any) -> RecedingHorizon:
    return RecedingHorizon(policy, generator=torch.Generator().manual_seed(0), **options)


def observe(*values: float) -> dict[str, Tensor]:
    return {"state": torch.tensor(values).view(-1, 1)}


@pytest.mark.parametrize(
    ("observation_steps", "horizon", "execute", "start"),
    [(1, 6, 3, 0), (2, 16, 8, -1), (2, 16, 8, 0), (3, 10, 8, -2), (1, 1, 1, 0)],
)
def test_the_executed_slice_starts_at_now(
    observation_steps: int, horizon: int, execute: int, start: int
) -> None:
    policy = Labelled(observation_steps=observation_steps, horizon=horizon, execute=execute, start=start)
    runner = receding(policy)
    actions = torch.stack([runner.act(observe(t))[0] for t in range(3 * execute)])
    assert actions[:, 0].tolist() == [1 + t // execute for t in range(3 * execute)]
    assert actions[:, 1].tolist() == [-start + t % execute for t in range(3 * execute)]
    assert len(policy.seen) == 3


def test_histories_start_with_the_first_observation_repeated_and_end_with_the_latest() -> None:
    policy = Labelled(observation_steps=3, execute=1)
    runner = receding(policy)
    for t in range(1, 5):
        runner.act(observe(t, 10 * t))
    expected = [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert [seen[0, :, 0].tolist() for seen in policy.seen] == expected
    assert [seen[1, :, 0].tolist() for seen in policy.seen] == [[10 * v for v in row] for row in expected]


def test_worlds_that_were_reset_plan_anew_and_the_others_go_on() -> None:
    policy = Labelled(observation_steps=2, execute=3)
    runner = receding(policy)
    runner.act(observe(0, 1))
    runner.act(observe(2, 3))
    runner.reset(torch.tensor([1]))
    action = runner.act(observe(4, 5))
    assert action[:, :2].tolist() == [[1, 2], [2, 0]]
    assert policy.seen[1].tolist() == [[[5], [5]]]  # the past of world 1 is gone, world 0 was not asked
    action = runner.act(observe(6, 7))
    assert action[:, :2].tolist() == [[3, 0], [2, 1]]
    assert policy.seen[2].tolist() == [[[4], [6]]]


@pytest.mark.parametrize("worlds", [torch.tensor([False, True]), torch.tensor([1])])
def test_worlds_are_named_by_index_or_by_mask(worlds: Tensor) -> None:
    runner = receding(Labelled())
    runner.act(observe(0, 1))
    runner.reset(worlds)
    assert runner.act(observe(2, 3))[:, 0].tolist() == [1, 2]


def test_a_full_reset_forgets_everything_also_how_many_worlds_there_were() -> None:
    policy = Labelled(observation_steps=2)
    runner = receding(policy)
    runner.act(observe(0, 1))
    with pytest.raises(SpecError, match="has 3 worlds, the steps before had 2"):
        runner.act(observe(0, 1, 2))
    runner.reset()
    assert runner.act(observe(5, 6, 7)).shape == (3, 3)
    assert policy.seen[-1][:, :, 0].tolist() == [[5, 5], [6, 6], [7, 7]]


def test_a_world_behaves_as_if_it_were_alone() -> None:
    values = torch.arange(20.0).view(10, 2)
    together, alone = receding(Labelled(execute=2)), receding(Labelled(execute=2))
    for row in values:
        pair, one = together.act(observe(*row.tolist())), alone.act(observe(float(row[1])))
        assert torch.equal(pair[1:], one)


def test_a_plan_that_failed_is_made_again_before_anything_moves() -> None:
    class Unreliable(Labelled):
        broken = False

        def sample(self, *args: Any, **options: Any) -> Tensor:
            if self.broken:
                raise RuntimeError("no camera")
            return super().sample(*args, **options)

    policy = Unreliable()
    runner = receding(policy)
    for first in (True, False):
        runner.reset(None if first else torch.tensor([0]))
        policy.broken = True
        with pytest.raises(RuntimeError, match="no camera"):
            runner.act(observe(1))
        policy.broken = False
        assert runner.act(observe(2))[0].tolist() == [len(policy.seen), 0, 2]


def test_planning_is_timed_by_the_given_clock_and_only_planning() -> None:
    ticks = iter(range(100))
    runner = receding(Labelled(execute=2), clock=lambda: float(next(ticks) ** 2))
    for t in range(4):
        runner.act(observe(t))
    assert list(runner.latencies) == [1.0, 9.0 - 4.0]


def test_all_candidates_are_kept_and_the_first_is_executed() -> None:
    runner = receding(Labelled(), samples=4)
    action = runner.act(observe(1, 2))
    assert runner.candidates is not None
    assert runner.candidates.shape == (2, 4, 6, 3)
    assert torch.equal(action, runner.candidates[:, 0, 0])


@pytest.mark.parametrize("kind", [RecedingHorizon, TemporalEnsemble])
def test_randomness_comes_from_the_given_generator(kind: Callable) -> None:
    policies = [Labelled(execute=1), Labelled(execute=1)]
    for policy in policies:
        runner = kind(policy, generator=torch.Generator().manual_seed(7))
        for t in range(3):
            runner.act(observe(t))
    assert policies[0].drawn == policies[1].drawn
    assert len(set(policies[0].drawn)) == 3


def test_observations_that_lack_a_key_are_refused_and_others_are_ignored() -> None:
    runner = receding(Labelled())
    with pytest.raises(SpecError, match="'state' is missing"):
        runner.act({"other": torch.zeros(1, 1)})
    assert runner.act(observe(1) | {"other": torch.zeros(9)}).shape == (1, 3)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="samples must be at least 1, got 0"):
        receding(Labelled(), samples=0)
    with pytest.raises(ConfigError, match="decay must be finite"):
        TemporalEnsemble(Labelled(), generator=torch.Generator(), decay=float("nan"))


def ensemble(policy: Policy, decay: float) -> TemporalEnsemble:
    return TemporalEnsemble(policy, generator=torch.Generator().manual_seed(0), decay=decay)


def test_the_ensemble_of_three_plans_is_the_weighted_mean_by_hand() -> None:
    # At the third step: call 1 says [1, 2], call 2 says [2, 1], call 3 says [3, 0]; weights 1, 1/2, 1/4, oldest first.
    runner = ensemble(Labelled(horizon=6), decay=float(torch.log(torch.tensor(2.0))))
    for t in range(2):
        runner.act(observe(t))
    action = runner.act(observe(2))[0]
    total = 1 + 0.5 + 0.25
    assert action[0].item() == pytest.approx((1 * 1 + 2 * 0.5 + 3 * 0.25) / total)
    assert action[1].item() == pytest.approx((2 * 1 + 1 * 0.5 + 0 * 0.25) / total)


@pytest.mark.parametrize("start", [0, -1])
def test_plans_that_no_longer_cover_now_have_no_say(start: int) -> None:
    policy = Labelled(observation_steps=2, horizon=3, execute=1, start=start)
    runner, reach = ensemble(policy, decay=0.0), 3 + start
    actions = torch.stack([runner.act(observe(t))[0] for t in range(6)])
    for t in range(6):
        covering = range(max(0, t + 1 - reach), t + 1)
        assert actions[t, 0].item() == pytest.approx(sum(c + 1 for c in covering) / len(covering))
        assert actions[t, 1].item() == pytest.approx(sum(t - c - start for c in covering) / len(covering))


def test_a_strong_decay_follows_the_oldest_plan_and_a_strong_growth_the_newest() -> None:
    old, new = ensemble(Labelled(horizon=3), 50.0), ensemble(Labelled(horizon=3), -50.0)
    for t in range(5):
        oldest, newest = old.act(observe(t))[0], new.act(observe(t))[0]
    assert oldest[:2].tolist() == pytest.approx([3, 2])
    assert newest[:2].tolist() == pytest.approx([5, 0])


def test_a_world_that_was_reset_leaves_its_old_plans_behind() -> None:
    runner = ensemble(Labelled(horizon=4), decay=0.0)
    for t in range(3):
        runner.act(observe(t, t))
    runner.reset(torch.tensor([0]))
    action = runner.act(observe(9, 9))
    assert action[0, :2].tolist() == [4, 0]
    assert action[1, 0].item() == pytest.approx((1 + 2 + 3 + 4) / 4)


def test_an_ensemble_of_a_steady_policy_is_that_policy() -> None:
    class Steady(Labelled):
        def sample(self, observation: Any, **options: Any) -> Tensor:
            return torch.full((len(observation["state"]), 1, self.spec.horizon, 3), 0.25)

    runner = ensemble(Steady(), decay=0.3)
    for t in range(8):
        torch.testing.assert_close(runner.act(observe(t, t)), torch.full((2, 3), 0.25))


class Told(Policy):
    """Answers with the length of what each world is told."""

    def __init__(self) -> None:
        spec = Spec(
            observation={"state": Field(shape=(1,)), "instruction": Field(shape=(), dtype="str")},
            action=Field(shape=(1,)),
            control_hz=10,
            observation_steps=2,
            horizon=2,
            execute=2,
        )
        super().__init__(spec)

    def sample(self, observation: Any, **_: Any) -> Tensor:
        rows = self.check_observation(observation)
        lengths = torch.tensor([float(len(text)) for text in observation["instruction"]])
        return lengths.view(rows, 1, 1, 1).expand(rows, 1, 2, 1)


def test_instructions_reach_the_worlds_that_plan_and_may_change_on_the_way() -> None:
    runner = RecedingHorizon(Told(), generator=torch.Generator())
    state = torch.zeros(3, 1)
    assert runner.act({"state": state, "instruction": ["a", "bb", "ccc"]}).flatten().tolist() == [1, 2, 3]
    runner.reset(torch.tensor([1]))
    now = {"state": state, "instruction": ["aaaa", "bbbbb", "cccccc"]}
    assert runner.act(now).flatten().tolist() == [1, 5, 3]  # only the world that begins plans anew
    assert runner.act(now).flatten().tolist() == [4, 5, 6]
