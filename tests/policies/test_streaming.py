"""Actions as the way of a flow: the trajectory's numbers, and what a stream promises."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy, describe, load, make_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.streaming import (
    StreamingConfig,
    StreamingPolicy,
    trajectory,
    velocity,
    with_latent,
)
from sensorimotor.training.checkpoint import save_checkpoint, save_weights

CONFIG = StreamingConfig(
    chunk=ChunkConfig(observation_steps=1, horizon=4, execute=2),
    trunk=MLPConfig(width=16, depth=1, step_width=8),
)
KNOTS = torch.tensor([0.0, 1.0, 1.0, 3.0]).view(1, 4, 1)


def build(config: StreamingConfig, episodes: Episodes) -> StreamingPolicy:
    policy = make_policy(config, episodes)
    assert isinstance(policy, StreamingPolicy)
    return policy.eval()


def observe(policy: StreamingPolicy, episodes: Episodes, count: int = 3) -> dict[str, Tensor]:
    return Windows(episodes, policy.spec).batch(np.arange(count)).observation


class Field(torch.nn.Module):
    """A velocity field in place of a trained network; counts its calls."""

    def __init__(self, u: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.u, self.times = u, []

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        self.times.append(float(step) / 1000 if step.ndim == 0 else step / 1000)
        return self.u(x, step / 1000)


@pytest.mark.parametrize(
    ("t", "place", "slope"), [(0.0, 0.0, 3.0), (0.5, 1.0, 0.0), (0.8, 1.8, 6.0), (1.0, 3.0, 6.0)]
)
def test_the_trajectory_is_straight_between_knots(t: float, place: float, slope: float) -> None:
    xi, along = trajectory(KNOTS, torch.tensor([t]))
    assert (xi.item(), along.item()) == pytest.approx((place, slope), abs=1e-5)


def test_the_velocity_leads_back_to_the_demonstration() -> None:
    xi, slope = trajectory(KNOTS, torch.tensor([0.5]))
    assert velocity(xi, slope, torch.full_like(xi, 1.2), 2.5).item() == pytest.approx(-0.5)


@pytest.mark.parametrize(("t", "left"), [(0.25, 0.535261), (0.5, 0.286505), (1.0, 0.082085)])
def test_a_pull_lets_errors_decay(t: float, left: float) -> None:
    error, steps = 1.0, 20_000
    for _ in range(round(t * steps)):
        error += velocity(torch.zeros(()), torch.zeros(()), torch.tensor(error), 2.5).item() / steps
    assert error == pytest.approx(left, abs=1e-4)


@pytest.mark.parametrize(("pull", "left"), [(0.0, 1.0), (2.5, 0.082085)])
def test_training_shows_positions_as_far_off_as_errors_are_by_then(
    episodes: Episodes, pull: float, left: float
) -> None:
    policy = build(replace(CONFIG, pull=pull), episodes)
    seen: list[tuple[Tensor, Tensor]] = []
    policy.trunk = Field(lambda x, t: seen.append((x, t)) or torch.zeros_like(x))
    batch = Windows(episodes, policy.spec).batch(np.zeros(8000, dtype=int))
    stay = batch.observation["state"][:, -1:, :2].expand(-1, 4, -1)  # xi = 0
    policy(replace(batch, action=stay), torch.Generator().manual_seed(0))
    ((x, t),) = seen
    off = x / (0.1 * left**t).view(-1, 1, 1)
    for part in (t < 0.25, (t > 0.25) & (t < 0.75), t > 0.75):
        assert off[part].std().item() == pytest.approx(1.0, rel=0.05)


def test_the_latent_variable_by_hand() -> None:
    t = torch.tensor([0.5])
    xi, slope = trajectory(KNOTS, t)
    z_0 = (0.8 - 0.5 * xi.item()) / (1 - 0.5 * 0.5)
    assert z_0 == pytest.approx(0.4)
    point, target = with_latent(xi, slope, xi, torch.full_like(xi, z_0), t, tube=0.1, end=0.5)
    assert point[0, 0, 1].item() == pytest.approx(0.8)
    assert target[0, 0].tolist() == pytest.approx([0.195959, 0.8], abs=1e-5)


def test_the_latent_flow_leads_where_training_puts_it() -> None:
    z, around = torch.tensor([[[0.7]]]), torch.tensor([[[0.05]]])
    start, _ = with_latent(KNOTS[:, :1], KNOTS[:, :1], around, z, torch.zeros(1), 0.1, 0.5)
    x, steps = start, 3000
    for i in range(steps):
        t = torch.tensor([i / steps])
        x = x + with_latent(*trajectory(KNOTS, t), around, z, t, 0.1, 0.5)[1] / steps
    end, _ = with_latent(KNOTS[:, -1:], KNOTS[:, :1], around + 3.0, z, torch.ones(1), 0.1, 0.5)
    torch.testing.assert_close(x, end, atol=2e-3, rtol=0)


@pytest.mark.parametrize("latent", [None, 0.3])
def test_a_sample_is_the_stream_collected(episodes: Episodes, latent: float | None) -> None:
    policy = build(replace(CONFIG, latent=latent, temperature=1.0), episodes)
    seen = observe(policy, episodes)
    streamed = list(policy.stream(seen, samples=2, generator=torch.Generator().manual_seed(3)))
    assert [tuple(action.shape) for action in streamed] == [(3, 2, 2)] * 4
    sampled = policy.sample(seen, samples=2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.stack(streamed, dim=2), sampled)
    assert not torch.equal(sampled[:, 0], sampled[:, 1])


def test_each_action_costs_one_call_and_comes_before_the_next_is_begun(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    field = policy.trunk = Field(lambda x, t: torch.ones_like(x))
    stream = policy.stream(observe(policy, episodes))
    for calls in (1, 2, 3, 4):
        action = next(stream)
        assert len(field.times) == calls
        assert not action.requires_grad
        assert torch.is_grad_enabled()  # between actions the caller's own work is left alone
    assert next(stream, None) is None
    assert field.times == [0.0, 0.25, 0.5, 0.75]


def test_every_euler_step_is_the_next_action_from_the_present_position(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    reach = policy.get_buffer("reach")
    policy.trunk = Field(lambda x, t: torch.full_like(x, 2.0))
    seen = observe(policy, episodes)
    expected = seen["state"][:, -1] + reach * 2.0 * torch.arange(1, 5)[:, None, None] / 4
    torch.testing.assert_close(policy.sample(seen)[:, 0], expected.transpose(0, 1))


def test_a_stream_goes_on_from_the_last_committed_action(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, temperature=1.0), episodes)
    field = policy.trunk = Field(lambda x, t: torch.full_like(x, 2.0))
    prefix = torch.randn(3, 3, 2)
    chunk = policy.sample(observe(policy, episodes), samples=2, prefix=prefix)
    assert torch.equal(chunk[:, :, :3], prefix[:, None].expand(-1, 2, -1, -1))
    torch.testing.assert_close(chunk[:, 0, 3], prefix[:, -1] + policy.get_buffer("reach") * 2.0 / 4)
    assert field.times == [0.75]
    precise = policy.sample(observe(policy, episodes), samples=2, prefix=prefix.double())
    assert torch.equal(precise, chunk)
    full = torch.randn(3, 4, 2)
    assert torch.equal(policy.sample(observe(policy, episodes), prefix=full)[:, 0], full)


def test_substeps_follow_a_bending_field_and_yield_no_more_actions(episodes: Episodes) -> None:
    seen, ends = observe(build(CONFIG, episodes), episodes), []
    for substeps in (1, 50):
        policy = build(replace(CONFIG, substeps=substeps), episodes)
        field = policy.trunk = Field(lambda x, t: x + 1)
        chunk = policy.sample(seen)
        assert chunk.shape == (3, 1, 4, 2)
        assert len(field.times) == 4 * substeps
        ends.append(((chunk[:, 0, -1] - seen["state"][:, -1]) / policy.get_buffer("reach")).mean().item())
    assert ends == pytest.approx([1.25**4 - 1, np.e - 1], rel=0.005)


def test_what_does_not_fit_is_said_before_the_first_action(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    with pytest.raises(SpecError, match="observation 'state' is missing"):
        policy.stream({})
    with pytest.raises(SpecError, match="prefix has shape"):
        policy.stream(observe(policy, episodes), prefix=torch.zeros(3, 5, 2))


def test_the_latent_variable_is_where_the_flow_would_have_it_after_a_prefix(episodes: Episodes) -> None:
    policy = build(replace(CONFIG, latent=0.3), episodes)
    seen: list[Tensor] = []
    policy.trunk = Field(lambda x, t: seen.append(x) or torch.zeros_like(x))
    observation = observe(policy, episodes, 1)
    list(policy.stream(observation, generator=torch.Generator().manual_seed(0)))
    prefix = observation["state"] + policy.get_buffer("reach") * torch.tensor([1.0, 2.0])
    list(policy.stream(observation, generator=torch.Generator().manual_seed(0), prefix=prefix))
    first, later = seen[0], seen[4]
    torch.testing.assert_close(later[..., :2].flatten(), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(later[..., 2:], (1 - 0.7 / 4) * first[..., 2:] + later[..., :2] / 4)


def test_positions_are_offsets_at_the_scale_of_the_end_of_a_chunk(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(5))
    condition = policy.encode(batch.observation)
    x = policy.normalize_action(batch.action, condition)
    _, scale = policy.normalizer.affine("action")
    offsets = batch.action - batch.observation["state"][:, -1:, :2]
    torch.testing.assert_close(x, offsets / scale.amax(dim=0))
    torch.testing.assert_close(policy.unnormalize_action(x, condition), batch.action)


def test_one_scale_serves_all_steps_of_a_chunk_the_largest_of_theirs(episodes: Episodes) -> None:
    policy = build(CONFIG, episodes)
    statistics = {key: policy.normalizer.affine(key) for key in policy.spec.observation}
    rows = torch.tensor([[1.0, 5.0], [4.0, 2.0], [3.0, 1.0], [2.0, 3.0]])
    normalizer = Normalizer({**statistics, "action": (torch.zeros(4, 2), rows)})
    assert build_policy(CONFIG, policy.spec, normalizer).get_buffer("reach").tolist() == [4.0, 5.0]
    flat = Normalizer({**statistics, "action": (torch.zeros(2), rows[0])})
    with pytest.raises(SpecError, match=r"shape \(2,\); needed is \(4, 2\), .* relative='state'"):
        build_policy(CONFIG, policy.spec, flat)


@pytest.mark.parametrize(("pull", "latent"), [(0.0, None), (2.5, None), (0.0, 0.3)])
def test_the_loss_is_zero_for_a_network_that_knows_the_demonstration(
    episodes: Episodes, pull: float, latent: float | None
) -> None:
    policy = build(replace(CONFIG, pull=pull, latent=latent), episodes)
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    action = policy.normalize_action(batch.action, policy.encode(batch.observation))
    knots = torch.cat([torch.zeros_like(action[:, :1]), action], dim=1)

    def know(x: Tensor, t: Tensor) -> Tensor:
        xi, slope = trajectory(knots, t)
        if latent is None:
            return velocity(xi, slope, x, pull)
        z = (x[..., 2:] - t.view(-1, 1, 1) * xi) / (1 - (1 - latent) * t.view(-1, 1, 1))
        along = slope + np.sqrt(latent**2 - 0.1**2) * z
        return torch.cat([along, xi + t.view(-1, 1, 1) * slope - (1 - latent) * z], dim=-1)

    policy.trunk = Field(know)
    assert policy(batch, torch.Generator().manual_seed(0)).item() < 1e-9


@pytest.mark.parametrize("real", [0, 1, 3])
@pytest.mark.parametrize("draws", [1, 2])
def test_the_way_to_an_action_that_is_none_teaches_nothing(episodes: Episodes, real: int, draws: int) -> None:
    policy = build(replace(CONFIG, mask_loss=True, draws=draws), episodes)
    batch = Windows(episodes, policy.spec).batch(np.full(200, 3))
    mask = torch.zeros_like(batch.mask)
    mask[:100, real] = True

    def wrong(x: Tensor, t: Tensor) -> Tensor:
        """Far off for the rows without a real action, and on the way to every other action."""
        inside = (t >= real / 4) & (t < (real + 1) / 4) & (torch.arange(len(t)) < 100 * draws)
        return torch.where(inside.view(-1, 1, 1), 0.0, torch.full_like(x, 1e6))

    policy.trunk = Field(wrong)
    assert policy(replace(batch, mask=mask), torch.Generator().manual_seed(0)).item() < 1e3


@pytest.mark.parametrize("latent", [None, 0.3])
def test_a_loaded_policy_is_the_saved_one(tmp_path: Path, episodes: Episodes, latent: float | None) -> None:
    policy = build(replace(CONFIG, latent=latent), episodes)
    weights = lambda folder: save_weights(policy, folder / "model.safetensors")  # noqa: E731
    save_checkpoint(tmp_path / "checkpoint", partial(describe, policy), weights)
    loaded = load(tmp_path / "checkpoint")
    assert loaded.config == policy.config
    seen = observe(policy, episodes)
    assert torch.equal(loaded.sample(seen, samples=2), policy.sample(seen, samples=2))


def test_the_released_variant_is_the_default() -> None:
    assert (CONFIG.pull, CONFIG.tube, CONFIG.temperature, CONFIG.latent) == (0.0, 0.1, 0.0, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative": None}, "name its key in `relative`"),
        ({"tube": -0.1}, "tube must be at least 0"),
        ({"pull": float("nan")}, "pull must be at least 0"),
        ({"substeps": 0}, "substeps must be at least 1"),
        ({"latent": 0.05}, "latent lie in"),
        ({"latent": 0.5, "pull": 1.0}, "pull must be 0"),
        ({"chunk": ChunkConfig(observation_steps=2, start=-1)}, "set chunk.start to 0"),
    ],
)
def test_what_cannot_stream_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)


def test_a_position_that_is_not_observed_is_refused(make_episodes: Callable) -> None:
    with pytest.raises(SpecError, match="relative 'state' must be an observation of at least 2 numbers"):
        make_policy(CONFIG, make_episodes(widths={"environment": 3}))
