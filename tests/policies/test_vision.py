"""Policies that see: several cameras, one encoding, views of training windows, and everything saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes, concatenate
from sensorimotor.data.errors import ConfigError, SpecError
from sensorimotor.data.lazy import LazyArray, as_array
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch, Windows, split_episodes
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.crop import View
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.nearest import NearestConfig
from sensorimotor.policies.network import NetworkConfig, NetworkPolicy
from sensorimotor.policies.pooling import GlobalAverage, SpatialSoftmax
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.resnet import ResNetConfig
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.policies.vision import VisionConfig, VisionEncoder
from sensorimotor.policies.vit import ViTConfig
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import train

CHUNK = ChunkConfig(
    observation=("state", "image.left", "image.right"), observation_steps=2, horizon=4, execute=2
)
VISION = VisionConfig(
    encoder=ResNetConfig(width=4, blocks=(1,)), pooling=SpatialSoftmax(keypoints=3), crop=0.75, features=5
)
SMALL = MLPConfig(width=16, depth=1, step_width=8)
CONFIG = FlowConfig(chunk=CHUNK, trunk=SMALL, vision=VISION, sampler=FlowEuler(steps=5))
SIDE = 16


@pytest.fixture
def recorded(make_episodes: Callable) -> Episodes:
    return make_episodes(steps=(7, 5), widths={"state": 2}, cameras={"image.left": SIDE, "image.right": SIDE})


def build(config: NetworkConfig, episodes: Episodes) -> NetworkPolicy:
    policy = make_policy(config, episodes)  # pyright: ignore[reportArgumentType]
    assert isinstance(policy, NetworkPolicy)
    return policy


def windows(policy: NetworkPolicy, episodes: Episodes) -> Batch:
    return Windows(episodes, policy.spec).batch(np.arange(episodes.steps))


def encoder(config: VisionConfig, episodes: Episodes) -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(config, episodes.spec)


def frames(episodes: Episodes, count: int = 4) -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(value[:count])[:, None].clone()
        for key, value in episodes.observation.items()
        if key.startswith("image.")
    }


@pytest.mark.parametrize("kind", [FlowConfig, DiffusionConfig, RegressorConfig])
def test_every_family_reads_cameras_that_the_chunk_names(recorded: Episodes, kind: type) -> None:
    policy = build(kind(chunk=CHUNK, trunk=SMALL, vision=VISION), recorded)
    batch = windows(policy, recorded)
    assert policy.encode(batch.observation).values.shape == (12, 2, 2 + 2 * 5)
    loss = policy(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.encoder.parameters())
    assert policy.sample(batch.observation, samples=3).shape == (12, 3, 4, 2)


def test_cameras_alone_are_enough(recorded: Episodes) -> None:
    policy = build(replace(CONFIG, chunk=replace(CHUNK, observation=("image.left",))), recorded)
    assert policy.encode(windows(policy, recorded).observation).values.shape == (12, 2, 5)


def test_samples_share_one_encoding(recorded: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = build(CONFIG, recorded)
    seen: list[int] = []
    vision = policy.encoder.vision
    assert vision is not None
    inner = vision.forward
    monkeypatch.setattr(
        vision, "forward", lambda o, v=None: (seen.append(len(o["image.left"])), inner(o, v))[1]
    )
    policy.sample(windows(policy, recorded).observation, samples=6)
    assert seen == [12]


def test_draws_share_one_encoding_and_their_loss_is_the_mean(
    recorded: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build(replace(CONFIG, draws=3, mask_loss=True), recorded)
    batch = windows(policy, recorded)
    target, condition = policy.training_pair(batch, torch.Generator().manual_seed(0))
    assert target.shape == (36, 4, 2)
    assert torch.equal(condition.values[0], condition.values[2])
    error = torch.rand(36, 4, 2, generator=torch.Generator().manual_seed(0))
    mask = batch.mask.repeat_interleave(3, dim=0)
    torch.testing.assert_close(policy.reduce(error, batch.mask), error[mask].mean())


def test_encoding_is_the_same_every_time_while_training_windows_are_seen_anew(recorded: Episodes) -> None:
    policy = build(replace(CONFIG, vision=replace(VISION, jitter=0.3)), recorded)
    batch = windows(policy, recorded)
    clean = policy.encode(batch.observation).values
    assert torch.equal(policy.encode(batch.observation).values, clean)
    seen = [policy.training_pair(batch, torch.Generator().manual_seed(seed))[1].values for seed in (0, 0, 1)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0][..., :2], clean[..., :2])  # numbers are as they were


def test_without_crop_and_jitter_training_sees_what_acting_sees(recorded: Episodes) -> None:
    policy = build(replace(CONFIG, vision=replace(VISION, crop=1.0)), recorded)
    batch = windows(policy, recorded)
    seen = policy.training_pair(batch, torch.Generator().manual_seed(0))[1].values
    torch.testing.assert_close(seen, policy.encode(batch.observation).values)


def test_an_untouched_view_is_the_centre(recorded: Episodes) -> None:
    eyes = encoder(VISION, recorded)
    seen = frames(recorded)
    view = View(torch.full((4, 2), 2))  # 12 of 16 px
    torch.testing.assert_close(eyes(seen, dict.fromkeys(seen, view)), eyes(seen))


def test_history_dropout_also_forgets_older_frames(recorded: Episodes) -> None:
    policy = build(replace(CONFIG, history_dropout=1.0, vision=replace(VISION, crop=1.0)), recorded)
    values = policy.training_pair(windows(policy, recorded), torch.Generator().manual_seed(0))[1].values
    torch.testing.assert_close(values[:, 0], values[:, 1])


def test_a_shared_encoder_sees_cameras_alike_and_keeps_their_order(recorded: Episodes) -> None:
    eyes = encoder(replace(VISION, shared=True), recorded)
    seen = frames(recorded)
    swapped = {"image.left": seen["image.right"], "image.right": seen["image.left"]}
    left, right = eyes(seen).chunk(2, dim=-1)
    torch.testing.assert_close(eyes(swapped), torch.cat([right, left], dim=-1))
    assert sum(p.numel() for p in eyes.parameters()) * 2 == sum(
        p.numel() for p in encoder(VISION, recorded).parameters()
    )


def test_each_camera_changes_its_own_features_only(recorded: Episodes) -> None:
    eyes = encoder(VISION, recorded)
    seen = frames(recorded)
    before = eyes(seen)
    after = eyes({**seen, "image.right": 255 - seen["image.right"]})
    assert torch.equal(after[..., :5], before[..., :5])
    assert not torch.equal(after[..., 5:], before[..., 5:])


def test_keypoints_are_places_of_the_frame_whatever_the_crop() -> None:
    """A map with one bright spot, seen through two crops: the encoder is a plain reading of brightness."""
    spec = Field(shape=(32, 32, 3), dtype="uint8")
    config = VisionConfig(encoder=ResNetConfig(width=4, blocks=(1,)), crop=0.5, features=0)
    eyes = VisionEncoder(config, Spec(observation={"image.a": spec}, action=Field(shape=(1,)), control_hz=1))
    eye = eyes._eye(0)
    eye.encoder = torch.nn.Identity()
    eye.keypoints = type(eye.keypoints)(SpatialSoftmax(keypoints=1), 3)  # pyright: ignore
    assert eye.keypoints is not None
    torch.nn.init.constant_(eye.keypoints.scores.weight, 100.0)
    image = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8)
    image[0, 0, 14, 18] = 255
    expected = torch.tensor([[[18 / 31 * 2 - 1, 14 / 31 * 2 - 1]]])
    for corner in ([8, 8], [3, 5], [14, 16]):
        seen = eyes({"image.a": image}, {"image.a": View(torch.tensor([corner]))})
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": ViTConfig(patch=4, width=16, layers=1, heads=2)},
        {"pooling": GlobalAverage()},
        {"features": 0},
        {"shared": True},
    ],
)
def test_a_seeing_policy_is_loaded_as_it_was_saved(recorded: Episodes, tmp_path: Path, change: dict) -> None:
    policy = build(replace(CONFIG, vision=replace(VISION, **change)), recorded)
    save_checkpoint(
        tmp_path / "saved",
        lambda where: describe(policy, where),
        lambda where: save_weights(policy, where / MODEL),
    )
    loaded = load(tmp_path / "saved")
    assert loaded.config == policy.config
    observation = windows(policy, recorded).observation
    assert torch.equal(loaded.sample(observation), policy.sample(observation))


def test_what_is_averaged_while_training_can_see(recorded: Episodes, tmp_path: Path) -> None:
    policy = build(CONFIG, recorded)
    config = TrainingConfig(steps=3, batch_size=4, warmup_steps=1, tensorboard=False, threads=1, device="cpu")
    outcome = train(
        policy, Windows(recorded, policy.spec), config, tmp_path, describe=lambda w: describe(policy, w)
    )
    assert outcome.steps == 3
    averaged = load(tmp_path)
    assert averaged.sample(windows(policy, recorded).observation).isfinite().all()


class Unread(LazyArray):
    """Frames that must not be needed."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        raise AssertionError(f"rows {rows} were read")


