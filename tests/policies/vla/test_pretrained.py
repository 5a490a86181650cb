"""Folders in the layout of the published policies, small and random; and LeRobot's own answers for some of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sensorimotor.data.errors import CheckpointError, ConfigError, NormalizerError, SpecError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.factory import describe, load
from sensorimotor.policies.vla.pi0 import load_pi0
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.smolvla import load_smolvla
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights

GENERATOR = torch.Generator()
VLM, PALI = "model.vlm_with_expert.vlm", "model.paligemma_with_expert.paligemma"


def tensor(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR) * 0.2


def vision(stem: str, *, width: int, hidden: int, layers: int, patch: int, patches: int) -> dict[str, Tensor]:
    made = {
        f"{stem}.embeddings.patch_embedding.weight": tensor(width, 3, patch, patch),
        f"{stem}.embeddings.patch_embedding.bias": tensor(width),
        f"{stem}.embeddings.position_embedding.weight": tensor(patches, width),
        f"{stem}.post_layernorm.weight": 1 + tensor(width),
        f"{stem}.post_layernorm.bias": tensor(width),
    }
    for i in range(layers):
        layer = f"{stem}.encoder.layers.{i}"
        shapes = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        shapes |= {f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
        shapes |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        for name, shape in shapes.items():
            made |= {f"{layer}.{name}.weight": tensor(*shape), f"{layer}.{name}.bias": tensor(shape[0])}
    return made


def stream(
    stem: str, *, width: int, hidden: int, layers: int, heads: int, groups: int, reads: Callable[[int], int]
) -> dict[str, Tensor]:
    made = {f"{stem}.norm.weight": tensor(width)}
    for i in range(layers):
        layer = f"{stem}.layers.{i}"
        shapes = {"self_attn.q_proj": (heads, width), "self_attn.o_proj": (width, heads)}
        shapes |= {f"self_attn.{part}_proj": (groups, reads(i)) for part in "kv"}
        shapes |= {f"mlp.{part}_proj": (hidden, width) for part in ("gate", "up")}
        shapes |= {"mlp.down_proj": (width, hidden)}
        shapes |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
        made |= {f"{layer}.{name}.weight": tensor(*shape) for name, shape in shapes.items()}
    return made


def projections(state: int, width: int) -> dict[str, Tensor]:
    shapes = {"state_proj": (state, 32), "action_in_proj": (width, 32), "action_out_proj": (32, width)}
    shapes |= {"action_time_mlp_in": (width, 2 * width), "action_time_mlp_out": (width, width)}
    made = {f"model.{name}.weight": tensor(*shape) for name, shape in shapes.items()}
    return made | {f"model.{name}.bias": tensor(shape[0]) for name, shape in shapes.items()}


def smolvla_weights() -> dict[str, Tensor]:
    GENERATOR.manual_seed(0)
    text, expert = f"{VLM}.model.text_model", "model.vlm_with_expert.lm_expert"
    return {
        **vision(f"{VLM}.model.vision_model", width=12, hidden=20, layers=2, patch=4, patches=16),
        f"{VLM}.model.connector.modality_projection.proj.weight": tensor(24, 48),
        f"{text}.embed_tokens.weight": tensor(30, 24),
        **stream(text, width=24, hidden=28, layers=4, heads=24, groups=8, reads=lambda i: 24),
        **stream(
            expert, width=18, hidden=22, layers=4, heads=24, groups=8, reads=lambda i: 8 if i % 2 else 18
        ),
        f"{VLM}.lm_head.weight": tensor(30, 24),
        **projections(24, 18),
    }


def pi0_weights() -> dict[str, Tensor]:
    GENERATOR.manual_seed(1)
    expert = "model.paligemma_with_expert.gemma_expert"
    tower = f"{PALI}.model.vision_tower.vision_model"
    text = f"{PALI}.model.language_model"
    return {
        **vision(tower, width=32, hidden=20, layers=2, patch=7, patches=16),
        f"{PALI}.model.multi_modal_projector.linear.weight": tensor(24, 32),
        f"{PALI}.model.multi_modal_projector.linear.bias": tensor(24),
        f"{PALI}.lm_head.weight": tensor(30, 24),
        **stream(text, width=24, hidden=28, layers=3, heads=32, groups=4, reads=lambda i: 24),
        **stream(f"{expert}.model", width=16, hidden=22, layers=3, heads=32, groups=4, reads=lambda i: 16),
        f"{expert}.lm_head.weight": tensor(30, 16),
        **projections(16, 16),
    }


def features() -> dict[str, Any]:
    return {
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [6]},
            "observation.images.top": {"type": "VISUAL", "shape": [3, 24, 40]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [5]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        "chunk_size": 6,
        "n_action_steps": 4,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "tokenizer_max_length": 8,
    }


def smolvla_values() -> dict[str, Any]:
    own = {
        "type": "smolvla",
        "resize_imgs_with_padding": [16, 16],
        "num_steps": 3,
        "pad_language_to": "max_length",
    }
    return (
        features()
        | own
        | {"attention_mode": "cross_attn", "self_attn_every_n_layers": 2, "num_vlm_layers": 4}
    )


def pi0_values() -> dict[str, Any]:
    return features() | {"type": "pi0", "image_resolution": [28, 28], "num_inference_steps": 3}


def write(folder: Path, values: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")
    step = {"registry_name": "normalizer_processor", "state_file": "step_5.safetensors"}
    (folder / "policy_preprocessor.json").write_text(json.dumps({"steps": [{"registry_name": "x"}, step]}))
    numbers = {"observation.state": 6, "action": 5}
    found = {f"{key}.mean": torch.arange(float(n)) for key, n in numbers.items()}
    save_file(
        found | {f"{key}.std": torch.full((n,), 2.0) for key, n in numbers.items()},
        folder / "step_5.safetensors",
    )
    vlm = folder.parent / "vlm"
    vlm.mkdir(exist_ok=True)
    text = {"num_attention_heads": 6, "head_dim": 4, "rms_norm_eps": 1e-5}
    (vlm / "config.json").write_text(
        json.dumps({"text_config": text, "vision_config": {"num_attention_heads": 3}, "scale_factor": 2})
    )
    return folder


class Letters:
    """Stands in for a tokenizer of the transformers library."""

    vocabulary = 30

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(c) % 30 for c in text[:6]] for text in texts]


def open_policy(kind: str, folder: Path, **options: Any) -> VLAPolicy:
    if kind == "smolvla":
        policy = load_smolvla(folder, vlm=folder.parent / "vlm", **options)
    else:
        policy = load_pi0(folder, tokenizer=folder.parent / "vlm", **options)
    policy.tokenizer = Letters()
    return policy


CASES = {"smolvla": (smolvla_values, smolvla_weights), "pi0": (pi0_values, pi0_weights)}
BOTH = pytest.mark.parametrize("kind", ["smolvla", "pi0"])


def make(kind: str, tmp_path: Path) -> Path:
    values, weights = CASES[kind]
    return write(tmp_path / "model", values(), weights())


def observe(rows: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "state": torch.randn(rows, 1, 6, generator=generator),
        "image.top": torch.randint(0, 256, (rows, 1, 24, 40, 3), generator=generator, dtype=torch.uint8),
        "instruction": ["left", "to the right"][:rows],
    }


@BOTH
def test_the_folder_says_everything_but_the_rate(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path)
    with pytest.raises(ConfigError, match="give control_hz"):
        open_policy(kind, folder)
    policy = open_policy(kind, folder, control_hz=30)
    assert list(policy.spec.observation) == ["state", "image.top", "instruction"]
    assert policy.spec.observation["image.top"] == Field(shape=(24, 40, 3), dtype="uint8")
    assert (policy.spec.horizon, policy.spec.execute, policy.spec.control_hz) == (6, 4, 30)
    offset, scale = policy.normalizer.affine("action")
    assert offset.tolist() == [0, 1, 2, 3, 4]
    assert scale.tolist() == [2.0] * 5
    chunk = policy.sample(observe(), samples=3)
    assert chunk.shape == (2, 3, 6, 5)
    assert chunk.isfinite().all()


def test_the_published_layout_is_recognised_from_weights_and_config(tmp_path: Path) -> None:
    small = open_policy("smolvla", make("smolvla", tmp_path), control_hz=30).config
    assert (small.mask, small.state, small.fusion) == ("smolvla", "prefix", "concat")
    assert (small.vision.padding, small.vision.shuffle, small.vision.heads) == ("left_top", 2, 3)  # pyright: ignore
    streams = small.streams
    assert (streams.layers, streams.heads, streams.groups, streams.head_width) == (4, 6, 2, 4)
    assert (streams.joint_every, streams.activation, streams.norm_offset) == (2, "silu", 0.0)
    (tmp_path / "b").mkdir()
    big = open_policy("pi0", make("pi0", tmp_path / "b"), control_hz=30).config
    assert (big.mask, big.state, big.fusion, big.scaled_text) == ("pi0", "suffix", "concat", True)
    assert (big.streams.heads, big.streams.groups, big.streams.head_width) == (8, 1, 4)
    assert (big.streams.joint_every, big.streams.activation, big.streams.norm_offset) == (1, "gelu", 1.0)
    assert (big.vision.padding, big.vision.scaled) == ("both", False)  # pyright: ignore


@BOTH
def test_every_weight_lands_where_its_name_says(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path)
    policy, stored = open_policy(kind, folder, control_hz=30), CASES[kind][1]()
    own = {n: t for n, t in policy.state_dict().items() if not n.startswith("normalizer")}
    used = [
        name
        for name, value in stored.items()
        if any(t.shape == value.shape and torch.equal(t, value) for t in own.values())
    ]
    unused = sorted(name.split(".")[-2] for name in set(stored) - set(used))
    assert unused == ["lm_head", "norm"]  # pi0 has another head, which is the embedding too
    assert len(own) == len(used)
    stem = f"{VLM}.model.text_model" if kind == "smolvla" else f"{PALI}.model.language_model"
    assert torch.equal(own["streams.prefix.1.k.weight"], stored[f"{stem}.layers.1.self_attn.k_proj.weight"])
    assert torch.equal(own["state.bias"], stored["model.state_proj.bias"])


@BOTH
def test_a_weight_too_few_or_too_many_is_listed(kind: str, tmp_path: Path) -> None:
    folder, weights = make(kind, tmp_path), CASES[kind][1]()
    lost = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    extra = {**weights, "model.odd.weight": torch.zeros(1)}
    del extra[lost]
    save_file(extra, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"missing 1: .*layers.1.mlp.up_proj.weight; unexpected 1: odd.weight"
    ):
        open_policy(kind, folder, control_hz=30)
    save_file({**weights, lost: torch.zeros(1, 2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"other shapes .*\(1, 2\) for"):
        open_policy(kind, folder, control_hz=30)


@BOTH
def test_a_missing_camera_is_left_out(kind: str, tmp_path: Path) -> None:
    values, weights = CASES[kind][0](), CASES[kind][1]()
    values["input_features"]["observation.images.wrist"] = {"type": "VISUAL", "shape": [3, 24, 40]}
    folder = write(tmp_path / "model", values, weights)
    both = open_policy(kind, folder, control_hz=30)
    kept = tuple(key for key in both.spec.observation if key != "image.wrist")
    one = open_policy(kind, folder, spec=both.spec.keep(kept))
    observation = observe()
    assert one.sample(observation).isfinite().all()
    seen = {**observation, "image.wrist": observation["image.top"]}
    lengths = [p.encode(o).cache[0][0].shape[2] for p, o in ((both, seen), (one, observation))]
    assert lengths[0] == lengths[1] + both.vision.tokens  # pyright: ignore[reportOptionalMemberAccess]


@BOTH
def test_what_was_read_can_be_saved_as_a_policy_of_ours(kind: str, tmp_path: Path) -> None:
    policy = open_policy(kind, make(kind, tmp_path), control_hz=30)
    save_checkpoint(
        tmp_path / "ours", lambda f: describe(policy, f), lambda f: save_weights(policy, f / MODEL)
    )
    again = load(tmp_path / "ours")
    assert isinstance(again, VLAPolicy)
    again.tokenizer = Letters()
    torch.testing.assert_close(again.sample(observe()), policy.sample(observe()), atol=1e-4, rtol=0)


def test_statistics_among_older_weights_are_found(tmp_path: Path) -> None:
    weights = smolvla_weights()
    weights |= {
        "normalize_inputs.buffer_observation_state.mean": torch.full((6,), 3.0),
        "normalize_inputs.buffer_observation_state.std": torch.ones(6),
        "unnormalize_outputs.buffer_action.mean": torch.full((5,), 4.0),
        "unnormalize_outputs.buffer_action.std": torch.ones(5),
    }
    folder = write(tmp_path / "model", smolvla_values(), weights)
    (folder / "policy_preprocessor.json").unlink()
    policy = open_policy("smolvla", folder, control_hz=30)
    assert policy.normalizer.affine("state")[0].tolist() == [3.0] * 6
    assert policy.normalizer.affine("action")[0].tolist() == [4.0] * 5


@pytest.mark.parametrize(
    ("mode", "scaled"),
    [("MEAN_STD", 4.0), ("MIN_MAX", 0.5), ("QUANTILES", 0.75), ("IDENTITY", 3.0)],
)
def test_numbers_are_scaled_as_the_configuration_says(mode: str, scaled: float, tmp_path: Path) -> None:
    """x = 3 with mean 1, deviation 0.5, between -1 and 13 / 3, 98 % of it between 0.5 and 47 / 14."""
    values = smolvla_values()
    values["normalization_mapping"] = {"STATE": mode, "ACTION": mode}
    folder = write(tmp_path / "model", values, smolvla_weights())
    numbers = {"mean": 1.0, "std": 0.5, "min": -1.0, "max": 13 / 3, "q01": 0.5, "q99": 47 / 14}
    found = {
        f"{key}.{name}": torch.full((width,), value)
        for key, width in (("observation.state", 6), ("action", 5))
        for name, value in numbers.items()
    }
    save_file(found, folder / "step_5.safetensors")
    policy = open_policy("smolvla", folder, control_hz=30)
    expected = torch.full((1, 1, 5), scaled)
    torch.testing.assert_close(policy.normalizer.normalize("action", torch.full((1, 1, 5), 3.0)), expected)
    torch.testing.assert_close(
        policy.normalizer.normalize("state", torch.full((1, 6), 3.0)), expected[0, :, :1].expand(1, 6)
    )


def test_unknown_scalings_are_refused(tmp_path: Path) -> None:
    values = smolvla_values()
    values["normalization_mapping"]["ACTION"] = "MEDIAN"
    with pytest.raises(NormalizerError, match="'MEDIAN' is not known; MEAN_STD, MIN_MAX"):
        open_policy("smolvla", write(tmp_path / "model", values, smolvla_weights()), control_hz=30)


@BOTH
def test_without_statistics_they_are_asked_for(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path)
    (folder / "policy_preprocessor.json").unlink()
    with pytest.raises(NormalizerError, match="pass them as normalizer="):
        open_policy(kind, folder, control_hz=30)
    unit = {"state": (torch.zeros(6), torch.ones(6)), "action": (torch.zeros(5), torch.ones(5))}
    assert (
        open_policy(kind, folder, control_hz=30, normalizer=Normalizer(unit))
        .sample(observe())
        .isfinite()
        .all()
    )


def test_older_spellings_of_names_are_understood(tmp_path: Path) -> None:
    weights = pi0_weights()
    old = {
        name.replace(f"{PALI}.model.vision_tower", f"{PALI}.vision_tower")
        .replace(f"{PALI}.model.multi_modal", f"{PALI}.multi_modal")
        .replace(f"{PALI}.model.language_model.", f"{PALI}.language_model.model.")
        .replace(f"{PALI}.lm_head", f"{PALI}.language_model.lm_head")
        .removeprefix("model."): value
        for name, value in weights.items()
    }
    now = open_policy("pi0", make("pi0", tmp_path), control_hz=30)
    (tmp_path / "b").mkdir()
    then = open_policy("pi0", write(tmp_path / "b" / "model", pi0_values(), old), control_hz=30)
    assert torch.equal(now.sample(observe()), then.sample(observe()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "act"}, "type 'act', not 'smolvla'"),
        ({"add_image_special_tokens": True}, "add_image_special_tokens=True is not supported"),
        ({"attention_mode": "other"}, "attention_mode='other'"),
        ({"resize_imgs_with_padding": [32, 32]}, "must be the 16 px"),
    ],
)
def test_variants_that_are_not_built_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", smolvla_values() | changes, smolvla_weights())
    with pytest.raises(ConfigError, match=message):
        open_policy("smolvla", folder, control_hz=30)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    folder = make("smolvla", tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_policy("smolvla", folder, control_hz=30)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_policy("smolvla", folder, control_hz=30)


@BOTH
@pytest.mark.parametrize("name", ["input_features", "output_features", "chunk_size", "n_action_steps"])
def test_what_a_configuration_does_not_say_is_named(kind: str, name: str, tmp_path: Path) -> None:
    values = {key: value for key, value in CASES[kind][0]().items() if key != name}
    folder = write(tmp_path / "model", values, CASES[kind][1]())
    with pytest.raises(CheckpointError, match=rf"config\.json does not say {name}"):
        open_policy(kind, folder, control_hz=30)


def test_statistics_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = make("smolvla", tmp_path)
    (folder / "step_5.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"cannot read .*step_5\.safetensors"):
        open_policy("smolvla", folder, control_hz=30)
    (folder / "step_5.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*step_5\.safetensors"):
        open_policy("smolvla", folder, control_hz=30)


@BOTH
@pytest.mark.parametrize(
    ("lacking", "message"),
    [("state", "no numbers"), ("image.top", "no image"), ("instruction", "no instruction")],
)
def test_a_robot_without_what_the_policy_reads_is_refused(
    kind: str, lacking: str, message: str, tmp_path: Path
) -> None:
    folder = make(kind, tmp_path)
    spec = open_policy(kind, folder, control_hz=30).spec
    kept = tuple(key for key in spec.observation if key != lacking)
    with pytest.raises(SpecError, match=message):
        open_policy(kind, folder, spec=spec.keep(kept))


# pi0 needs the transformers that its LeRobot release asks for: openpi's changes on top of 4.53.
@pytest.mark.parametrize(
    ("kind", "variable"),
    [("smolvla", "SENSORIMOTOR_LEROBOT_PYTHON"), ("pi0", "SENSORIMOTOR_LEROBOT_PI0_PYTHON")],
)
def test_lerobot_computes_the_same(kind: str, variable: str, tmp_path: Path) -> None:
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"set {variable} to a Python that has lerobot 0.4 and its extra {kind}")
    script = Path(__file__).with_name("lerobot_reference.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.environ.get(f"{variable}PATH", "")
    done = subprocess.run(
        [*python.split(), str(script), str(tmp_path), kind],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    case = load_file(tmp_path / "case.safetensors")
    model, vlm = tmp_path / "model", tmp_path / "vlm"
    if kind == "smolvla":
        policy = load_smolvla(model, vlm=vlm, control_hz=10)
    else:
        policy = load_pi0(model, tokenizer=vlm, control_hz=10)
    observation: dict[str, Any] = {
        f"image.{camera}": case[f"observation.images.{camera}"][:, None] for camera in ("top", "wrist")
    }
    observation["state"] = case["state"][:, None]
    observation["instruction"] = json.loads((tmp_path / "case.json").read_text())["tasks"]
    with torch.no_grad():
        condition = policy.encode(observation)
        x = policy.draw_normalized(condition, (2, 7, 5), policy.sampler, noise=case["noise"])
        actions = policy.unnormalize_action(x, condition)
    difference = float((actions - case["actions"]).abs().max())
    print(f"{kind}: largest difference {difference:.2e}", file=sys.stderr)
    assert difference < 2e-5


def test_a_spec_of_your_own_robot_decides_the_cameras(tmp_path: Path) -> None:
    folder = make("pi0", tmp_path)
    camera = Field(shape=(60, 80, 3), dtype="uint8")
    spec = Spec(
        observation={
            "image.left": camera,
            "state": Field(shape=(3,)),
            "instruction": Field(shape=(), dtype="str"),
        },
        action=Field(shape=(2,)),
        control_hz=20,
    )
    unit = {"state": (torch.zeros(3), torch.ones(3)), "action": (torch.zeros(2), torch.ones(2))}
    policy = open_policy("pi0", folder, spec=spec, normalizer=Normalizer(unit))
    seen = {
        "image.left": torch.zeros(1, 1, 60, 80, 3, dtype=torch.uint8),
        "state": torch.zeros(1, 1, 3),
        "instruction": ["go"],
    }
    assert policy.sample(seen).shape == (1, 1, 6, 2)
