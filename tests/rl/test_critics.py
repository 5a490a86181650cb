"""What every critic that learns offline keeps to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError, SpecError
from sensorimotor.data.normalizer import Normalizer, NormalizerConfig
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.resnet import ResNetConfig
from sensorimotor.policies.vision import VisionConfig
from sensorimotor.policies.vla.text import WordsConfig
from sensorimotor.rl.cal_ql import CalQLConfig
from sensorimotor.rl.factory import (
    CriticConfig,
    build_critic,
    describe_critic,
    load_critic,
    make_critic,
    make_transitions,
)
from sensorimotor.rl.iql import IQLConfig
from sensorimotor.rl.offline import EDGE, OfflineCritic
from sensorimotor.rl.presets import CRITICS
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.held_out import held_out_loss
from sensorimotor.training.loop import train
from sensorimotor.training.metrics import read_metrics
from sensorimotor.training.progress import NoProgress
from sensorimotor.training.workers import Workers

SMALL: dict[str, Any] = {"hidden": (16, 16), "octaves": 1}
KINDS = [CalQLConfig(**SMALL), IQLConfig(**SMALL)]
TOLD: dict[str, Any] = {
    "chunk": ChunkConfig(observation=("state", "instruction"), observation_steps=1, horizon=1, execute=1)
}
WORDS = WordsConfig(words=("left", "right"))


def seen(episodes: Episodes, critic: OfflineCritic, rows: int = 3) -> dict[str, Any]:
    return make_transitions(critic, episodes).batch(np.arange(rows)).observation


def candidates(critic: OfflineCritic, rows: int, count: int) -> torch.Tensor:
    shape = (rows, count, critic.spec.horizon, critic.spec.action_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=["numbers", "points", "chunk", "words", "camera"])
def critic_and_data(
    request: pytest.FixtureRequest, make_episodes: Callable
) -> tuple[OfflineCritic, Episodes]:
    """Critics of every kind of observation."""
    episodes = make_episodes(told=request.param == "words", side=16 if request.param == "camera" else 0)
    changes: dict[str, Any] = {
        "numbers": {},
        "points": {"relative": "state", "points": ("environment",)},
        "chunk": {"chunk": ChunkConfig(observation_steps=2, horizon=4, execute=4), "relative": "state"},
        "words": {**TOLD, "text": WORDS, "negatives": 0.5},
        "camera": {
            "chunk": ChunkConfig(
                observation=("state", "image.top"), observation_steps=1, horizon=1, execute=1
            ),
            "vision": VisionConfig(encoder=ResNetConfig(width=8, blocks=(1,)), features=4),
        },
    }
    config = replace(KINDS[request.param in ("points", "camera")], **changes[request.param])
    return make_critic(config, episodes), episodes


def test_many_candidates_are_valued_as_one_by_one(critic_and_data: tuple[OfflineCritic, Episodes]) -> None:
    critic, episodes = critic_and_data
    observation, actions = seen(episodes, critic), candidates(critic, 3, 7)
    together = critic.value(observation, actions)
    assert together.shape == (3, 7)
    alone = torch.cat([critic.value(observation, actions[:, i : i + 1]) for i in range(7)], dim=1)
    torch.testing.assert_close(together, alone)


def test_values_keep_full_precision_beside_a_policy_in_bfloat16(
    critic_and_data: tuple[OfflineCritic, Episodes],
) -> None:
    critic, episodes = critic_and_data
    observation, actions = seen(episodes, critic), candidates(critic, 3, 7)
    with torch.autocast("cpu", torch.bfloat16):
        within = critic.value(observation, actions)
    assert torch.equal(within, critic.value(observation, actions))


def test_values_can_be_followed_to_better_actions(critic_and_data: tuple[OfflineCritic, Episodes]) -> None:
    critic, episodes = critic_and_data
    source = make_transitions(critic, episodes)
    batch = source.batch(np.arange(3))
    middle = 0.9 * batch.action[:, None] + 0.1 * torch.from_numpy(episodes.action.mean(axis=0))
    actions = middle.requires_grad_()
    value = critic.value(batch.observation, actions)
    (slope,) = torch.autograd.grad(value.sum(), actions)
    assert slope.abs().sum() > 0
    better = critic.value(batch.observation, actions + 1e-3 * slope / slope.norm())
    assert better.sum() > value.sum()


def test_a_checkpoint_gives_the_same_values_and_proposals(
    critic_and_data: tuple[OfflineCritic, Episodes], tmp_path: Path
) -> None:
    critic, episodes = critic_and_data
    save_checkpoint(
        tmp_path / "critic",
        lambda where: describe_critic(critic, where),
        lambda where: save_weights(critic, where / MODEL),
    )
    again = load_critic(tmp_path / "critic")
    assert (again.config, again.spec) == (critic.config, critic.spec)
    observation, actions = seen(episodes, critic), candidates(critic, 3, 2)
    assert torch.equal(again.value(observation, actions), critic.value(observation, actions))
    draws = [
        c.propose(observation, samples=2, generator=torch.Generator().manual_seed(1)) for c in (again, critic)
    ]
    assert torch.equal(*draws)
    assert draws[0].shape == (3, 2, critic.spec.horizon, 2)


def test_every_critic_learns_from_its_loss(critic_and_data: tuple[OfflineCritic, Episodes]) -> None:
    critic, episodes = critic_and_data
    batch = make_transitions(critic, episodes).batch(np.arange(16))
    critic(batch, torch.Generator().manual_seed(0)).backward()
    trained = {name for name, p in critic.named_parameters() if p.requires_grad}
    assert {name for name, p in critic.named_parameters() if p.grad is not None} == trained
    assert not any(name.startswith("target.") for name in trained)


def test_held_out_data_judges_values_by_returns(critic_and_data: tuple[OfflineCritic, Episodes]) -> None:
    critic, episodes = critic_and_data
    source = make_transitions(critic, episodes)
    batch = source.batch(np.arange(len(source)))
    values = critic.value(batch.observation, batch.action[:, None])[:, 0]
    found = held_out_loss(critic, source, Workers(torch.device("cpu")), limit=10_000, size=10_000, seed=0)
    assert found == pytest.approx((values - batch.returns).square().mean().item(), rel=1e-5)


def published_limits(q: Callable[[torch.Tensor], torch.Tensor]) -> OfflineCritic:
    """A critic with the range +-0.05 whose networks are replaced by a function of normalised actions."""
    spec = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(1,)), control_hz=10)
    zero, one = torch.zeros(1), torch.ones(1)
    critic = build_critic(
        CalQLConfig(hidden=(4,)), spec, Normalizer({"state": (zero, one), "action": (zero, 0.05 * one)})
    )

    class Known(torch.nn.Module):
        def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return q(action[..., 0])

    critic.target.heads = Known()  # pyright: ignore[reportAttributeAccessIssue]
    return critic


def test_actions_are_scaled_by_the_critics_own_range_and_clipped() -> None:
    critic = published_limits(lambda c: torch.stack([-(c + 0.2).square()] * 2))
    policy_numbers = torch.tensor([-3.0, -1, 0, 0.5, 2.5])
    actions = (0.01 + 0.02 * policy_numbers).view(1, 5, 1, 1)
    observation = {"state": torch.zeros(1, 1, 1)}
    wanted = torch.tensor([[-0.99999, -0.2, 0.2, 0.4, 0.99999]])
    torch.testing.assert_close(
        critic.normalize_action(actions, observation)[..., 0], wanted, atol=1e-6, rtol=0
    )
    assert critic.value(observation, actions).argmax() == 1
    assert critic.value(observation, policy_numbers.view(1, 5, 1, 1)).argmax() != 1


def test_the_least_critic_counts() -> None:
    values = torch.tensor([[[1.0, 5, 2]], [[4.0, 0, 3]]])
    critic = published_limits(lambda c: values)
    chosen = critic.value({"state": torch.zeros(1, 1, 1)}, torch.zeros(1, 3, 1, 1))
    assert chosen.tolist() == [[1, 0, 2]]


def test_targets_follow_once_per_update(make_episodes: Callable) -> None:
    critic = make_critic(IQLConfig(target_rate=0.25, **SMALL), make_episodes())
    slow, fast = critic.target.heads.from_action, critic.online.heads.from_action
    before = slow.clone()
    assert torch.equal(before, fast)
    with torch.no_grad():
        for _, followed in critic.followers():
            for p in followed.parameters():
                p.add_(1.0)
    critic.after_update()
    torch.testing.assert_close(slow, before + 0.25)
    first, last = (next(module.parameters()) for module in critic.followers()[1])
    torch.testing.assert_close(last - first, torch.full_like(last, 0.75))


def test_other_instructions_are_failures_as_often_as_asked(make_episodes: Callable) -> None:
    episodes = make_episodes(told=True, steps=(200, 200))
    config = CalQLConfig(**SMALL, **TOLD, text=WORDS, negatives=0.25)
    critic = make_critic(config, episodes)
    batch = make_transitions(critic, episodes).batch(np.arange(400))
    told = critic.told(batch, torch.Generator().manual_seed(0))
    wrong = np.array(told.observation["instruction"]) != np.array(batch.observation["instruction"])
    assert 0.18 < wrong.mean() < 0.32
    assert np.array_equal(told.returns.numpy() == np.float32(-50), wrong)
    alone = make_transitions(critic, episodes).batch(np.arange(20))
    assert critic.told(alone, torch.Generator().manual_seed(0)) is alone  # one instruction: there is no other


def test_words_make_a_difference(make_episodes: Callable) -> None:
    episodes = make_episodes(told=True)
    critic = make_critic(IQLConfig(**SMALL, **TOLD, text=WORDS), episodes)
    actions, state = candidates(critic, 1, 3), torch.zeros(1, 1, 2)
    left, right = (
        critic.value({"state": state, "instruction": [text]}, actions)
        for text in ("to the left", "to the right")
    )
    assert not torch.equal(left, right)


def training(**changes: Any) -> TrainingConfig:
    values = {
        **CRITICS["cal_ql"].training,
        "steps": 12,
        "batch_size": 8,
        "log_every": 4,
        "evaluate_every": 6,
        "checkpoint_every": 5,
        "device": "cpu",
        "tensorboard": False,
    }
    return TrainingConfig(**(values | changes))


def trained(config: CriticConfig, episodes: Episodes, folder: Path, **options: Any) -> OfflineCritic:
    critic = make_critic(config, episodes)
    source = make_transitions(critic, episodes)
    train(critic, source, training(), folder, held_out=source, progress=NoProgress(), **options)
    return critic


@pytest.mark.parametrize("config", KINDS)
def test_a_resumed_run_is_the_uninterrupted_one(
    config: CriticConfig, make_episodes: Callable, tmp_path: Path
) -> None:
    episodes = make_episodes()
    whole = trained(config, episodes, tmp_path / "whole")
    calls = iter(range(1, 100))
    trained(config, episodes, tmp_path / "parts", stop=lambda: next(calls) >= 7)
    parts = trained(config, episodes, tmp_path / "parts", resume=True)
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    timed = {"seconds", "updates_per_second"}
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_metrics(tmp_path / run)]
        for run in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    assert any(not torch.equal(p, q) for p, q in zip(whole.online.parameters(), whole.target.parameters()))  # noqa: B905


def test_rows_of_metrics_say_how_the_critic_is(make_episodes: Callable, tmp_path: Path) -> None:
    trained(KINDS[0], make_episodes(), tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert len(rows) == 3
    wanted = {"q_data", "td_target", "mc_return", "q_return_correlation", "bound_rate", "conservative_gap"}
    assert all(wanted <= set(row) for row in rows)
    assert all(0 <= row["bound_rate"] <= 1 and -1 <= row["q_return_correlation"] <= 1 for row in rows)
    assert rows[0]["mc_return"] < 0


def test_evaluation_leaves_health_and_targets_alone(make_episodes: Callable) -> None:
    episodes = make_episodes()
    critic = make_critic(KINDS[0], episodes)
    batch = make_transitions(critic, episodes).batch(np.arange(8))
    critic.eval()(batch, torch.Generator().manual_seed(0))
    assert critic.health() == {}


def test_the_same_seed_makes_the_same_critic(make_episodes: Callable) -> None:
    episodes = make_episodes()
    before = torch.random.get_rng_state()
    first, second, other = (make_critic(KINDS[1], episodes, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.online.heads.from_action, other.online.heads.from_action)


def test_policies_and_critics_are_told_apart(make_episodes: Callable, tmp_path: Path) -> None:
    episodes = make_episodes()
    policy = make_policy(FlowConfig(trunk=MLPConfig(width=8, depth=1)), episodes)
    save_checkpoint(
        tmp_path / "policy", lambda f: describe(policy, f), lambda f: save_weights(policy, f / MODEL)
    )
    critic = make_critic(KINDS[0], episodes)
    save_checkpoint(
        tmp_path / "critic", lambda f: describe_critic(critic, f), lambda f: save_weights(critic, f / MODEL)
    )
    with pytest.raises(CheckpointError, match=r"holds a critic.*sensorimotor\.load_critic"):
        load(tmp_path / "critic")
    with pytest.raises(
        CheckpointError, match=r"holds a policy, FlowConfig, and no critic.*sensorimotor\.load"
    ):
        load_critic(tmp_path / "policy")


def test_what_does_not_fit_is_refused(make_episodes: Callable) -> None:
    episodes = make_episodes()
    critic = make_critic(KINDS[0], episodes)
    observation = seen(episodes, critic)
    with pytest.raises(
        SpecError, match=r"actions have shape \(3, 2, 2, 2\); allowed is \(3, candidates, 1, 2\)"
    ):
        critic.value(observation, torch.zeros(3, 2, 2, 2))
    with pytest.raises(SpecError, match=r"'state' is missing; the critic needs \['state', 'environment'\]"):
        critic.value({}, torch.zeros(3, 2, 1, 2))
    with pytest.raises(SpecError, match=r"relative 'hand' must be an observation"):
        make_critic(replace(KINDS[0], relative="hand"), episodes)
    with pytest.raises(ConfigError, match=r"negatives 0\.1 need an instruction"):
        make_critic(replace(KINDS[0], negatives=0.1), episodes)
    words_only = ChunkConfig(observation=("instruction",), observation_steps=1, horizon=1, execute=1)
    with pytest.raises(SpecError, match="needs numbers or images beside the text 'instruction'"):
        make_critic(replace(KINDS[0], chunk=words_only), make_episodes(told=True))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"normalizer": NormalizerConfig(action="mean_std")}, "must be min_max or quantile, got 'mean_std'"),
        ({"chunk": ChunkConfig(observation_steps=2, start=-1)}, r"chunk\.start must be 0, got -1"),
        ({"hidden": ()}, r"hidden must name one or more positive widths, got \(\)"),
        ({"critics": 0}, "critics must be at least 1, got 0"),
        ({"target_rate": 0.0}, r"target_rate must lie in \(0, 1\], got 0"),
        ({"actor_rate": 0.0}, "actor_rate must be positive and finite, got 0"),
        ({"negatives": 1.0}, r"negatives must lie in \[0, 1\), got 1"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        CalQLConfig(**changes)


def test_failures_need_labels_that_know_them() -> None:
    labels = replace(CalQLConfig().labels, source="rewards")
    with pytest.raises(ConfigError, match=r"which labels\.source=rewards does not know"):
        CalQLConfig(labels=labels, negatives=0.1)


def test_actions_beyond_the_edge_count_as_the_edge(make_episodes: Callable) -> None:
    critic = make_critic(KINDS[0], make_episodes())
    far = critic.normalize_action(torch.full((1, 1, 1, 2), 1e3), {})
    assert torch.equal(far, torch.full((1, 1, 2), EDGE))


@pytest.mark.parametrize("name", CRITICS)
def test_every_preset_values_actions(name: str, make_episodes: Callable) -> None:
    episodes = make_episodes(told=True)
    critic = make_critic(CRITICS[name].critic, episodes)
    values = critic.value(seen(episodes, critic), candidates(critic, 3, 2))
    assert values.shape == (3, 2)
    assert values.isfinite().all()
