"""What every policy promises at its boundary."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError, SpecError, TrainingError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import PolicyConfig, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.nearest import NearestConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, FlowHeun, SamplerConfig, Trace

CHUNK = ChunkConfig(observation_steps=2, horizon=8, execute=4)
SMALL = MLPConfig(width=16, depth=1, step_width=8)
FAMILIES: list[PolicyConfig] = [
    DiffusionConfig(chunk=CHUNK, trunk=SMALL),
    FlowConfig(chunk=CHUNK, trunk=SMALL),
    FlowConfig(chunk=CHUNK, trunk=SMALL, relative="state", octaves=2),
    EnergyConfig(chunk=CHUNK, trunk=EnergyMLPConfig(width=16, depth=1), sampler=Descent(steps=3)),
    RegressorConfig(chunk=CHUNK, trunk=SMALL, relative="state"),
    NearestConfig(chunk=CHUNK),
]
IDS = ["diffusion", "flow", "relative flow", "energy", "regressor", "nearest"]
GENERATIVE = FAMILIES[:4]


def observe(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "state": torch.rand(batch, 2, 2, generator=generator) * 5 - 2,
        "environment": torch.rand(batch, 2, 3, generator=generator) * 5 - 2,
    }


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
@pytest.mark.parametrize(("batch", "samples"), [(1, 1), (3, 1), (2, 5)])
def test_samples_have_the_promised_shape_and_no_gradient(
    episodes: Episodes, config: PolicyConfig, batch: int, samples: int
) -> None:
    chunks = make_policy(config, episodes).sample(observe(batch), samples=samples)
    assert chunks.shape == (batch, samples, 8, 2)
    assert chunks.dtype == torch.float32
    assert not chunks.requires_grad
    assert torch.isfinite(chunks).all()


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
def test_equal_seeds_give_equal_chunks(episodes: Episodes, config: PolicyConfig) -> None:
    policy, observation = make_policy(config, episodes), observe(2)
    first, again = (
        policy.sample(observation, samples=3, generator=torch.Generator().manual_seed(4)) for _ in range(2)
    )
    assert torch.equal(first, again)


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
def test_keys_that_the_spec_does_not_name_change_nothing(episodes: Episodes, config: PolicyConfig) -> None:
    policy, observation = make_policy(config, episodes), observe(2)
    assert torch.equal(policy.sample(observation), policy.sample(observation | {"image.top": torch.zeros(2)}))


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
def test_every_chunk_starts_with_exactly_the_prefix(episodes: Episodes, config: PolicyConfig) -> None:
    policy = make_policy(config, episodes)
    prefix = torch.tensor([[[0.1, 0.2], [0.3, 0.7]], [[-1.1, 0.4], [0.0, 1 / 3]]])
    chunks = policy.sample(observe(2), samples=3, prefix=prefix)
    assert torch.equal(chunks[:, :, :2], prefix[:, None].expand(-1, 3, -1, -1))
    assert torch.isfinite(chunks).all()


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
def test_an_empty_prefix_is_no_prefix(episodes: Episodes, config: PolicyConfig) -> None:
    policy, observation = make_policy(config, episodes), observe(2)
    torch.testing.assert_close(
        policy.sample(observation), policy.sample(observation, prefix=torch.zeros(2, 0, 2))
    )


@pytest.mark.parametrize("config", GENERATIVE, ids=IDS[:4])
def test_the_prefix_moves_the_rest_of_the_chunk(episodes: Episodes, config: PolicyConfig) -> None:
    policy, observation = make_policy(config, episodes), observe(1)
    for p in policy.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
    far = policy.sample(observation, prefix=torch.full((1, 2, 2), 3.0))
    near = policy.sample(observation, prefix=torch.full((1, 2, 2), -2.0))
    assert (far[:, :, 2:] - near[:, :, 2:]).abs().max() > 1e-3


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: {"state": o["state"]}, "'environment' is missing"),
        (lambda o: o | {"state": o["state"][:, :1]}, r"'state' has shape \(2, 1, 2\).*\(batch, 2, 2\)"),
        (lambda o: o | {"state": o["state"][..., :1]}, "'state' has shape"),
        (lambda o: o | {"environment": o["environment"][:1]}, "batch size 1"),
    ],
)
def test_observations_that_do_not_fit_are_refused(
    episodes: Episodes, config: PolicyConfig, change: Callable, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        make_policy(config, episodes).sample(change(observe(2)))


@pytest.mark.parametrize("config", FAMILIES, ids=IDS)
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 9, 2), (2, 2, 3), (2, 2)])
def test_prefixes_that_do_not_fit_are_refused(
    episodes: Episodes, config: PolicyConfig, shape: tuple[int, ...]
) -> None:
    with pytest.raises(SpecError, match="prefix has shape"):
        make_policy(config, episodes).sample(observe(2), prefix=torch.zeros(shape))


def test_a_policy_that_reads_privileged_observations_is_refused() -> None:
    spec = Spec(
        observation={"state": Field(shape=(2,)), "privileged": Field(shape=(1,))},
        action=Field(shape=(2,)),
        control_hz=10,
    )

    class Peeking(Policy):
        def sample(self, observation: Any, **options: Any) -> torch.Tensor:
            return torch.zeros(1, 1, 1, 2)

    with pytest.raises(SpecError, match="must not read `privileged`"):
        Peeking(spec)
    with pytest.raises(TrainingError, match="Peeking learns nothing"):
        Peeking(spec.keep(("state",)))(None, torch.Generator())


@pytest.mark.parametrize("config", GENERATIVE, ids=IDS[:4])
def test_given_noise_replaces_the_draw_of_all_samples_at_once(
    episodes: Episodes, config: PolicyConfig
) -> None:
    policy, observation = make_policy(config, episodes), observe(2)
    assert isinstance(policy, GenerativePolicy)
    noise = torch.randn(2, 3, 8, 2, generator=torch.Generator().manual_seed(9))
    drawn = policy.sample(observation, samples=3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(policy.sample(observation, samples=3, noise=noise), drawn)
    assert torch.equal(policy.sample(observation, samples=3, noise=noise.double()), drawn)
    one = policy.sample({k: v[1:] for k, v in observation.items()}, noise=noise[1:, 2:])
    torch.testing.assert_close(one[0, 0], drawn[1, 2], atol=1e-5, rtol=1e-5)
    with pytest.raises(SpecError, match=r"allowed is \(2, 1, 8, 2\)"):
        policy.sample(observation, noise=noise)


def test_observations_are_encoded_once_for_all_samples_and_steps(gaussian: Callable) -> None:
    policy = gaussian(0.0, 1.0, horizon=3)
    policy.sample({"state": torch.zeros(2, 1, 1)}, samples=4, sampler=DDPM(steps=7))
    assert policy.encoded == 1


def test_another_sampler_can_be_used_for_one_call(gaussian: Callable) -> None:
    policy, observation = gaussian(0.5, 0.04), {"state": torch.zeros(1, 1, 1)}
    noise = torch.ones(1, 1, 1, 1)
    assert policy.sample(observation, noise=noise).item() == pytest.approx(0.654175, abs=1e-5)
    coarse = policy.sample(observation, noise=noise, sampler=FlowEuler(steps=2))
    assert coarse.item() == pytest.approx(0.538462, abs=1e-5)


@pytest.mark.parametrize("config", FAMILIES[:5], ids=IDS[:5])
def test_a_policy_in_training_mode_is_not_left_in_another_by_sampling(
    episodes: Episodes, config: PolicyConfig
) -> None:
    policy = make_policy(config, episodes).train()
    policy.sample(observe(1))
    assert policy.training
    assert all(p.requires_grad for p in policy.parameters())


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [(DDIM(steps=4), 4), (DDPM(steps=7), 7), (FlowEuler(steps=3), 3), (FlowHeun(steps=3), 5)],
)
def test_a_trace_counts_every_network_call(episodes: Episodes, sampler: SamplerConfig, calls: int) -> None:
    policy, trace = make_policy(GENERATIVE[1], episodes), Trace()
    assert isinstance(policy, GenerativePolicy)
    counted = []
    policy.trunk.register_forward_hook(lambda *_: counted.append(1))  # pyright: ignore[reportAttributeAccessIssue]
    policy.sample(observe(2), samples=3, sampler=sampler, trace=trace)
    assert trace.evaluations is not None
    assert trace.evaluations.shape == (2, 3)
    assert (trace.evaluations == calls).all()
    assert len(counted) == calls


def test_a_sampler_of_another_family_is_refused_by_name(episodes: Episodes) -> None:
    policy = make_policy(GENERATIVE[0], episodes)
    assert isinstance(policy, GenerativePolicy)
    with pytest.raises(ConfigError, match=r"DiffusionPolicy cannot be sampled by Descent.*use DDIM"):
        policy.sample(observe(1), sampler=Descent())
