"""robomimic's own checkpoints (`.pth`) as policies.

The file is a pickle. Only torch's restricted reader opens it, which builds tensors and plain containers and calls
nothing; the network's settings are JSON text inside.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.errors import CheckpointError
from ..data.normalizer import Normalizer
from ..data.spec import Field, Spec
from .chunk import ChunkConfig
from .robomimic_policy import Algorithm, Part, RobomimicConfig, RobomimicPolicy

_ROBOSUITE = 1  # robomimic's number for environments of robosuite


def read_robomimic_checkpoint(
    path: Path | str, *, groups: Mapping[str, tuple[str, ...]], control_hz: float | None = None
) -> RobomimicPolicy:
    """A policy with the weights of robomimic's behaviour cloning.

    Args:
        path: the `.pth` file.
        groups: our observation keys and robomimic's names that are laid side by side in each; others keep their names.
        control_hz: control steps per second, where the file does not name a `control_freq`.

    Raises:
        CheckpointError: if the file holds more than numbers and text, or an algorithm other than BC's three.
        ConfigError: if robomimic's networks cannot be imported.
    """
    path = Path(path)
    held = _open(path)
    settings = json.loads(held["config"])
    algorithm, steps = _algorithm(path, held, settings)
    parts = _parts(path, held, settings, groups)
    _check_version(path, held)
    rate = held["env_metadata"].get("env_kwargs", {}).get("control_freq", control_hz)
    if rate is None:
        raise CheckpointError(f"{path} does not say its control rate; pass control_hz, in steps per second")
    spec = _spec(parts, width=int(held["shape_metadata"]["ac_dim"]), control_hz=float(rate))
    chunk = ChunkConfig(observation_steps=steps, horizon=steps, execute=1, start=1 - steps)
    own = {
        key: settings["algo"][key] for key in ("actor_layer_dims", "gaussian", "gmm", "rnn", "transformer")
    }
    config = RobomimicConfig(
        algorithm=algorithm, chunk=chunk, settings=json.dumps(own, sort_keys=True), parts=parts
    )
    policy = RobomimicPolicy(config, chunk.apply(spec), _normalizer(held, parts, spec))
    try:
        policy.nets.load_state_dict(held["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network its settings describe: {error}") from error
    return policy.eval()


def _open(path: Path) -> dict[str, Any]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what the restricted reader raises has no base of its own
        raise CheckpointError(
            f"{path} is not a checkpoint of numbers and text alone, and loading anything else would run whatever code "
            f"it holds; where you trust it, load it with robomimic and save its `model`, `config` and shapes again. "
            f"{str(error).splitlines()[0]}"
        ) from error
    wanted = {"model", "config", "algo_name", "env_metadata", "shape_metadata"}
    if not isinstance(held, dict) or not wanted <= set(held):
        found = sorted(held) if isinstance(held, dict) else type(held).__name__
        raise CheckpointError(f"{path} is not robomimic's: it needs {sorted(wanted)} and holds {found}")
    return held


def _check_version(path: Path, held: Mapping[str, Any]) -> None:
    """Robosuite 1.5 lists the numbers of `object` in another order than the versions before it."""
    made = held["env_metadata"]
    words = str(made.get("env_version", "1.4")).split(".")
    if made.get("type") == _ROBOSUITE and tuple(map(int, words[:2])) < (1, 5):
        raise CheckpointError(
            f"{path} was trained on robosuite {'.'.join(words)}, whose `object` is laid out differently from that of "
            "1.5; train it again on demonstrations of 1.5, or recorded ones read by sensorimotor"
        )


def _algorithm(path: Path, held: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Algorithm, int]:
    """Which of the three, and how many observations it sees."""
    algo = settings["algo"]
    if held["algo_name"] != "bc" or algo.get("vae", {}).get("enabled"):
        kind = "bc with a VAE" if held["algo_name"] == "bc" else held["algo_name"]
        raise CheckpointError(
            f"{path} holds {kind}; converted are bc, with or without gmm, rnn and transformer"
        )
    if algo["rnn"]["enabled"]:
        if algo["rnn"].get("open_loop"):
            raise CheckpointError(
                f"{path} holds an open-loop rnn, which acts without observing; train a closed one"
            )
        return "bc_rnn_gmm", int(algo["rnn"]["horizon"])
    if algo["transformer"]["enabled"]:
        return "bc_transformer", int(algo["transformer"]["context_length"])
    return "bc", 1


def _parts(
    path: Path, held: Mapping[str, Any], settings: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]]
) -> tuple[Part, ...]:
    """Where each of robomimic's observations stands among ours, in the order of its network's inputs."""
    modalities = settings["observation"]["modalities"]["obs"]
    if images := [name for kind, names in modalities.items() if kind != "low_dim" for name in names]:
        raise CheckpointError(f"{path} sees {images}; only networks over low_dim observations are converted")
    shapes = {name: int(shape[0]) for name, shape in held["shape_metadata"]["all_shapes"].items()}
    names = [name for name in shapes if name in modalities["low_dim"]]
    placed: dict[str, Part] = {}
    for key, members in groups.items():
        begin = 0
        for name in members:
            if name in names:
                placed[name] = Part(name=name, key=key, begin=begin, end=begin + shapes[name])
                begin += shapes[name]
    return tuple(placed.get(name) or Part(name=name, key=name, begin=0, end=shapes[name]) for name in names)


def _spec(parts: tuple[Part, ...], *, width: int, control_hz: float) -> Spec:
    sizes: dict[str, int] = {}
    for part in parts:
        sizes[part.key] = max(sizes.get(part.key, 0), part.end)
    return Spec(
        observation={key: Field(shape=(size,)) for key, size in sizes.items()},
        action=Field(shape=(width,)),
        control_hz=control_hz,
    )


def _normalizer(held: Mapping[str, Any], parts: tuple[Part, ...], spec: Spec) -> Normalizer:
    """What the file scales observations by, if it does; actions are left as they are."""
    known = held.get("obs_normalization_stats") or {}
    fields = {**spec.observation, "action": spec.action}
    statistics = {key: (torch.zeros(field.shape), torch.ones(field.shape)) for key, field in fields.items()}
    for part in parts:
        if part.name in known:
            offset, scale = statistics[part.key]
            offset[part.begin : part.end] = torch.tensor(known[part.name]["mean"]).flatten()
            scale[part.begin : part.end] = torch.tensor(known[part.name]["std"]).flatten()
    return Normalizer(statistics)
