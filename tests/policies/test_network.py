"""What one-network policies share: the space of their actions, their features, their loss."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.data.spec import Field
from sensorimotor.data.windows import Batch, Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.encoder import LowDimEncoder
from sensorimotor.policies.factory import make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.network import NetworkPolicy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.statistics import fit_normalizer

CHUNK = ChunkConfig(observation_steps=2, horizon=4, execute=2)
SMALL = MLPConfig(width=16, depth=1, step_width=8)
CONFIG = FlowConfig(chunk=CHUNK, trunk=SMALL)


def build(config: FlowConfig | RegressorConfig, episodes: Episodes) -> NetworkPolicy:
    policy = make_policy(config, episodes)
    assert isinstance(policy, NetworkPolicy)
    return policy


def windows(policy: NetworkPolicy, episodes: Episodes) -> Batch:
    return Windows(episodes, policy.spec).batch(np.arange(episodes.steps))


@pytest.mark.parametrize("relative", [None, "state"])
@pytest.mark.parametrize("kind", ["min_max", "mean_std", "quantile"])
def test_actions_survive_the_way_to_the_network_and_back(
    episodes: Episodes, relative: str | None, kind: str
) -> None:
    normalizer = NormalizerConfig(action=kind)  # pyright: ignore[reportArgumentType]
    policy = build(replace(CONFIG, relative=relative, normalizer=normalizer), episodes)
    batch = windows(policy, episodes)
    condition = policy.encode(batch.observation)
    for steps in (1, 3, 4):
        action = batch.action[:, :steps]
        x = policy.normalize_action(action, condition)
        torch.testing.assert_close(policy.unnormalize_action(x, condition), action, atol=1e-5, rtol=1e-5)


def test_relative_actions_are_offsets_from_the_latest_position(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, relative="state"), episodes)
    batch = windows(policy, episodes)
    here = {**batch.observation, "state": batch.observation["state"] + 10.0}
    x = policy.normalize_action(batch.action, policy.encode(batch.observation))
    moved = policy.normalize_action(batch.action + 10.0, policy.encode(here))
    torch.testing.assert_close(moved, x, atol=1e-4, rtol=1e-4)


def test_each_step_of_relative_chunks_is_scaled_by_its_own_statistics(make_episodes: Callable) -> None:
    episodes = make_episodes(steps=(40, 30))
    policy = build(replace(CONFIG, relative="state"), episodes)
    batch = windows(policy, episodes)
    x = policy.normalize_action(batch.action, policy.encode(batch.observation))
    assert policy.normalizer.affine("action")[0].shape == (4, 2)
    torch.testing.assert_close(x.amax(dim=0), torch.ones(4, 2))
    torch.testing.assert_close(x.amin(dim=0), -torch.ones(4, 2))


def test_statistics_know_only_what_the_policy_reads(episodes: Episodes) -> None:
    spec = episodes.spec.keep(("state",)).chunked(observation_steps=2, horizon=4, execute=2)
    for relative in (None, "state"):
        assert fit_normalizer(episodes, spec, NormalizerConfig(), relative=relative).keys == (
            "action",
            "state",
        )


@pytest.mark.parametrize("key", ["missing", "environment"])
def test_actions_cannot_be_relative_to_what_is_no_position(make_episodes: Callable, key: str) -> None:
    episodes = make_episodes(widths={"state": 2, "environment": 1})
    with pytest.raises(SpecError, match=f"relative '{key}' must be an observation of at least 2 numbers"):
        make_policy(replace(CONFIG, relative=key), episodes)


def test_actions_cannot_be_relative_to_what_is_not_read() -> None:
    chunk = replace(CHUNK, observation=("environment",))
    with pytest.raises(ConfigError, match=r"relative 'state' must be one of .*environment"):
        FlowConfig(chunk=chunk, relative="state")


def test_features_lie_side_by_side_in_the_order_of_the_spec(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    batch = windows(policy, episodes)
    features = policy.encode(batch.observation).values
    assert features.shape == (episodes.steps, 2, 5)
    for key, columns in (("state", slice(0, 2)), ("environment", slice(2, 5))):
        torch.testing.assert_close(
            features[..., columns], policy.normalizer.normalize(key, batch.observation[key])
        )


def test_octaves_add_sines_and_cosines_at_doubling_frequencies(episodes: Episodes) -> None:
    plain, fine = build(CONFIG, episodes), build(replace(CONFIG, octaves=3), episodes)
    batch = windows(plain, episodes)
    z = plain.encode(batch.observation).values
    features = fine.encode(batch.observation).values
    assert features.shape[-1] == 5 * (1 + 2 * 3)
    torch.testing.assert_close(features[..., :5], z)
    torch.testing.assert_close(
        features[..., 5 + 3 * 4 + 2], torch.sin(8 * torch.pi * z[..., 4]), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(features[..., 20], torch.cos(2 * torch.pi * z[..., 0]), atol=1e-4, rtol=1e-4)


def test_points_add_their_offsets_from_the_position_actions_command(make_episodes: Callable) -> None:
    """Two points of two numbers each, at both observation steps; a quarter of the range becomes 1, 4 is the end."""
    episodes = make_episodes(widths={"state": 2, "environment": 4})
    policy = build(replace(CONFIG, relative="state", points=("environment",)), episodes)
    batch = windows(policy, episodes)
    features = policy.encode(batch.observation).values
    assert features.shape[-1] == 6 + 4
    scale = policy.normalizer.affine("environment")[1]
    here = batch.observation["state"].repeat(1, 1, 2)
    expected = (batch.observation["environment"] - here) / (0.25 * scale)
    torch.testing.assert_close(features[..., 6:], expected.clamp(-4, 4))


def test_offsets_do_not_change_when_everything_moves_together(make_episodes: Callable) -> None:
    episodes = make_episodes(widths={"state": 2, "environment": 4})
    policy = build(replace(CONFIG, relative="state", points=("environment",)), episodes)
    batch = windows(policy, episodes)
    moved = {key: value + 0.3 for key, value in batch.observation.items()}
    torch.testing.assert_close(
        policy.encode(moved).values[..., 6:],
        policy.encode(batch.observation).values[..., 6:],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(("relative", "width"), [(None, 4), ("state", 3)])
def test_points_need_a_position_and_whole_points(
    make_episodes: Callable, relative: str | None, width: int
) -> None:
    episodes = make_episodes(widths={"state": 2, "environment": width})
    with pytest.raises(SpecError, match="points 'environment' must be an observation of whole points"):
        make_policy(replace(CONFIG, relative=relative, points=("environment",)), episodes)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_history_dropout_shows_the_present_in_place_of_the_past(episodes: Episodes, share: float) -> None:
    policy = build(replace(CONFIG, history_dropout=share), episodes)
    batch = Windows(episodes, policy.spec).batch(np.tile(np.arange(1, 8), 200))
    _, condition = policy.training_pair(batch, torch.Generator().manual_seed(0))
    clean = policy.encode(batch.observation).values
    torch.testing.assert_close(condition.values[:, -1], clean[:, -1])
    forgot = (condition.values[:, 0] == clean[:, 1]).all(dim=-1)
    assert forgot.float().mean().item() == pytest.approx(share, abs=0.04)
    torch.testing.assert_close(condition.values[~forgot], clean[~forgot])


def test_history_dropout_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="history_dropout must lie in"):
        replace(CONFIG, history_dropout=1.5)


def test_images_are_refused_with_the_keys_that_remain(episodes: Episodes) -> None:
    image = Field(shape=(8, 8, 3), dtype="uint8")
    spec = replace(episodes.spec, observation={**episodes.spec.observation, "image.top": image})
    with pytest.raises(SpecError, match=r"'image.top' is an image.*\['environment', 'state'\]"):
        LowDimEncoder(spec)
    assert "image.top" not in CHUNK.apply(spec).observation


def test_observation_noise_disturbs_what_the_network_sees_and_nothing_else(episodes: Episodes) -> None:
    config = replace(CONFIG, relative="state", observation_noise=0.1)
    policy = build(config, episodes)
    quiet = build(replace(config, observation_noise=0.0), episodes)
    batch = windows(policy, episodes)
    big = Batch(
        {k: v.repeat(200, 1, 1) for k, v in batch.observation.items()},
        batch.action.repeat(200, 1, 1),
        batch.mask.repeat(200, 1),
    )
    target, condition = policy.training_pair(big, torch.Generator().manual_seed(0))
    clean_target, clean = quiet.training_pair(big, torch.Generator().manual_seed(0))
    torch.testing.assert_close(target, clean_target)
    difference = condition.values - clean.values
    assert difference.std(dim=0).flatten().tolist() == pytest.approx([0.1] * 10, rel=0.1)
    again = policy.training_pair(big, torch.Generator().manual_seed(0))[1]
    assert torch.equal(condition.values, again.values)
    torch.testing.assert_close(policy.encode(big.observation).values, clean.values)


def test_point_noise_moves_all_points_of_a_window_together(make_episodes: Callable) -> None:
    episodes = make_episodes(widths={"state": 2, "environment": 4}, steps=(2000,))
    policy = build(replace(CONFIG, relative="state", points=("environment",), point_noise=0.1), episodes)
    batch = windows(policy, episodes)
    clean = policy.encode(batch.observation)
    target, condition = policy.training_pair(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(target, policy.normalize_action(batch.action, clean))
    torch.testing.assert_close(condition.values[..., :2], clean.values[..., :2])  # the position stays
    scale = policy.normalizer.affine("environment")[1]
    moved = ((condition.values - clean.values)[..., 2:6] * scale).unflatten(-1, (2, 2))  # (B, O, point, xy)
    torch.testing.assert_close(moved, moved[:, :1, :1].expand_as(moved), atol=1e-5, rtol=1e-4)
    expected = 0.1 * scale.mean().item()
    assert moved[:, 0, 0].std(dim=0).tolist() == pytest.approx([expected, expected], rel=0.1)


@pytest.mark.parametrize("mask_loss", [False, True])
def test_masked_losses_average_over_real_actions_only(episodes: Episodes, mask_loss: bool) -> None:
    policy = build(replace(CONFIG, mask_loss=mask_loss), episodes)
    error = torch.tensor([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    expected = (1 + 3 + 5 + 7 + 2 + 2) / 6 if mask_loss else (16 + 4 + 200) / 8
    assert policy.reduce(error, mask).item() == pytest.approx(expected)


def test_a_batch_without_real_actions_has_no_loss(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, mask_loss=True), episodes)
    assert policy.reduce(torch.ones(2, 4, 2), torch.zeros(2, 4, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("what", ["masked", "unmasked"])
def test_padded_actions_matter_only_without_the_mask(episodes: Episodes, what: str) -> None:
    policy = build(replace(CONFIG, mask_loss=what == "masked"), episodes)
    batch = windows(policy, episodes)
    changed = Batch(batch.observation, torch.where(batch.mask[..., None], batch.action, 1e3), batch.mask)
    losses = [policy(b, torch.Generator().manual_seed(0)).item() for b in (batch, changed)]
    # The padding still enters the noised input of its own row, hence not exactly equal for a generative policy.
    assert (losses[1] < 1e3 * losses[0]) == (what == "masked")


def test_data_in_double_precision_is_read_as_single(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    observation = windows(policy, episodes).observation
    double = {key: value.double() for key, value in observation.items()}
    torch.testing.assert_close(policy.sample(double), policy.sample(observation))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"observation_noise": -0.1}, "observation_noise must be at least 0"),
        ({"points": ("environment",), "point_noise": -0.1}, "point_noise must be at least 0"),
        ({"point_noise": 0.1}, "point_noise 0.1 moves `points`, and none are named"),
        ({"octaves": 17}, "octaves must lie in"),
    ],
)
def test_impossible_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"start": 1}, r"start must lie in \[-1, 0\], got 1"),
        ({"start": -2}, "start must lie in"),
        ({"horizon": 8, "execute": 8, "start": -1}, "horizon of at least 9, got 8"),
    ],
)
def test_impossible_windows_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChunkConfig(**wrong)
