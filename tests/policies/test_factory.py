"""From configuration to policy to disk and back."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.descent_step import DescentStep
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.energy_transformer import EnergyTransformerConfig
from sensorimotor.policies.factory import PolicyConfig, describe, load, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.nearest import NearestConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DPMSolver
from sensorimotor.policies.transformer import TransformerConfig
from sensorimotor.policies.unet import UNetConfig
from sensorimotor.training.checkpoint import save_checkpoint, save_weights

CHUNK = ChunkConfig(observation_steps=2, horizon=8, execute=4, start=-1)
CONFIGS: list[PolicyConfig] = [
    DiffusionConfig(
        chunk=CHUNK, trunk=UNetConfig(channels=(16, 32), kernel=3, step_width=8), sampler=DPMSolver(steps=7)
    ),
    FlowConfig(
        chunk=CHUNK,
        trunk=TransformerConfig(width=32, layers=1, condition_layers=1),
        relative="state",
        octaves=2,
    ),
    RegressorConfig(chunk=CHUNK, trunk=MLPConfig(width=16, modulation=True)),
    NearestConfig(chunk=CHUNK),
    EnergyConfig(
        chunk=CHUNK,
        trunk=EnergyTransformerConfig(width=16, layers=1, observation_layers=1),
        objective="regress",
        step=DescentStep(size=30.0, normalize=True, temperature=9.0),
        learn_size=True,
        sampler=Descent(steps=4, tolerance=0.01, best_of=2),
    ),
    EnergyConfig(chunk=CHUNK, trunk=EnergyMLPConfig(width=16, depth=1), sampler=DPMSolver(steps=3)),
]
IDS = ["diffusion", "flow", "regressor", "nearest", "energy transformer", "energy mlp"]


def save(policy: Policy, folder: Path, *, shift: float | None = None) -> Path:
    """Write a checkpoint; with `shift`, also averaged weights that differ from the raw ones by it."""

    def weights(temporary: Path) -> None:
        save_weights(policy, temporary / "model.safetensors")
        if shift is not None:
            with torch.no_grad():
                for p in policy.parameters():
                    p += shift
            save_weights(policy, temporary / "ema.safetensors")

    save_checkpoint(folder, partial(describe, policy), weights)
    return folder


def first(episodes: Episodes, policy: Policy) -> dict[str, torch.Tensor]:
    return Windows(episodes, policy.spec).batch(np.arange(3)).observation


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_a_loaded_policy_is_the_saved_one(tmp_path: Path, episodes: Episodes, config: PolicyConfig) -> None:
    policy = make_policy(config, episodes).eval()
    loaded = load(save(policy, tmp_path / "checkpoint"))
    assert loaded.config == config
    assert loaded.spec == policy.spec
    assert not loaded.training
    observation = first(episodes, policy)
    assert torch.equal(loaded.sample(observation, samples=2), policy.sample(observation, samples=2))


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_the_spec_comes_from_the_data_with_the_policys_windows(
    episodes: Episodes, config: PolicyConfig
) -> None:
    spec = make_policy(config, episodes).spec
    assert spec.observation == episodes.spec.observation
    assert spec.action == episodes.spec.action
    assert (spec.observation_steps, spec.horizon, spec.execute, spec.start) == (2, 8, 4, -1)


def test_averaged_weights_are_used_unless_asked_otherwise(tmp_path: Path, episodes: Episodes) -> None:
    policy = make_policy(CONFIGS[2], episodes)
    raw = [p.detach().clone() for p in policy.parameters()]
    folder = save(policy, tmp_path / "checkpoint", shift=1.0)
    for kept, averaged, plain in zip(
        raw, load(folder).parameters(), load(folder, ema=False).parameters(), strict=True
    ):
        assert torch.equal(plain, kept)
        assert torch.equal(averaged, kept + 1.0)


def test_a_run_folder_means_its_last_checkpoint_whatever_the_held_out_loss_says(
    tmp_path: Path, episodes: Episodes
) -> None:
    policy = make_policy(CONFIGS[2], episodes)
    parameter = next(policy.parameters())
    before = parameter.detach().clone()
    save(policy, tmp_path / "run" / "checkpoints" / "best")
    with torch.no_grad():
        parameter += 1
    save(policy, tmp_path / "run" / "checkpoints" / "last")
    assert torch.equal(next(load(tmp_path / "run").parameters()), parameter)
    best = next(load(tmp_path / "run" / "checkpoints" / "best").parameters())
    assert torch.equal(best, before)


def test_where_there_is_no_checkpoint_the_error_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither it nor its checkpoints/last"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "spec.json", "normalizer.safetensors"])
def test_an_altered_file_is_never_used(tmp_path: Path, episodes: Episodes, name: str) -> None:
    folder = save(make_policy(CONFIGS[1], episodes), tmp_path / "checkpoint")
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=f"{name} does not match"):
        load(folder)


def seal(folder: Path) -> Path:
    """Give the files of a checkpoint a manifest that fits them."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}

    def write(temporary: Path) -> None:
        for name, content in files.items():
            (temporary / name).write_bytes(content)

    save_checkpoint(folder, write)
    return folder


