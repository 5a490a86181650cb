"""A tiny dataset that fits push_t, and a way to run the command as a user would."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sensorimotor.__main__ import main
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import ConfigError
from sensorimotor.data.formats import save_dataset
from sensorimotor.sim.push_t import PushTConfig, PushTWorlds
from sensorimotor.sim.render import make_context


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `sensorimotor` in this process: command("eval", "episodes=3")."""

    def call(*words: str) -> Done:
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


def wander(*, episodes: int = 6, steps: int = 20, seed: int = 0) -> Episodes:
    """Random pushing in the real task, so that every field fits it."""
    generator = np.random.default_rng(seed)
    task = PushTWorlds(PushTConfig(threads=1), worlds=episodes)
    seen = task.reset(range(episodes))
    observation: dict[str, list[np.ndarray]] = {key: [] for key in seen}
    actions = []
    for _ in range(steps):
        action = generator.uniform(-0.2, 0.2, (episodes, 2)).astype(np.float32)
        for key, value in seen.items():
            observation[key].append(value.copy())
        actions.append(action)
        seen = task.step(action).observation
    task.close()
    join = lambda parts: np.stack(parts, axis=1).reshape(episodes * steps, -1)  # noqa: E731
    return Episodes(
        spec=task.spec,
        observation={key: join(parts) for key, parts in observation.items()},
        action=join(actions),
        ends=np.arange(1, episodes + 1) * steps,
    )


@pytest.fixture(scope="session")
def recordings() -> Episodes:
    """Six short episodes of push_t."""
    return wander()


@pytest.fixture
def dataset(recordings: Episodes, tmp_path: Path) -> Path:
    """The same in a file."""
    path = tmp_path / "demos.hdf5"
    save_dataset(recordings, path)
    return path


@pytest.fixture
def spoilt(recordings: Episodes, tmp_path: Path) -> Path:
    """The same with a NaN in the action of episode 2, step 5."""
    action = recordings.action.copy()
    action[2 * 20 + 5, 1] = np.nan
    path = tmp_path / "spoilt.npz"
    save_dataset(replace(recordings, action=action), path)
    return path


TINY = (
    "policy.trunk=mlp",
    "policy.trunk.width=16",
    "policy.trunk.depth=1",
    "policy.sampler.steps=2",
    "training.steps=4",
    "training.batch_size=8",
    "training.threads=1",
    "training.log_every=2",
    "training.tensorboard=false",
    "task.max_steps=5",
    "task.threads=1",
    "data.held_out=0.2",
    "data.mirror=false",
    "evaluation.episodes=3",
    "evaluation.video=0",
)


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make a run take a second."""
    return TINY


@pytest.fixture
def trained(command: Command, dataset: Path, tmp_path: Path) -> Path:
    """A run folder after training and evaluation."""
    run = tmp_path / "run"
    done = command(
        "train", f"data.path={dataset}", f"run={run}", "evaluation.baselines=hold_still,random", *TINY
    )
    assert done.code == 0, done.err
    return run


@pytest.fixture
def graphics() -> None:
    """Skip where nothing can be rendered, and say why."""
    try:
        make_context(16).free()
    except ConfigError as error:
        pytest.skip(str(error))
