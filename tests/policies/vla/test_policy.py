from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch
from sensorimotor.policies.factory import build_policy, describe, load
from sensorimotor.policies.guidance import ChunkGuide
from sensorimotor.policies.path import noise_from_velocity
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.policies.vla.config import VLAConfig
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.text import BytesConfig, WordsConfig
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights

Make = Callable[..., VLAPolicy]
Observe = Callable[..., dict[str, Any]]
EVERY = pytest.mark.parametrize("kind", ["pi0", "pi05", "smolvla"])


def velocity(policy: VLAPolicy, observation: dict[str, Any], x: torch.Tensor, s: float = 0.7) -> torch.Tensor:
    with torch.no_grad():
        return policy.predict_velocity(x, torch.tensor(s), policy.encode(observation))


def chunks(rows: int = 2, *, seed: int = 3) -> torch.Tensor:
    return torch.randn(rows, 8, 2, generator=torch.Generator().manual_seed(seed))


def test_the_tiny_preset_has_the_parameters_of_its_layout() -> None:
    config = PRESETS["vla_tiny"].policy
    spec = Spec(
        observation={
            "state": Field(shape=(2,)),
            "image.top": Field(shape=(32, 32, 3), dtype="uint8"),
            "instruction": Field(shape=(), dtype="str"),
        },
        action=Field(shape=(2,)),
        control_hz=10,
    )
    unit = (torch.zeros(2), torch.ones(2))
    policy = build_policy(config, config.chunk.apply(spec), Normalizer({"state": unit, "action": unit}))
    assert sum(p.numel() for p in policy.parameters()) == 155_922


@pytest.mark.parametrize(("kind", "moved"), [("pi0", range(8)), ("smolvla", range(5, 8))])
def test_an_action_is_seen_by_all_others_or_by_later_ones(
    kind: str, moved: range, vla: Make, vla_observation: Observe
) -> None:
    policy, observation, x = vla(kind), vla_observation(), chunks()
    other = x.clone()
    other[:, 5] += 1.0
    change = (velocity(policy, observation, other) - velocity(policy, observation, x)).abs().amax(dim=(0, 2))
    assert [i for i in range(8) if change[i] > 1e-7] == list(moved)


@EVERY
def test_padded_words_change_nothing(kind: str, vla: Make, vla_observation: Observe) -> None:
    policy, observation, x = vla(kind), vla_observation(1), chunks(1)
    alone = velocity(policy, observation, x)
    longer = {k: v if k == "instruction" else v.repeat_interleave(2, 0) for k, v in observation.items()}
    longer["instruction"] = [*observation["instruction"], "push the T to the left goal " * 2]
    beside = velocity(policy, longer, x.repeat(2, 1, 1))
    torch.testing.assert_close(beside[:1], alone, atol=1e-5, rtol=0)
    assert (beside[1] - beside[0]).abs().max() > 1e-4


@EVERY
def test_every_input_reaches_the_actions(kind: str, vla: Make, vla_observation: Observe) -> None:
    policy, observation, x = vla(kind), vla_observation(), chunks()
    here = velocity(policy, observation, x)
    changes = {
        "state": observation["state"] + 0.5,
        "image.top": 255 - observation["image.top"],
        "instruction": ["to the right goal", "the left"],
    }
    for key, value in changes.items():
        assert (velocity(policy, {**observation, key: value}, x) - here).abs().max() > 1e-4, key
    assert (velocity(policy, observation, x, s=0.2) - here).abs().max() > 1e-4


@EVERY
def test_no_words_at_all_give_finite_actions(kind: str, vla: Make, vla_observation: Observe) -> None:
    policy = vla(kind)
    observation = {**vla_observation(), "instruction": ["", "go"]}
    assert policy.sample(observation, samples=2).isfinite().all()


