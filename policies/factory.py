"""Policies from configurations, from data and from disk."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import torch

from ..data.episodes import Episodes
from ..data.errors import CheckpointError, ConfigError
from ..data.files import PICKLED
from ..data.normalizer import Normalizer
from ..data.schema import from_mapping, to_mapping
from ..data.spec import Spec
from ..training.checkpoint import EMA, MANIFEST, MODEL, Checkpoint, load_weights, read_checkpoint
from .consistency import ConsistencyConfig, ConsistencyPolicy
from .diffusion import DiffusionConfig, DiffusionPolicy
from .energy import EnergyConfig, EnergyPolicy
from .flow import FlowConfig, FlowPolicy
from .nearest import NearestConfig, NearestPolicy
from .network import NetworkConfig
from .policy import GenerativePolicy, Policy
from .reflow import ReflowConfig, ReflowPolicy
from .regression import RegressionPolicy, RegressorConfig
from .robomimic_policy import RobomimicConfig, RobomimicPolicy
from .statistics import fit_normalizer, scaled_like
from .streaming import StreamingConfig, StreamingPolicy
from .teacher import HOW, Student, check_relative
from .vla.config import VLAConfig
from .vla.policy import VLAPolicy

PolicyConfig = (
    DiffusionConfig
    | FlowConfig
    | EnergyConfig
    | ConsistencyConfig
    | ReflowConfig
    | StreamingConfig
    | VLAConfig
    | RegressorConfig
    | NearestConfig
    | RobomimicConfig
)

CONFIG, SPEC, NORMALIZER = "config.yaml", "spec.json", "normalizer.safetensors"
COMPOSITION = "composition.json"  # how policies are made one is written there, and read elsewhere
CRITIC = "critic"  # the key under which a checkpoint describes a critic, which is loaded elsewhere


def build_policy(config: PolicyConfig, spec: Spec, normalizer: Normalizer, *, seed: int = 0) -> Policy:
    """A policy with fresh weights, the same for the same seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config:
            case ReflowConfig():
                return ReflowPolicy(config, spec, normalizer)
            case DiffusionConfig():
                return DiffusionPolicy(config, spec, normalizer)
            case FlowConfig():
                return FlowPolicy(config, spec, normalizer)
            case EnergyConfig():
                return EnergyPolicy(config, spec, normalizer)
            case RegressorConfig():
                return RegressionPolicy(config, spec, normalizer)
            case NearestConfig():
                return NearestPolicy(config, spec, normalizer)
            case ConsistencyConfig():
                return ConsistencyPolicy(config, spec, normalizer)
            case StreamingConfig():
                return StreamingPolicy(config, spec, normalizer)
            case RobomimicConfig():
                return RobomimicPolicy(config, spec, normalizer)
            case VLAConfig():
                return VLAPolicy(config, spec, normalizer)
            case _:
                assert_never(config)


def make_policy(
    config: PolicyConfig, episodes: Episodes, *, seed: int = 0, teacher: GenerativePolicy | None = None
) -> Policy:
    """A policy for this data: its spec and the statistics of its normaliser are taken from the episodes.

    Weights are fresh; a nearest-neighbour policy already knows the episodes, and needs no training.

    Args:
        config: what to build.
        episodes: the data.
        seed: of the weights.
        teacher: what a student learns from, instead of the run that its configuration names. Its weights are frozen.

    Raises:
        ConfigError: for a student without a teacher.
        SensorimotorError: for a teacher that the student cannot learn from, naming what differs.
    """
    spec = config.chunk.apply(episodes.spec)
    if isinstance(config, ConsistencyConfig | ReflowConfig):
        return _make_student(config, spec, teacher or _load_teacher(config.teacher), seed=seed)
    relative = None if isinstance(config, NearestConfig | RobomimicConfig) else config.relative
    normalizer = fit_normalizer(episodes, spec, config.normalizer, relative=relative)
    if config.normalizer.like is not None:
        normalizer = scaled_like(normalizer, spec, relative, load(config.normalizer.like))
    policy = build_policy(config, spec, normalizer, seed=seed)
    if isinstance(policy, NearestPolicy):
        policy.remember(episodes)
    return policy


