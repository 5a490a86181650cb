"""robomimic's own checkpoints (`.pth`) as policies.

The file is a pickle. Only torch's restricted reader opens it, which builds tensors and plain containers and calls
nothing; the network's settings are JSON text inside.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    try:
        settings = json.loads(held["config"])
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: its config is not JSON: {error}") from error
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
    policy = RobomimicPolicy(config, chunk.apply(spec), _normalizer(path, held, settings, parts, spec))
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
    release = tuple(int(word) for word in words[:2] if word.isdigit())
    if made.get("type") == _ROBOSUITE and release < (1, 5):
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


def _normalizer(
    path: Path, held: Mapping[str, Any], settings: Mapping[str, Any], parts: tuple[Part, ...], spec: Spec
) -> Normalizer:
    """What the file scales observations and, since robomimic 0.4, actions by."""
    fields = {**spec.observation, "action": spec.action}
    statistics = {key: (torch.zeros(field.shape), torch.ones(field.shape)) for key, field in fields.items()}
    known = held.get("obs_normalization_stats") or {}
    for part in parts:
        if part.name in known:
            offset, scale = statistics[part.key]
            offset[part.begin : part.end], scale[part.begin : part.end] = _affine(known[part.name])
    if commanded := held.get("action_normalization_stats"):
        statistics["action"] = _affine_of_actions(path, commanded, settings["train"], spec.action_dim)
    return Normalizer(statistics)


def _affine(stats: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Offset and scale (D,); robomimic 0.3 calls them mean and std."""
    names = ("offset", "scale") if "offset" in stats else ("mean", "std")
    return torch.tensor(stats[names[0]]).flatten(), torch.tensor(stats[names[1]]).flatten()


def _affine_of_actions(
    path: Path, stats: Mapping[str, Any], train: Mapping[str, Any], width: int
) -> tuple[Tensor, Tensor]:
    """Offset and scale (A,), in the order in which the file lays the parts of an action side by side."""
    keys = train.get("action_keys", list(stats))
    formats = {key: train.get("action_config", {}).get(key, {}).get("format") for key in keys}
    if turned := [key for key, form in formats.items() if form == "rot_6d"]:
        raise CheckpointError(
            f"{path} commands {turned} as rotations of 6 numbers, which robomimic turns into angles while acting; "
            "converted are actions as the robot takes them: train without `format`"
        )
    offsets, scales = zip(*(_affine(stats[key]) for key in keys), strict=True)
    offset, scale = torch.cat(offsets), torch.cat(scales)
    if len(offset) != width:
        raise CheckpointError(f"{path} scales {len(offset)} numbers of an action of {width}")
    return offset, scale