@EVERY
def test_samples_are_drawn_as_one_by_one(kind: str, vla: Make, vla_observation: Observe) -> None:
    policy, observation = vla(kind), vla_observation(3)
    noise = torch.randn(3, 4, 8, 2, generator=torch.Generator().manual_seed(0))
    together = policy.sample(observation, samples=4, noise=noise)
    alone = [policy.sample(observation, noise=noise[:, i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-4, rtol=0)


def test_noise_and_velocity_are_two_views_of_one_answer(vla: Make, vla_observation: Observe) -> None:
    policy, x, s = vla("pi0"), chunks(), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        condition = policy.encode(vla_observation())
        expected = noise_from_velocity(x, s, policy.predict_velocity(x, s, condition))
        assert torch.equal(policy.predict_noise(x, s, condition), expected)


def test_offsets_are_from_the_latest_state(vla: Make, vla_observation: Observe) -> None:
    policy, observation = vla("pi0", relative="state"), vla_observation(2)
    with torch.no_grad():
        condition = policy.encode(observation).repeat(3)
    action = torch.randn(6, 8, 2)
    x = policy.normalize_action(action, condition)
    torch.testing.assert_close(policy.unnormalize_action(x, condition), action)
    origin = observation["state"][:, -1].repeat_interleave(3, 0)[:, None]
    offset, scale = policy.normalizer.affine("action")
    torch.testing.assert_close(x, (action - origin - offset) / scale)


def test_wider_networks_carry_noise_of_their_own(vla: Make, vla_observation: Observe) -> None:
    policy, observation = vla("smolvla", action_width=5, state_width=6), vla_observation(2)
    with torch.no_grad():
        condition = policy.encode(observation)
        full = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
        drawn = policy.draw_normalized(condition, (2, 8, 2), FlowEuler(steps=1), noise=full)
        expected = full - policy._velocity(full, torch.ones(()), condition)
        assert policy.predict_velocity(chunks(), torch.tensor(0.5), condition).shape == (2, 8, 2)
    torch.testing.assert_close(drawn, expected[..., :2])
    first, again = policy.sample(observation), policy.sample(observation)
    assert torch.equal(first, again)


def test_a_guide_leaves_what_only_the_network_sees_alone(vla: Make, vla_observation: Observe) -> None:
    policy, observation = vla("smolvla", action_width=5, state_width=6), vla_observation(2)
    guide = ChunkGuide(previous=torch.zeros(2, 8, 2), delay=2, end=6, beta=1e-9)
    torch.testing.assert_close(policy.sample(observation, guide=guide), policy.sample(observation))
    firm = policy.sample(observation, guide=replace(guide, beta=10.0))
    assert firm[:, 0, :2].abs().max() < policy.sample(observation)[:, 0, :2].abs().max()


def test_committed_actions_start_every_chunk(vla: Make, vla_observation: Observe) -> None:
    for changes in ({}, {"action_width": 5}):
        policy = vla("pi0", **changes)
        prefix = torch.randn(2, 3, 2)
        drawn = policy.sample(vla_observation(), samples=2, prefix=prefix)
        assert torch.equal(drawn[:, :, :3], prefix[:, None].expand(-1, 2, -1, -1))


def batch_of(observation: dict[str, Any]) -> Batch:
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[:, 6:] = False
    return Batch(observation, torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(5)), mask)


@EVERY
def test_every_weight_that_is_read_learns(kind: str, vla: Make, vla_observation: Observe) -> None:
    policy = vla(kind)
    loss = policy(batch_of(vla_observation()), torch.Generator().manual_seed(0))
    loss.backward()
    still = [
        n for n, p in policy.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert still == []
    assert policy.config.streams.layers == 2
    assert not policy.streams.prefix[-1].q.weight.requires_grad  # pyright: ignore


def test_a_frozen_prefix_leaves_expert_and_projections_to_learn(vla: Make, vla_observation: Observe) -> None:
    policy = vla("smolvla", frozen=True)
    policy(batch_of(vla_observation()), torch.Generator().manual_seed(0)).backward()
    learning = {n.split(".")[0] for n, p in policy.named_parameters() if p.grad is not None}
    assert learning == {"state", "expert", "streams"}
    assert all("streams.prefix" not in n for n, p in policy.named_parameters() if p.grad is not None)


def test_repeated_actions_can_be_left_out_of_the_loss(vla: Make, vla_observation: Observe) -> None:
    batch = batch_of(vla_observation())
    changed = replace(batch, action=batch.action.clone())
    changed.action[:, 6:] += 3.0
    for masked in (True, False):
        policy = vla("smolvla", mask_loss=masked)  # later actions do not reach earlier ones there
        losses = [policy(b, torch.Generator().manual_seed(0)).item() for b in (batch, changed)]
        assert (losses[0] == pytest.approx(losses[1], rel=1e-6)) is masked


def test_noise_on_observations_is_only_for_training(vla: Make, vla_observation: Observe) -> None:
    noisy, plain = vla("pi0", observation_noise=0.5), vla("pi0")
    assert torch.equal(noisy.sample(vla_observation()), plain.sample(vla_observation()))
    batch = batch_of(vla_observation())
    losses = [p(batch, torch.Generator().manual_seed(0)).item() for p in (noisy, plain)]
    assert losses[0] != losses[1]


@EVERY
def test_a_loaded_policy_is_the_saved_one(
    kind: str, vla: Make, vla_observation: Observe, tmp_path: Path
) -> None:
    policy = vla(kind)
    save_checkpoint(tmp_path / "p", lambda f: describe(policy, f), lambda f: save_weights(policy, f / MODEL))
    again = load(tmp_path / "p")
    assert again.config == policy.config
    assert torch.equal(again.sample(vla_observation()), policy.sample(vla_observation()))


def test_one_picture_more_is_one_camera_more(vla_config: Callable[..., VLAConfig]) -> None:
    config = vla_config("pi0")
    field = Field(shape=(20, 40, 3), dtype="uint8")
    spec = Spec(
        observation={"image.a": field, "image.b": field, "instruction": Field(shape=(), dtype="str")},
        action=Field(shape=(2,)),
        control_hz=10,
        observation_steps=2,
        horizon=8,
    )
    unit = Normalizer({"action": (torch.zeros(2), torch.ones(2))})
    policy = build_policy(config, spec, unit)
    images = torch.randint(0, 255, (1, 2, 20, 40, 3), dtype=torch.uint8)
    condition = policy.encode({"image.a": images, "image.b": images, "instruction": ["go to"]})  # pyright: ignore
    assert condition.cache[0][0].shape[2] == 2 * 2 * 16 + 2


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"state": Field(shape=(2,))}, "images, an instruction or both"),
        ({"a": Field(shape=(), dtype="str"), "b": Field(shape=(), dtype="str")}, "one text"),
        ({"image.top": Field(shape=(8, 8, 3))}, "is float32.*cameras give uint8"),
        ({"image.top": Field(shape=(8, 8, 1), dtype="uint8")}, r"cameras give uint8 \(height, width, 3\)"),
    ],
)
def test_specs_it_cannot_read_are_refused(observation: dict[str, Field], message: str) -> None:
    spec = Spec(observation=observation, action=Field(shape=(2,)), control_hz=10)
    with pytest.raises(SpecError, match=message):
        build_policy(VLAConfig(), spec, Normalizer({"action": (torch.zeros(2), torch.ones(2))}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": "causal"}, "unknown mask"),
        ({"state": "middle"}, "allowed: prefix, suffix, text"),
        ({"fusion": "film"}, "unknown fusion"),
        ({"observation_noise": -1.0}, "observation_noise"),
        ({"state": "text", "text": WordsConfig(words=("go",))}, "list of words cannot hold"),
        ({"state": "text", "octaves": 2}, "octaves=0"),
        ({"octaves": -1}, r"octaves must lie in 0\.\.16, got -1"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VLAConfig(**wrong)


def test_a_state_in_words_needs_an_instruction(vla_config: Callable[..., VLAConfig]) -> None:
    config = vla_config("pi05")
    spec = Spec(
        observation={"state": Field(shape=(2,)), "image.top": Field(shape=(32, 32, 3), dtype="uint8")},
        action=Field(shape=(2,)),
        control_hz=10,
    )
    with pytest.raises(SpecError, match=r"state=text .* hold none"):
        build_policy(config, spec, Normalizer({"action": (torch.zeros(2), torch.ones(2))}))


def test_a_state_in_words_is_never_cut_off(vla: Make, vla_observation: Observe) -> None:
    """The prompt begins with 41 bytes: "Task: push the T to the left goal, State:"."""
    policy = vla("pi05", text=BytesConfig(length=40))
    with pytest.raises(SpecError, match=r"'Task: push .*' fills all 40 tokens"):
        policy.sample(vla_observation(1))


def test_a_network_too_narrow_for_the_robot_is_refused(vla: Make) -> None:
    with pytest.raises(SpecError, match="action_width 1 is too narrow"):
        vla("pi0", action_width=1)
    with pytest.raises(SpecError, match="state_width 1 is too narrow"):
        vla("pi0", state_width=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [("go", "list of strings"), ([1, 2], "list of strings"), (["one"], "batch size 1")],
)
def test_instructions_that_do_not_fit_are_refused(
    value: Any, message: str, vla: Make, vla_observation: Observe
) -> None:
    with pytest.raises(SpecError, match=message):
        vla("pi0").sample({**vla_observation(2), "instruction": value})


def test_pictures_of_another_kind_are_refused(vla: Make, vla_observation: Observe) -> None:
    observation = vla_observation(1)
    with pytest.raises(SpecError, match=r"'image.top' holds torch.float32; frames are uint8"):
        vla("pi0").sample({**observation, "image.top": observation["image.top"].float()})
