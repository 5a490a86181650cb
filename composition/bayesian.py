"""Weights by Bayesian optimisation (optuna's tree of Parzen estimators), for more members than a grid can cover.

The simplex is searched by breaking a stick: `w_k = v_k (1 - w_1 - ... - w_{k-1})`, with v_k spread so that even numbers
in 0..1 give weights that are even on the simplex. The first candidates are the parents and whatever start is given.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..data.errors import ConfigError
from .search import Choice, parents
from .seeds import Seeds
from .trials import Trials, Weights


@dataclass(frozen=True, kw_only=True)
class Bayesian:
    """How the search goes.

    Attributes:
        candidates: weights to try, the parents and the starts among them.
        parts: weights are rounded to multiples of 1 / parts, so that near ones share their episodes.
        seed: of the proposals.
    """

    candidates: int = 20
    parts: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("candidates", "parts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def bayesian_search(
    trials: Trials,
    members: int,
    seeds: Seeds,
    config: Bayesian | None = None,
    *,
    starts: Sequence[Weights] = (),
) -> Choice:
    """Play the candidates that past ones make promising, each on all selection seeds.

    The same trials, seeds and configuration propose the same candidates, so that a search that was interrupted goes on
    from what its trials remember.

    Args:
        trials: plays episodes.
        members: M.
        seeds: whose first half chooses.
        config: how many candidates.
        starts: weights to try after the parents, such as those that denoise best.

    Raises:
        ConfigError: if optuna is not installed, for fewer candidates than members, or starts that are no weights.
    """
    config = config or Bayesian()
    if config.candidates < members:
        raise ConfigError(
            f"candidates must be at least the {members} members, each of which is tried alone, got {config.candidates}"
        )
    for start in starts:
        if len(start) != members or min(start) < 0 or abs(sum(start) - 1) > 1e-6:
            raise ConfigError(
                f"a start needs {members} weights of at least 0 that sum to 1, got {tuple(start)}"
            )
    tried: dict[Weights, float] = {}
    with _quiet_optuna() as optuna:
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=config.seed, multivariate=members > 2),
        )
        for weights in [*parents(members), *starts]:
            study.enqueue_trial({_name(k): u for k, u in enumerate(_to_cube(weights))})
        for _ in range(config.candidates):
            trial = study.ask()
            cube = [trial.suggest_float(_name(k), 0.0, 1.0) for k in range(members - 1)]
            weights = rounded(_to_simplex(cube), config.parts)
            if weights not in tried:
                tried[weights] = float(trials.values(weights, seeds.choosing()).mean())
            study.tell(trial, tried[weights])
    best = max(tried, key=lambda w: tried[w])
    counts = (seeds.selection,) * len(tried)
    return Choice(best, tuple(tried), tuple(tried.values()), counts, sum(counts))


def rounded(weights: Sequence[float], parts: int) -> Weights:
    """The nearest weights that are multiples of 1 / parts and sum to 1: largest remainders are rounded up."""
    scaled = [w * parts for w in weights]
    counts = [int(x + 1e-9) for x in scaled]
    order = sorted(range(len(counts)), key=lambda i: (counts[i] - scaled[i], i))
    for i in order[: parts - sum(counts)]:
        counts[i] += 1
    return tuple(c / parts for c in counts)


def _to_simplex(cube: Sequence[float]) -> list[float]:
    left, weights = 1.0, []
    for k, u in enumerate(cube):
        weights.append(left * (1 - (1 - u) ** (1 / (len(cube) - k))))
        left -= weights[-1]
    return [*weights, left]


def _to_cube(weights: Sequence[float]) -> list[float]:
    left, cube = 1.0, []
    for k, w in enumerate(weights[:-1]):
        share = min(1.0, w / left) if left > 1e-12 else 0.0
        cube.append(1 - (1 - share) ** (len(weights) - 1 - k))
        left -= w
    return cube


def _name(k: int) -> str:
    return f"u{k}"


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """The library, which says nothing about every single candidate."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            'Bayesian search needs optuna: pip install "sensorimotor[search]"; grid_search and race need nothing'
        ) from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