def rewrite(folder: Path, change: Callable[[dict], object]) -> Path:
    """Change a checkpoint's configuration, as a person might by hand."""
    values = yaml.safe_load((folder / "config.yaml").read_text())
    change(values)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return seal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(kind="FlowConfg"), "did you mean 'FlowConfig'"),
        (lambda v: v.update(octavs=v.pop("octaves")), "unknown key 'octavs'.*did you mean 'octaves'"),
        (lambda v: v["trunk"].update(widht=3), "config.yaml.trunk: unknown key 'widht'"),
        (lambda v: v["sampler"].update(steps=0), "steps of at least 1"),
        (lambda v: v.update(_target_="os.system"), "unknown key '_target_'"),
    ],
)
def test_configurations_are_read_strictly(
    tmp_path: Path, episodes: Episodes, change: Callable[[dict], object], message: str
) -> None:
    folder = save(make_policy(CONFIGS[1], episodes), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match=message):
        load(rewrite(folder, change))


def test_a_configuration_is_read_without_running_anything(tmp_path: Path, episodes: Episodes) -> None:
    folder = save(make_policy(CONFIGS[1], episodes), tmp_path / "checkpoint")
    (folder / "config.yaml").write_text("!!python/object/apply:os.getcwd []\n")
    seal(folder)
    with pytest.raises(ConfigError, match="is not YAML"):
        load(folder)


def test_weights_of_another_size_are_refused(tmp_path: Path, episodes: Episodes) -> None:
    folder = save(make_policy(CONFIGS[2], episodes), tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load(rewrite(folder, lambda v: v["trunk"].update(width=32)))


def test_a_policy_without_a_configuration_cannot_be_saved(tmp_path: Path, gaussian: Callable) -> None:
    with pytest.raises(ConfigError, match="Gaussian cannot be saved"):
        describe(gaussian(0.0, 1.0), tmp_path)


def test_the_files_of_a_checkpoint_can_be_read_by_other_tools(tmp_path: Path, episodes: Episodes) -> None:
    describe(make_policy(CONFIGS[1], episodes), tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["kind"] == "FlowConfig"
    assert config["trunk"]["width"] == 32
    assert json.loads((tmp_path / "spec.json").read_text())["horizon"] == 8


@pytest.mark.parametrize("config", CONFIGS[:3], ids=IDS[:3])
def test_fresh_weights_depend_on_the_seed_alone(episodes: Episodes, config: PolicyConfig) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = make_policy(config, episodes, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = make_policy(config, episodes, seed=3), make_policy(config, episodes, seed=4)
    pairs = list(zip(one.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
