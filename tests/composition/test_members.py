"""Members unlike each other: what they read, how long and how wide they predict, how they are sampled."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.superposed import superpose
from sensorimotor.composition.weights import PerDimension, Schedule
from sensorimotor.data.errors import SpecError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.guidance import ChunkGuide
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.resnet import ResNetConfig
from sensorimotor.policies.sampling import DDIM, DDPM, DPMSolver, FlowEuler, FlowHeun, Trace
from sensorimotor.policies.transformer import TransformerConfig
from sensorimotor.policies.unet import UNetConfig
from sensorimotor.policies.vision import VisionConfig
from sensorimotor.policies.vla.config import VLAConfig
from sensorimotor.policies.vla.text import WordsConfig

FIELDS = {
    "state": Field(shape=(2,)),
    "environment": Field(shape=(4,)),
    "image.top": Field(shape=(32, 32, 3), dtype="uint8"),
    "image.hand": Field(shape=(32, 32, 3), dtype="uint8"),
    "instruction": Field(shape=(), dtype="str"),
}
NUMBERS = ("state", "environment")
TINY = MLPConfig(width=16, depth=1, step_width=8)
UNET = UNetConfig(channels=(8, 16), kernel=3, groups=4, step_width=8)
VISION = VisionConfig(encoder=ResNetConfig(width=4, blocks=(1, 1, 1)))


def chunk(keys: tuple[str, ...] = NUMBERS, steps: int = 1, horizon: int = 8) -> ChunkConfig:
    return ChunkConfig(observation=keys, observation_steps=steps, horizon=horizon, execute=4)


def make(config: Any, seed: int = 0) -> Any:
    """A policy with random weights, closed parts opened."""
    widths = {"state": 2, "environment": 4, "action": 2}
    normalizer = Normalizer(
        {key: (torch.full((w,), 0.1), torch.full((w,), 0.5)) for key, w in widths.items()}
    )
    spec = Spec(observation=FIELDS, action=Field(shape=(2,)), control_hz=10)
    policy: Any = build_policy(config, config.chunk.apply(spec), normalizer, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return policy.eval()


def look(steps: int = 1, rows: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    seen: dict[str, Any] = {"instruction": ["push left", "push right"][:rows]}
    for key in ("image.top", "image.hand"):
        seen[key] = torch.randint(0, 256, (rows, steps, 32, 32, 3), generator=generator, dtype=torch.uint8)
    for key, width in (("state", 2), ("environment", 4)):
        seen[key] = torch.randn(rows, steps, width, generator=generator)
    return seen


def diffusion(**changes: Any) -> Any:
    return make(replace(DiffusionConfig(chunk=chunk(), trunk=UNET), **changes), 1)


def flow(**changes: Any) -> Any:
    return make(replace(FlowConfig(chunk=chunk(), trunk=TINY), **changes), 2)


def camera(**changes: Any) -> Any:
    keys = ("state", "image.hand")
    return make(replace(FlowConfig(chunk=chunk(keys), trunk=TINY, vision=VISION), **changes), 3)


def vla(**changes: Any) -> Any:
    words = WordsConfig(words=("push", "left", "right"))
    keys = ("state", "image.top", "instruction")
    return make(replace(VLAConfig(chunk=chunk(keys), text=words), **changes), 4)


def energy(**changes: Any) -> Any:
    trunk = EnergyMLPConfig(width=16, depth=1)
    return make(replace(EnergyConfig(chunk=chunk(), trunk=trunk), **changes), 5)


KINDS: dict[str, Callable[..., Any]] = {
    "diffusion": diffusion,
    "flow": flow,
    "camera": camera,
    "vla": vla,
    "energy": energy,
}


def mixed_by_hand(policy: Any, weights: Any, x: Tensor, s: Tensor, seen: Any) -> Tensor:
    """What a composition of members in one space should answer."""
    members = [member.policy for member in policy.asked]
    own = [{key: seen[key] for key in member.spec.observation} for member in members]
    answers = [m.predict_noise(x, s, m.encode(o)) for m, o in zip(members, own, strict=True)]
    return sum(w * answer for w, answer in zip(weights, answers, strict=True))  # pyright: ignore


@pytest.mark.parametrize("others", [("camera",), ("vla",), ("energy",), ("camera", "vla", "diffusion")])
def test_members_read_what_they_were_trained_on(others: tuple[str, ...]) -> None:
    members = {"flow": flow(), **{name: KINDS[name]() for name in others}}
    weights = [0.4, *[0.6 / len(others)] * len(others)]
    policy, seen = compose(members, weights), look()
    assert set(policy.spec.observation) == {key for m in members.values() for key in m.spec.observation}
    x, s = torch.randn(2, 8, policy.path_width), torch.tensor(0.6)
    if policy.path_width == 2:
        with torch.no_grad():
            expected = mixed_by_hand(policy, weights, x, s, seen)
            torch.testing.assert_close(policy.predict_noise(x, s, policy.encode(seen)), expected)
    for sampler in (DDIM(), FlowEuler(steps=4)):
        assert policy.sample(seen, samples=3, sampler=sampler).shape == (2, 3, 8, 2)


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "energy"])
@pytest.mark.parametrize(
    "sampler", [DDIM(), DDPM(steps=12), DPMSolver(), FlowEuler(steps=5), FlowHeun(steps=3)]
)
def test_a_member_with_itself_is_itself_under_every_sampler(kind: str, sampler: Any) -> None:
    member, seen = KINDS[kind](), look()
    noise = torch.randn(2, 3, 8, 2, generator=torch.Generator().manual_seed(0))
    alone = member.sample(seen, samples=3, noise=noise, sampler=sampler)
    twice = compose({"a": member, "b": member}, (0.3, 0.7)).sample(
        seen, samples=3, noise=noise, sampler=sampler
    )
    torch.testing.assert_close(twice, alone, atol=2e-5, rtol=2e-5)
    once = compose({"a": member, "b": flow()}, (1.0, 0.0)).sample(
        seen, samples=3, noise=noise, sampler=sampler
    )
    assert torch.equal(once, alone)


def test_padding_is_drawn_where_a_member_pads() -> None:
    padded = vla(action_width=5)
    members = {"vla": padded, "flow": flow()}
    policy, seen = compose(members, (0.25, 0.75)), look()
    assert (padded.path_width, policy.path_width, policy.spec.action_dim) == (5, 5, 2)
    x, s = torch.randn(2, 8, 5), torch.tensor(0.6)
    with torch.no_grad():
        found = policy.predict_noise(x, s, policy.encode(seen))
        wide = padded.predict_noise(x, s, padded.encode(seen))
        narrow = members["flow"].predict_noise(x[..., :2], s, members["flow"].encode(seen))
    torch.testing.assert_close(found[..., :2], 0.25 * wide[..., :2] + 0.75 * narrow)
    torch.testing.assert_close(found[..., 2:], wide[..., 2:])  # nobody else has a say there
    alone = padded.sample(seen, samples=2)
    assert torch.equal(compose([padded, flow()], (1.0, 0.0)).sample(seen, samples=2), alone)
    twice = compose({"a": padded, "b": padded}, (0.3, 0.7)).sample(seen, samples=2)
    torch.testing.assert_close(twice, alone, atol=1e-5, rtol=1e-5)
    start = torch.randn(2, 2, 8, 2, generator=torch.Generator().manual_seed(1))
    for sampler in (FlowEuler(steps=4), DDIM()):
        one, other = (policy.sample(seen, samples=2, noise=start, sampler=sampler) for _ in range(2))
        assert torch.equal(one, other)


@pytest.mark.parametrize("count", [1, 2])
def test_the_reverse_diffusion_draws_padding_too(count: int) -> None:
    members = [vla(action_width=5) for _ in range(count)]
    answer, heard = members[0].predict_noise, []

    def listening(x: Tensor, s: Tensor, condition: Any) -> Tensor:
        heard.append(x)
        return answer(x, s, condition)

    members[0].predict_noise = listening
    chunks = superpose(members, "or", sampler=ReverseSDE(steps=100)).sample(look(rows=1), samples=2)
    assert chunks.shape == (1, 2, 8, 2)
    assert len(heard) == 100
    assert all(x.shape == (2, 8, 5) for x in heard)
    assert float(heard[0][..., 2:].std()) == pytest.approx(80 / 81, abs=0.4)


def test_widths_of_two_that_pad_meet_at_the_wider() -> None:
    five, three = vla(action_width=5), vla(action_width=3)
    policy, seen = compose({"five": five, "three": three}, (0.25, 0.75)), look()
    x, s = torch.randn(2, 8, 5), torch.tensor(0.6)
    with torch.no_grad():
        found = policy.predict_noise(x, s, policy.encode(seen))
        wide = five.predict_noise(x, s, five.encode(seen))
        less = three.predict_noise(x[..., :3], s, three.encode(seen))
    torch.testing.assert_close(found[..., :3], 0.25 * wide[..., :3] + 0.75 * less)
    torch.testing.assert_close(found[..., 3:], wide[..., 3:])
    arm = compose({"five": five, "flow": flow()}, PerDimension(((1.0, 0.0), (0.0, 1.0))))
    with torch.no_grad():
        split = arm.predict_noise(x, s, arm.encode(seen))
        own = arm.asked[1].policy.predict_noise(x[..., :2], s, arm.asked[1].policy.encode(seen))
    torch.testing.assert_close(split[..., 0], wide[..., 0])
    torch.testing.assert_close(split[..., 1], own[..., 1])


@pytest.mark.parametrize("steps", [1, 2])
def test_the_longest_history_is_handed_over_and_each_takes_its_own(steps: int) -> None:
    short, long = flow(), diffusion(chunk=chunk(steps=3))
    policy, seen = compose({"short": short, "long": long}), look(steps=3)
    assert policy.spec.observation_steps == 3
    x, s = torch.randn(2, 8, 2), torch.tensor(0.5)
    latest = {key: seen[key][:, -1:] for key in NUMBERS}
    with torch.no_grad():
        expected = (
            short.predict_noise(x, s, short.encode(latest)) + long.predict_noise(x, s, long.encode(seen))
        ) / 2
        torch.testing.assert_close(policy.predict_noise(x, s, policy.encode(seen)), expected)
    with pytest.raises(SpecError, match=rf"has shape \(2, {steps}, 2\); the policy needs \(batch, 3, 2\)"):
        policy.sample(look(steps=steps))


def test_a_key_of_two_shapes_is_refused_by_name() -> None:
    other = camera()
    field = Field(shape=(64, 64, 3), dtype="uint8")
    other.spec = replace(other.spec, observation=other.spec.observation | {"image.hand": field})
    with pytest.raises(SpecError, match=r"image\.hand"):
        compose({"near": camera(), "far": other})


def test_compositions_of_other_lengths_and_widths_inside_each_other(
    gaussian: Callable, seen: dict[str, Tensor]
) -> None:
    """Every number of every action is the mixture of those who answer for it, however deep they are."""
    inner = compose(
        [
            gaussian(-1.0, 0.25, horizon=2, width=2),
            Part(gaussian(2.0, 1.0, horizon=3), columns=(1,)),
            gaussian(0.5, 0.3, horizon=3, width=2),
        ],
        (0.25, 0.25, 0.5),
    )
    outer = compose([gaussian(0.0, 1.0, horizon=5, width=3), Part(inner, columns=(2, 0))], (0.4, 0.6))
    x, s = torch.randn(1, 5, 3), torch.tensor(0.3)

    def noise(mean: float, variance: float, at: Tensor) -> Tensor:
        return 0.3 * (at - 0.7 * mean) / (0.7**2 * variance + 0.3**2)

    wide = noise(0.0, 1.0, x)
    a, b, c = (noise(m, v, x[:, :3, [2, 0]]) for m, v in ((-1.0, 0.25), (2.0, 1.0), (0.5, 0.3)))
    inside = torch.zeros(1, 3, 2)
    inside[:, :2, 0] = (a[:, :2, 0] + 2 * c[:, :2, 0]) / 3
    inside[:, :2, 1] = 0.25 * a[:, :2, 1] + 0.25 * b[:, :2, 1] + 0.5 * c[:, :2, 1]
    inside[:, 2, 0] = c[:, 2, 0]
    inside[:, 2, 1] = (b[:, 2, 1] + 2 * c[:, 2, 1]) / 3
    expected = wide.clone()
    expected[:, :3, [2, 0]] = 0.4 * wide[:, :3, [2, 0]] + 0.6 * inside
    torch.testing.assert_close(outer.predict_noise(x, s, outer.encode(seen)), expected)
    assert (outer.spec.horizon, outer.spec.action_dim, inner.spec.horizon) == (5, 3, 3)
    for sampler in (DDIM(clip=None), FlowEuler(steps=3)):
        assert outer.sample(seen, samples=2, sampler=sampler).isfinite().all()


def test_a_composition_of_another_scale_inside_another_is_the_same(
    gaussian: Callable, seen: dict[str, Tensor]
) -> None:
    def nested(**own: float) -> Any:
        inner = compose([gaussian(-1.0, 0.25, **own), gaussian(0.5, 0.3)], (0.25, 0.75))
        return compose([gaussian(2.0, 1.0), inner], (0.4, 0.6))

    noise = torch.tensor([0.0, 1.0, -2.0]).view(1, 3, 1, 1)
    for sampler in (DDIM(clip=None), FlowEuler(), FlowHeun(), DPMSolver(clip=None)):
        found, expected = (
            p.sample(seen, samples=3, noise=noise, sampler=sampler)
            for p in (nested(offset=0.7, scale=3.0), nested())
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM(steps=12), DPMSolver(), FlowEuler(), FlowHeun()])
def test_a_schedule_gives_every_level_to_whom_it_names(sampler: Any) -> None:
    """The noisy half to the diffusion member, the rest to the flow: nobody is asked out of turn."""
    members = {"diffusion": diffusion(), "flow": flow()}
    policy, trace = compose(members, Schedule((0.5, 0.500001), ((0.0, 1.0), (1.0, 0.0)))), Trace()
    at: dict[str, list[float]] = {"diffusion": [], "flow": []}
    for member in policy.asked:
        listen(member.policy, at[member.name])
    policy.sample(look(), sampler=sampler, trace=trace)
    assert all(s > 0.5 for s in at["diffusion"])
    assert all(s <= 0.5 for s in at["flow"])
    assert min(len(asked) for asked in at.values()) > 0
    assert trace.evaluations is not None
    assert trace.evaluations.flatten().tolist() == [len(at["diffusion"]) + len(at["flow"])] * 2


def listen(policy: Any, heard: list[float]) -> None:
    """Note at which positions a policy is asked, and not where one of its answers is derived from the other."""
    deep = [False]

    def listening(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def asked(x: Tensor, s: Tensor, condition: Any) -> Tensor:
            outermost, deep[0] = not deep[0], True
            if outermost:
                heard.append(float(s))
            answer = own(x, s, condition)
            deep[0] = not outermost
            return answer

        return asked

    for name in ("predict_noise", "predict_velocity"):
        setattr(policy, name, listening(getattr(policy, name)))


def test_prefixes_and_guides_hold_for_unlike_members() -> None:
    policy, seen = compose({"vla": vla(action_width=5), "diffusion": diffusion(), "camera": camera()}), look()
    prefix = torch.full((2, 3, 2), 0.2)
    for sampler in (DDIM(), FlowEuler(steps=4)):
        chunks = policy.sample(seen, samples=2, prefix=prefix, sampler=sampler)
        assert torch.equal(chunks[:, :, :3], prefix[:, None].expand(2, 2, 3, 2))
    previous = torch.full((2, 8, 2), 0.2)
    guide = ChunkGuide(previous=previous, delay=4, end=8)
    free, drawn = (policy.sample(seen, guide=g, sampler=FlowEuler(steps=6)) for g in (None, guide))
    near, far = ((c[:, 0, :4] - previous[:, :4]).abs().mean() for c in (drawn, free))
    assert near < far


def test_transformers_take_part(seen: dict[str, Tensor]) -> None:
    trunk = TransformerConfig(width=8, layers=1, heads=2, attention_dropout=0.1)
    members = [flow(), make(FlowConfig(chunk=chunk(), trunk=trunk), 6), diffusion()]
    policy = compose(members, (0.2, 0.3, 0.5))
    x, s = torch.randn(2, 8, 2), torch.tensor(0.6)
    with torch.no_grad():
        expected = mixed_by_hand(policy, (0.2, 0.3, 0.5), x, s, look())
        torch.testing.assert_close(policy.predict_noise(x, s, policy.encode(look())), expected)


def test_a_composition_moves_as_a_whole(gaussian: Callable) -> None:
    """To a device without numbers, on which whatever stayed behind would not meet the rest."""
    members = [flow(trunk=UNET), diffusion(), flow(trunk=UNET, chunk=chunk(horizon=4))]
    for member in members[1:]:
        member.normalizer = Normalizer(
            {
                key: (torch.full((n,), 0.3), torch.full((n,), 0.5))
                for key, n in {"state": 2, "environment": 4, "action": 2}.items()
            }
        )
    policy = compose(members, PerDimension(((0.5, 0.2), (0.3, 0.3), (0.2, 0.5)))).to("meta")
    assert {t.device.type for t in (*policy.parameters(), *policy.buffers())} == {"meta"}
    seen = {key: look()[key].to("meta") for key in NUMBERS}
    x, s = torch.randn(2, 8, 2, device="meta"), torch.rand(2, device="meta")
    known = policy.encode(seen)
    for number, member in enumerate(policy.asked):
        for question in ("noise", "velocity"):
            assert member.ask(question, x, s, known.known(number)).device.type == "meta"
    assert policy.unnormalize_action(x, known).device.type == "meta"
