"""Critics from configurations, from data and from disk."""

from pathlib import Path
from typing import assert_never

import torch

from ..data.episodes import Episodes
from ..data.errors import CheckpointError, ConfigError
from ..data.normalizer import Normalizer
from ..data.schema import from_mapping, to_mapping
from ..data.spec import Spec
from ..policies.factory import CONFIG, CRITIC, NORMALIZER, SPEC, find_checkpoint, read_config
from ..policies.statistics import fit_normalizer
from ..training.checkpoint import load_weights, read_checkpoint
from .cal_ql import CalQLConfig, CalQLCritic
from .iql import IQLConfig, IQLCritic
from .offline import OfflineCritic
from .transitions import Transitions

CriticConfig = CalQLConfig | IQLConfig


def build_critic(config: CriticConfig, spec: Spec, normalizer: Normalizer, *, seed: int = 0) -> OfflineCritic:
    """A critic with fresh weights, the same for the same seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config:
            case CalQLConfig():
                return CalQLCritic(config, spec, normalizer)
            case IQLConfig():
                return IQLCritic(config, spec, normalizer)
            case _:
                assert_never(config)


def make_critic(config: CriticConfig, episodes: Episodes, *, seed: int = 0) -> OfflineCritic:
    """A critic for this data, untrained: its spec and the statistics of its normaliser are taken from the episodes."""
    spec = config.chunk.apply(episodes.spec)
    normalizer = fit_normalizer(episodes, spec, config.normalizer, relative=config.relative)
    return build_critic(config, spec, normalizer, seed=seed)


def make_transitions(critic: OfflineCritic, episodes: Episodes) -> Transitions:
    """The episodes as the training loop gives them to this critic.

    Raises:
        DataError: if the labels it was configured for are not in the data.
        SpecError: if the data is of another kind.
    """
    return Transitions(episodes, critic.spec, critic.config.labels)


def describe_critic(critic: OfflineCritic, folder: Path | str) -> None:
    """Write what `load_critic` needs besides the weights: configuration, spec and normaliser."""
    import yaml

    folder = Path(folder)
    (folder / CONFIG).write_text(yaml.safe_dump({CRITIC: to_mapping(critic.config)}, sort_keys=False))
    (folder / SPEC).write_text(critic.spec.to_json())
    critic.normalizer.save(folder / NORMALIZER)


def load_critic(path: Path | str, *, device: torch.device | str = "cpu") -> OfflineCritic:
    """Read a trained critic, ready to value actions.

    Args:
        path: a checkpoint folder, or a run folder, which means its `checkpoints/last`.
        device: where the critic is put.

    Raises:
        CheckpointError: if there is no whole, unaltered checkpoint, or it holds a policy.
        ConfigError: if its configuration names something unknown.
    """
    checkpoint = read_checkpoint(find_checkpoint(path))
    values = read_config(checkpoint)
    if CRITIC not in values:
        raise CheckpointError(
            f"{checkpoint.folder} holds a policy, {values.get('kind')}, and no critic; load it with "
            "sensorimotor.load, or train a critic: sensorimotor train critic=cal_ql"
        )
    if not isinstance(values[CRITIC], dict):
        raise ConfigError(f"{checkpoint.path(CONFIG)} must describe a critic, got {values[CRITIC]!r}")
    config = from_mapping(CriticConfig, values[CRITIC], where=CONFIG)
    spec = Spec.from_json(checkpoint.path(SPEC).read_text())
    critic = build_critic(config, spec, Normalizer.load(checkpoint.path(NORMALIZER)))
    load_weights(critic, checkpoint, checkpoint.weights)
    critic.source = checkpoint.source()
    return critic.to(device).eval()
