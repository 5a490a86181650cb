"""`sensorimotor convert`: one dataset format to another, read back and compared before it is called done.

A `.pth` file is a trained policy of robomimic's, and becomes a checkpoint of ours.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.verbs import ConvertConfig
from ..data.episodes import Array, Episodes
from ..data.errors import DataError
from ..data.files import PICKLED
from ..data.formats import detect_format, load_dataset, save_dataset
from ..data.lazy import same
from .console import Screen


def run(config: ConvertConfig, screen: Screen) -> int:
    """Convert; 3 if something was left out."""
    source, target = Path(config.source), Path(config.target)
    if target.exists() and source.exists() and source.resolve() == target.resolve():
        raise DataError(f"source and target are both {source}; give another target")
    if target.exists() and not config.overwrite:
        raise DataError(f"{target} exists already; give another target, or overwrite=true to replace it")
    if source.suffix in PICKLED:
        return _convert_policy(source, target, config.control_hz, screen)
    options: dict[str, Any] = {} if config.control_hz is None else {"control_hz": config.control_hz}
    if source.exists() and (config.source_format or detect_format(source)) == "lerobot":
        options["lazy_images"] = True  # frames of videos outgrow memory
    with warnings.catch_warnings(record=True) as caught:  # a reader warns of what it has to leave out
        warnings.simplefilter("always", UserWarning)
        episodes = load_dataset(
            source, format=config.source_format, require_finite=not config.skip_bad, **options
        )
    lost = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    bad = bad_episodes(episodes)
    if bad:
        episodes = _without(episodes, bad, source)
    save_dataset(episodes, target, format=config.target_format)
    kind = config.target_format or detect_format(target)
    lazy: dict[str, Any] = {"lazy_images": True} if kind in ("robomimic", "lerobot") else {}
    compare(episodes, load_dataset(target, format=kind, **lazy), target)
    screen.say(
        f"{target}  {kind}, {len(episodes)} episodes, {episodes.steps:,} steps, {_size(target)}; "
        "read back and equal to what was read"
    )
    for loss in lost:
        screen.warn(loss)
    for episode, reason in bad.items():
        screen.warn(f"episode {episode} is left out: {reason}")
    if bad:
        screen.warn(f"{len(bad)} of {len(episodes) + len(bad)} episodes are left out")
    return 3 if bad or lost else 0


def _convert_policy(source: Path, target: Path, control_hz: float | None, screen: Screen) -> int:
    """Robomimic's checkpoint to ours; its observations are those of robosuite's tasks."""
    from ..policies.factory import describe
    from ..policies.robomimic_checkpoint import read_robomimic_checkpoint
    from ..sim.manipulation.recordings import GROUPS
    from ..training.checkpoint import MODEL, save_checkpoint, save_weights

    policy = read_robomimic_checkpoint(source, groups=GROUPS, control_hz=control_hz)
    save_checkpoint(
        target, lambda folder: describe(policy, folder), lambda folder: save_weights(policy, folder / MODEL)
    )
    screen.say(
        f"{target}  {policy.config.algorithm}, {sum(p.numel() for p in policy.parameters()):,} parameters"
    )
    screen.say(f"next: sensorimotor eval checkpoint={target} task=<lift, can or square, as it was trained>")
    return 0


def bad_episodes(episodes: Episodes) -> dict[int, str]:
    """Episodes that hold a NaN or an infinity, and where it first stands."""
    arrays: dict[str, Array | None] = {"action": episodes.action, **episodes.observation, **episodes.extra}
    arrays["reward"] = episodes.reward
    found: dict[int, str] = {}
    for name, array in arrays.items():
        if array is None or array.dtype.kind != "f":
            continue
        steps = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        for step, episode in zip(steps, np.searchsorted(episodes.ends, steps, side="right"), strict=True):
            first = f"{name} is not finite at step {step - episodes.starts[episode]}"
            found.setdefault(int(episode), first)
    return dict(sorted(found.items()))


def compare(written: Episodes, read: Episodes, target: Path) -> None:
    """Raise unless what was read back is, number for number, what was written."""
    pairs: dict[str, tuple[Any, Any]] = {
        "action": (written.action, read.action),
        "episode ends": (written.ends, read.ends),
        "reward": (written.reward, read.reward),
        "success": (written.success, read.success),
        **{key: (array, read.observation.get(key)) for key, array in written.observation.items()},
    }
    for name, (before, after) in pairs.items():
        if before is not None and (after is None or not same(before, after)):
            raise DataError(
                f"{name} read back from {target} differs from the source; do not use the file, and report this"
            )


def _without(episodes: Episodes, bad: dict[int, str], source: Path) -> Episodes:
    good = np.array([i for i in range(len(episodes)) if i not in bad], dtype=np.int64)
    if len(good) == 0:
        raise DataError(
            f"every one of the {len(episodes)} episodes of {source} holds numbers that are not finite"
        )
    return episodes.select(good)


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