@pytest.mark.parametrize("relative", [None, "state"])
def test_fitting_a_policy_reads_no_frame(recorded: Episodes, relative: str | None) -> None:
    frames = {
        key: as_array(Unread(value.shape, value.dtype)) if key.startswith("image.") else value
        for key, value in recorded.observation.items()
    }
    unread = replace(recorded, observation=frames)
    unread.check_finite()
    training, held_out = split_episodes(unread, held_out=0.5, generator=np.random.default_rng(0))
    assert held_out is not None
    policy = build(replace(CONFIG, relative=relative), concatenate([training, held_out]))
    with pytest.raises(AssertionError, match="were read"):
        windows(policy, unread)


def test_policies_that_do_not_see_are_as_they_were(recorded: Episodes, make_episodes: Callable) -> None:
    blind = build(replace(CONFIG, chunk=replace(CHUNK, observation=("state",))), recorded)
    unseen = make_episodes(steps=(7, 5), widths={"state": 2})
    plain = build(replace(CONFIG, chunk=replace(CHUNK, observation=("state",))), unseen)
    assert list(blind.state_dict()) == list(plain.state_dict())
    observation = windows(blind, recorded).observation
    assert torch.equal(blind.sample(observation), plain.sample(observation))


def test_frames_must_be_what_cameras_give(recorded: Episodes) -> None:
    policy = build(CONFIG, recorded)
    observation = windows(policy, recorded).observation
    with pytest.raises(SpecError, match=r"'image.left' holds torch.float32; frames are uint8"):
        policy.sample({**observation, "image.left": observation["image.left"] / 255})
    with pytest.raises(SpecError, match=r"'image.left' has shape \(12, 2, 3, 16, 16\)"):
        policy.sample({**observation, "image.left": observation["image.left"].permute(0, 1, 4, 2, 3)})


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8), "uint8"), ((8, 8, 4), "uint8"), ((8, 8, 3), "float32")]
)
def test_only_colour_images_are_cameras(recorded: Episodes, shape: tuple[int, ...], dtype: str) -> None:
    odd = Field(shape=shape, dtype=dtype)
    spec = replace(recorded.spec, observation={"image.odd": odd})
    with pytest.raises(SpecError, match=r"'image.odd' is .*; cameras give uint8 \(height, width, 3\)"):
        VisionEncoder(VISION, spec)


