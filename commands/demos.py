"""`sensorimotor demos`: record an expert as a training set."""

from pathlib import Path

from ..configs.train import DemosConfig
from ..data.errors import ConfigError, DataError
from ..data.formats.robomimic import write_robomimic
from ..sim.demos import record_demos
from .console import Screen


def run(config: DemosConfig, screen: Screen) -> int:
    """Record and write; starts the expert could not solve are named."""
    out = Path(config.out)
    if out.suffix not in (".hdf5", ".h5"):
        raise ConfigError(
            f"out={out} must end in .hdf5; turn it into other formats with sensorimotor convert"
        )
    if out.exists() and not config.overwrite:
        raise DataError(f"{out} exists already; give another out=, or overwrite=true to replace it")
    try:  # before the recording, which takes minutes
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out.parent}: {error.strerror}; give another out=") from error
    with screen.progress("recording") as update:
        recording = record_demos(
            config.task, config.expert, episodes=config.episodes, first_seed=config.seed, progress=update
        )
    write_robomimic(recording.episodes, out, compression="gzip")
    lengths = recording.episodes.lengths
    screen.say(
        f"{out}  {len(lengths)} episodes, {recording.episodes.steps:,} steps "
        f"({lengths.min()} to {lengths.max()} each), starts {recording.seeds[0]} to {recording.seeds[-1]}"
    )
    if recording.failed:
        screen.warn(
            f"{len(recording.failed)} starts were not solved and are left out: {list(recording.failed)}"
        )
    screen.say(f"next: sensorimotor inspect path={out}")
    return 0
