"""V-GPS: the law of the choice, order statistics, units, and what happens when a critic fails."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.fault import MemberError
from sensorimotor.composition.reranked import pick, rerank
from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.asynchronous import Asynchronous
from sensorimotor.policies.delivery import SimulatedDelay
from sensorimotor.policies.execution import RecedingHorizon
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.scheduling import NaiveAsync, RealTimeChunking
from sensorimotor.rl.critic import Critic


def spec_of(width: int = 1, *, horizon: int = 1, key: str = "state", start: int = 0, steps: int = 1) -> Spec:
    return Spec(
        observation={key: Field(shape=(1,))},
        action=Field(shape=(width,)),
        control_hz=10,
        horizon=horizon,
        observation_steps=steps,
        start=start,
    )


class Fixed(Policy):
    """Candidates that are known beforehand."""

    def __init__(self, candidates: Tensor, spec: Spec) -> None:
        super().__init__(spec)
        self.candidates = candidates

    def sample(
        self, observation: Any, *, samples: int = 1, generator: Any = None, prefix: Any = None
    ) -> Tensor:
        rows = len(next(iter(observation.values())))
        return self.candidates[:samples].expand(rows, -1, -1, -1)


class Normal(Policy):
    """Actions that are exactly N(0, 1)."""

    def __init__(self) -> None:
        super().__init__(spec_of())

    def sample(
        self, observation: Any, *, samples: int = 1, generator: Any = None, prefix: Any = None
    ) -> Tensor:
        return torch.randn(len(observation["state"]), samples, 1, 1, generator=generator)


class Value(Critic):
    """Any function of the scored actions (B, K, n, A)."""

    def __init__(self, function: Callable[[Tensor], Tensor], spec: Spec | None = None) -> None:
        super().__init__(spec or spec_of())
        self.function, self.seen = function, []

    def value(self, observation: Mapping[str, Any], actions: Tensor) -> Tensor:
        self.seen.append((dict(observation), actions))
        return self.function(actions)


def first_number(actions: Tensor) -> Tensor:
    return actions[:, :, 0, 0]


def fixed(numbers: list[float]) -> Fixed:
    return Fixed(torch.tensor(numbers).view(-1, 1, 1), spec_of())


SEEN = {"state": torch.zeros(1, 1, 1)}


def many(rows: int) -> dict[str, Tensor]:
    return {"state": torch.zeros(rows, 1, 1)}


@pytest.mark.parametrize(
    ("beta", "law"),
    [
        (1.0, (0.121952, 0.331499, 0.546549)),
        (0.1, (3.04e-7, 0.006693, 0.993307)),
        (10.0, (0.306091, 0.338283, 0.355627)),
    ],
)
def test_candidates_are_chosen_by_the_softmax_of_their_values(beta: float, law: tuple[float, ...]) -> None:
    q, count = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64), 200_000
    assert torch.softmax(q / beta, 0).tolist() == pytest.approx(law, rel=1e-2)
    generator = torch.Generator().manual_seed(0)
    for values in (q, q + 7.0):  # a constant changes nothing
        chosen = pick(values.expand(count, 3), beta, generator)
        share = torch.bincount(chosen, minlength=3) / count
        assert share.tolist() == pytest.approx(law, abs=5 * 0.5 / count**0.5)


def test_scaling_values_and_temperature_together_changes_nothing() -> None:
    values = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = [pick(c * values, c * 0.4, torch.Generator().manual_seed(1)) for c in (1.0, 8.0)]
    assert torch.equal(*chosen)


def test_very_hot_choices_are_even() -> None:
    values = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64).expand(60_000, 3)
    share = torch.bincount(pick(values, 1e9, torch.Generator().manual_seed(0))) / 60_000
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_the_best_wins_and_of_equals_the_first() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-torch.inf, -1.0, -torch.inf]])
    assert pick(values, 0.0, torch.Generator()).tolist() == [1, 0, 1]
    assert set(pick(values[2:].expand(500, 3), 5.0, torch.Generator()).tolist()) == {1}


def test_the_least_of_several_critics_counts() -> None:
    heads = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]])
    policy = fixed([0.0, 1.0, 2.0])
    chosen = {
        name: rerank(policy, Value(lambda a, h=h: h[None]), samples=3).sample(SEEN).item()
        for name, h in (("least", heads.amin(0)), ("mean", heads.mean(0)), ("most", heads.amax(0)))
    }
    assert chosen["least"] == 2.0
    assert chosen["most"] == 1.0  # what a single optimistic critic would do


@pytest.mark.parametrize(
    ("samples", "beta", "mean"),
    [(2, 0.0, 0.564190), (10, 0.0, 1.538753), (50, 0.0, 2.249074), (10, 1.0, 0.8053), (50, 1.0, 0.9513)],
)
def test_order_statistics_of_a_normal_policy(samples: int, beta: float, mean: float) -> None:
    rows = 20_000
    policy = rerank(Normal(), Value(first_number), samples=samples, temperature=beta)
    drawn = policy.sample(many(rows), generator=torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(mean, abs=5 / rows**0.5)


@pytest.mark.parametrize(("noise", "mean"), [(1.0, 1.0881), (2.0, 0.6882)])
def test_a_noisy_critic_gains_less(noise: float, mean: float) -> None:
    generator = torch.Generator().manual_seed(1)

    def noisy(actions: Tensor) -> Tensor:
        exact = first_number(actions)
        return exact + noise * torch.randn(exact.shape, generator=generator)

    drawn = rerank(Normal(), Value(noisy), samples=10).sample(many(20_000))
    assert drawn.mean().item() == pytest.approx(mean, abs=5 / 20_000**0.5)


def test_critics_see_physical_units_and_scale_them_themselves() -> None:
    z = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.5])

    def within_the_critics_range(actions: Tensor) -> Tensor:
        c = (2 * (first_number(actions) + 0.05) / 0.1 - 1).clamp(-1 + 1e-5, 1 - 1e-5)
        return -((c + 0.2) ** 2)

    physical = fixed((z * 0.02 + 0.01).tolist())
    critic = Value(within_the_critics_range)
    assert rerank(physical, critic, samples=5).sample(SEEN).item() == pytest.approx(-0.01)
    trap = -((z.clamp(-1 + 1e-5, 1 - 1e-5) + 0.2) ** 2)
    assert trap.argmax().item() == 2  # what normalised numbers of the policy would have chosen


def test_one_candidate_is_the_policys_own_and_asks_nobody(gaussian: Callable) -> None:
    policy, critic = gaussian(-1.0, 0.25), Value(first_number)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    alone = policy.sample(many(4), generator=generators[0])
    through = rerank(policy, critic, samples=1, temperature=1.0).sample(many(4), generator=generators[1])
    assert torch.equal(alone, through)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert critic.seen == []


def test_every_call_draws_anew_and_a_seed_repeats(gaussian: Callable) -> None:
    policy = rerank(gaussian(0.0, 1.0), Value(lambda a: 0 * first_number(a)), samples=5, temperature=1.0)
    generator = torch.Generator().manual_seed(0)
    first, second = (policy.sample(SEEN, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, policy.sample(SEEN, generator=torch.Generator().manual_seed(0)))


def test_several_chunks_are_chosen_among_candidates_of_their_own() -> None:
    policy = rerank(Normal(), Value(first_number), samples=10)
    drawn = policy.sample(many(3000), samples=2)
    assert drawn.shape == (3000, 2, 1, 1)
    assert drawn.mean(dim=0).flatten().tolist() == pytest.approx([1.538753] * 2, abs=0.06)
    correlation = torch.corrcoef(drawn.view(-1, 2).T)[0, 1]
    assert abs(correlation.item()) < 0.1


def test_the_critic_scores_the_chunk_from_now_on(gaussian: Callable) -> None:
    policy = gaussian(torch.arange(4.0)[:, None], 0.0, horizon=4, start=-1, observation_steps=2)
    critic = Value(first_number, spec_of(horizon=2))
    rerank(policy, critic, samples=2).sample({"state": torch.tensor([[[5.0], [6.0]]])})
    observed, scored = critic.seen[0]
    torch.testing.assert_close(scored[0, 0, :, 0], torch.tensor([1.0, 2.0]), atol=1e-4, rtol=0)
    assert observed["state"].tolist() == [[[6.0]]]  # the latest, which is all that it reads


def test_a_critic_may_see_what_the_policy_does_not(gaussian: Callable) -> None:
    critic = Value(first_number, spec_of(key="force"))
    policy = rerank(gaussian(0.0, 1.0), critic, samples=2)
    assert set(policy.spec.observation) == {"state", "force"}
    policy.sample({"state": torch.zeros(1, 1, 1), "force": torch.ones(1, 1, 1)})
    assert list(critic.seen[0][0]) == ["force"]


def test_candidates_of_compositions_and_of_reranked_policies(pair: list[Any]) -> None:
    inner = rerank(compose(pair), Value(first_number), samples=4)
    outer = rerank(inner, Value(lambda a: -first_number(a)), samples=3)
    assert outer.sample(many(2), samples=2).shape == (2, 2, 1, 1)
    assert "the best of 3 candidates" in str(outer)
    assert "FlowPolicy" not in str(outer)
    assert str(outer).count("└─") == 3


def test_candidates_without_a_finite_value_are_never_chosen_and_counted() -> None:
    critic = Value(lambda a: torch.tensor([[torch.nan, 1.0, torch.inf]]))
    policy = rerank(fixed([10.0, 11.0, 12.0]), critic, samples=3, temperature=1.0)
    with pytest.warns(UserWarning, match="not finite"):
        assert policy.sample(SEEN).item() == 11.0
    assert policy.faults == {"candidate": 1}


def test_no_finite_value_at_all_is_refused_or_leaves_the_policy_alone() -> None:
    def lost(actions: Tensor) -> Tensor:
        return torch.tensor([[torch.nan] * 3, [0.0, 1.0, 2.0]])

    candidates = fixed([10.0, 11.0, 12.0])
    with pytest.raises(
        MemberError, match=r"Value\) gave no finite value to any of 3 candidates of observation 0"
    ):
        rerank(candidates, Value(lost), samples=3).sample(many(2))
    policy = rerank(candidates, Value(lost), samples=3, fallback="first")
    with pytest.warns(UserWarning, match="not finite"):
        assert policy.sample(many(2)).flatten().tolist() == [10.0, 12.0]


def test_a_group_of_candidates_without_a_value_is_refused_too() -> None:
    def lost(actions: Tensor) -> Tensor:
        return torch.tensor([[0.0, 1.0, torch.nan, torch.nan]])

    candidates = fixed([10.0, 11.0, 12.0, 13.0])
    with pytest.raises(MemberError, match="no finite value to any of 2 candidates of observation 0"):
        rerank(candidates, Value(lost), samples=2).sample(SEEN, samples=2)
    policy = rerank(candidates, Value(lost), samples=2, fallback="first")
    with pytest.warns(UserWarning, match="not finite"):
        assert policy.sample(SEEN, samples=2).flatten().tolist() == [11.0, 12.0]


def test_a_critic_that_raises_is_named_or_passed_over_and_counted() -> None:
    def broken(actions: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    candidates = fixed([10.0, 11.0])
    with pytest.raises(MemberError, match=r"'critic' \(Value\) failed to value candidates: out of memory"):
        rerank(candidates, Value(broken), samples=2).sample(SEEN)
    policy = rerank(candidates, Value(broken), samples=2, fallback="first", temperature=1.0)
    with pytest.warns(UserWarning, match="the critic failed"):
        assert [policy.sample(SEEN).item() for _ in range(3)] == [10.0] * 3
    assert policy.faults == {"critic": 3}


def test_values_of_another_shape_are_an_error() -> None:
    with pytest.raises(MemberError, match=r"values have shape \(1, 2, 1\); needed is \(1, 2\)"):
        rerank(fixed([0.0, 1.0]), Value(lambda a: a[:, :, 0]), samples=2).sample(SEEN)


def test_a_prefix_over_all_that_is_scored_is_said(gaussian: Callable) -> None:
    policy = rerank(gaussian(0.0, 1.0, horizon=3), Value(first_number), samples=4)
    prefix = torch.full((1, 1, 1), 0.3)
    with pytest.warns(UserWarning, match="its choice is blind"):
        drawn = policy.sample(SEEN, prefix=prefix)
    assert torch.equal(drawn[:, :, :1], prefix[:, None])
    assert policy.faults == {"prefix": 1}


@pytest.mark.parametrize(
    ("critic", "said"),
    [
        (spec_of(2), r"action shape differs: policy \(1,\), critic \(2,\)"),
        (spec_of(horizon=4), "the critic scores 4 actions from now on, and the policy's chunk holds 1"),
    ],
)
def test_a_critic_of_another_robot_is_refused(gaussian: Callable, critic: Spec, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rerank(gaussian(0.0, 1.0), Value(first_number, critic))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be at least 0 and finite, got -1.0"),
        ({"fallback": "firstt"}, "did you mean 'first'"),
    ],
)
def test_impossible_settings_are_refused(gaussian: Callable, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rerank(gaussian(0.0, 1.0), Value(first_number), **wrong)


def test_the_ledger_knows_both(gaussian: Callable) -> None:
    policy = rerank(gaussian(0.0, 1.0), Value(first_number), samples=10)
    policy.sample(many(3))
    assert [(row["member"], row["stage"], row["calls"], row["rows"]) for row in policy.ledger.rows()] == [
        ("policy", "sample", 1, 30),
        ("critic", "value", 1, 30),
    ]


def test_a_reranked_policy_is_run_like_any_other(gaussian: Callable) -> None:
    base = gaussian(0.0, 1.0, horizon=2)
    policy = rerank(base, Value(first_number), samples=8)
    runner = RecedingHorizon(policy, generator=torch.Generator().manual_seed(0), samples=3)
    better = [runner.act({"state": torch.zeros(40, 1)}).mean().item() for _ in range(4)]
    assert min(better) > 0.8  # the largest of 8 normal numbers is 1.42 on average
    late = Asynchronous(policy, NaiveAsync(), SimulatedDelay(1), generator=torch.Generator().manual_seed(0))
    assert late.act({"state": torch.zeros(4, 1)}).shape == (4, 1)


def test_guiding_candidates_in_real_time_is_refused_in_words(gaussian: Callable) -> None:
    policy = rerank(gaussian(0.0, 1.0, horizon=4), Value(first_number), samples=8)
    with pytest.raises(
        ConfigError, match="RealTimeChunking guides a generative policy; RerankedPolicy is none"
    ):
        Asynchronous(policy, RealTimeChunking(), SimulatedDelay(1), generator=torch.Generator())


def test_a_choice_among_repeated_chunks_changes_nothing() -> None:
    policy = fixed([7.0] * 5)
    reranked = rerank(policy, Value(first_number), samples=5, temperature=0.3)
    assert torch.equal(reranked.sample(many(20)), torch.full((20, 1, 1, 1), 7.0))
    assert "reranking cannot help: candidates differ by 0.0 %" in reranked.spread().verdict()


def test_constants_per_observation_change_no_choice(gaussian: Callable) -> None:
    base, shift = gaussian(0.0, 1.0), torch.arange(30.0)[:, None]
    plain, shifted = (
        rerank(base, Value(value), samples=6, temperature=0.5).sample(many(30))
        for value in (first_number, lambda a: first_number(a) + 64 * shift)
    )
    assert torch.equal(plain, shifted)


def test_the_law_of_large_numbers_of_candidates_is_a_tilted_policy() -> None:
    policy = rerank(Normal(), Value(first_number), samples=2000, temperature=1.0)
    drawn = policy.sample(many(1500)).flatten()
    assert drawn.mean().item() == pytest.approx(1.0, abs=0.1)  # pi exp(Q / beta) is N(1, 1)
    assert drawn.std().item() == pytest.approx(1.0, abs=0.1)