def _make_student(
    config: ConsistencyConfig | ReflowConfig, spec: Spec, teacher: Policy, *, seed: int
) -> Policy:
    normalizer = getattr(teacher, "normalizer", None) or Normalizer({})
    if isinstance(teacher.config, NetworkConfig) and isinstance(teacher, GenerativePolicy):
        check_relative(config.relative, teacher)
        config = replace(config, normalizer=teacher.config.normalizer)
    student = build_policy(config, spec, copy.deepcopy(normalizer), seed=seed)
    assert isinstance(student, Student)
    student.learn_from(teacher)
    return student


def _load_teacher(path: str | None) -> Policy:
    if path is None:
        raise ConfigError(f"a student learns from a trained policy, and none is named; {HOW}")
    return load(path)


def describe(policy: Policy, folder: Path | str) -> None:
    """Write what `load` needs besides the weights: configuration, spec and normaliser."""
    import yaml

    config, normalizer = policy.config, getattr(policy, "normalizer", None)
    if not isinstance(config, PolicyConfig) or not isinstance(normalizer, Normalizer):
        raise ConfigError(
            f"{type(policy).__name__} cannot be saved; only policies built by make_policy or build_policy can"
        )
    folder = Path(folder)
    (folder / CONFIG).write_text(yaml.safe_dump(to_mapping(config), sort_keys=False))
    (folder / SPEC).write_text(policy.spec.to_json())
    normalizer.save(folder / NORMALIZER)


def load(
    path: Path | str, *, device: torch.device | str = "cpu", ema: bool = True, token: str | None = None
) -> Policy:
    """Read a trained policy, ready to sample.

    Args:
        path: a checkpoint folder, or a run folder, which means its `checkpoints/last`: the held-out loss that decides
            what is `best` does not rank policies by how well they act. Or the address of a policy server,
            ws://host:port, see `remote.remote.connect`.
        device: where the policy is put; a served policy stays where it is.
        ema: use the averaged weights if the checkpoint holds some.
        token: for a policy server; the environment variable SENSORIMOTOR_TOKEN if not given.

    Raises:
        CheckpointError: if there is no whole, unaltered checkpoint.
        ConfigError: if its configuration names something unknown.
        RemoteError: if a policy server cannot be reached in time or refuses the token.
    """
    if is_address(path):
        from .remote.remote import connect

        return connect(str(path), token=token)
    checkpoint = read_checkpoint(find_checkpoint(path))
    values = read_config(checkpoint)
    if CRITIC in values:
        raise CheckpointError(
            f"{checkpoint.folder} holds a critic, which values actions and proposes none; load it with "
            "sensorimotor.load_critic, and let it choose for a policy: rerank(policy, critic)"
        )
    config = from_mapping(PolicyConfig, values, where=CONFIG)
    spec = Spec.from_json(checkpoint.path(SPEC).read_text())
    normalizer = Normalizer.load(checkpoint.path(NORMALIZER))
    policy = build_policy(config, spec, normalizer)
    load_weights(policy, checkpoint, _weights(checkpoint, ema))
    policy.source = checkpoint.source(ema=ema)
    return policy.to(device).eval()


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says that it holds, as plain values.

    Raises:
        ConfigError: if it is no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(checkpoint.path(CONFIG).read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{checkpoint.path(CONFIG)} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{checkpoint.path(CONFIG)} must hold a mapping of keys to values, got {values!r}")
    return values


def is_address(path: Path | str) -> bool:
    """Whether this names a policy server instead of a folder."""
    return isinstance(path, str) and path.startswith(("ws://", "wss://"))


def _weights(checkpoint: Checkpoint, ema: bool) -> str:
    return EMA if ema and EMA in checkpoint.files else MODEL


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder that a path to a checkpoint or to a run means.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(path)
    for folder in (path, path / "checkpoints" / "last"):
        if (folder / MANIFEST).is_file():
            return folder
    if (path / COMPOSITION).is_file() or (path.name == COMPOSITION and path.is_file()):
        raise CheckpointError(f"{path} is a saved composition of policies; open it with sensorimotor.load")
    if path.suffix in PICKLED and path.is_file():
        raise CheckpointError(
            f"{path} is a pickle, and loading one runs whatever code it holds; if it is robomimic's, convert it first: "
            f"sensorimotor convert source={path} target={path.with_suffix('')}"
        )
    raise CheckpointError(
        f"no checkpoint at {path}: neither it nor its checkpoints/last holds a {MANIFEST}; "
        "give the folder of a run or of a checkpoint"
    )