def test_cameras_of_different_sizes_cannot_share(recorded: Episodes) -> None:
    wide = Field(shape=(16, 24, 3), dtype="uint8")
    spec = replace(recorded.spec, observation={**recorded.spec.observation, "image.right": wide})
    assert VisionEncoder(VISION, spec).width == 10
    with pytest.raises(SpecError, match=r"one size, got .*vision\.shared=false"):
        VisionEncoder(replace(VISION, shared=True), spec)


def test_the_nearest_neighbour_says_that_it_cannot_see(recorded: Episodes) -> None:
    with pytest.raises(SpecError, match=r"'image.left' is an image, which this policy cannot read"):
        make_policy(NearestConfig(chunk=CHUNK), recorded)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": 0.0}, r"crop must lie in \(0, 1\], got 0.0"),
        ({"crop": 76}, "crop must lie in"),
        ({"features": -1}, "features must be at least 0"),
        ({"jitter": 1.0}, "jitter must lie in"),
    ],
)
def test_impossible_values_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VisionConfig(**wrong)


def test_a_regressor_that_is_compared_sees_alike_and_draws_nothing() -> None:
    baseline = RegressorConfig.like(replace(CONFIG, draws=4))
    assert (baseline.vision, baseline.draws) == (VISION, 1)


def test_no_draws_are_refused() -> None:
    with pytest.raises(ConfigError, match="draws must be at least 1, got 0"):
        FlowConfig(draws=0)
