"""Does a member speak the language of the path? Found out on demonstrations, before anything moves.

A policy from elsewhere may count time the other way, give the velocity with the other sign, answer on another scale, or
come without its normaliser. Each of these makes a composition that runs and is wrong. On demonstrations the right answers
are known up to noise: at `x_s = (1 - s) a + s eps` the velocity is `eps - a`, and of what a calibrated policy
answers, the truth is scattered around 1 times it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.episodes import Episodes
from ..data.errors import ConfigError
from ..policies.path import mix, noise_from_velocity
from ..policies.policy import GenerativePolicy, Policy
from .demonstrated import demonstrated

_LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)
_UNIT = (0.05, 5.0)  # root mean square of normalised actions
_CALIBRATED = (0.5, 2.0)  # truth over answer
_AGREEING = 0.1  # how far noise and velocity may contradict each other, as a share of the noise
_CLEARLY = 0.7  # another convention must leave this share of the error, or less

Convention = Callable[[GenerativePolicy, Tensor, Tensor, object], Tensor]
_CONVENTIONS: Mapping[str, Convention] = {
    "": lambda policy, x, s, known: policy.predict_velocity(x, s, known),
    "gives velocities of the opposite sign (action minus noise); negate them": lambda policy, x, s, known: (
        -policy.predict_velocity(x, s, known)
    ),
    "counts time the other way (0 at the noise); ask it at 1 - s": lambda policy, x, s, known: (
        policy.predict_velocity(x, 1 - s, known)
    ),
    "counts time the other way (0 at the noise) and gives velocities of the opposite sign, as openpi and data-time "
    "flows do; ask it at 1 - s and negate the answer": lambda policy, x, s, known: (
        -policy.predict_velocity(x, 1 - s, known)
    ),
}


@dataclass(frozen=True)
class Probe:
    """What a policy answers on demonstrations.

    Attributes:
        action_rms: root mean square of normalised actions; about 1 with a normaliser that fits.
        error: mean squared error of the velocity, as a share of that of the answer 0.
        slope: truth over answer, by least squares; 1 for a calibrated policy.
        contradiction: root mean square of `eps_hat - (x + (1 - s) v_hat)`.
        problems: what is wrong, in words; empty for a member that can be composed.
    """

    action_rms: float
    error: float
    slope: float
    contradiction: float
    problems: tuple[str, ...]


def check_member(
    policy: Policy, episodes: Episodes, *, count: int = 256, generator: torch.Generator | None = None
) -> Probe:
    """Probe a policy, and raise if it cannot be composed as it is.

    Args:
        policy: the member to be.
        episodes: demonstrations like those it was trained on.
        count: windows looked at.
        generator: of windows and noise; a fresh one seeded with 0 if not given.

    Raises:
        ConfigError: naming what is wrong and what to do.
    """
    found = probe(policy, episodes, count=count, generator=generator)
    if found.problems:
        raise ConfigError(
            f"{type(policy).__name__} cannot be composed as it is: it " + "; it ".join(found.problems)
        )
    return found


def probe(
    policy: Policy, episodes: Episodes, *, count: int = 256, generator: torch.Generator | None = None
) -> Probe:
    """See `check_member`; problems are returned, not raised."""
    if not isinstance(policy, GenerativePolicy):
        raise ConfigError(
            f"{type(policy).__name__} has no answer at a noise level; rerank it instead of composing it"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    known, action, noise = demonstrated(policy, episodes, count, generator)
    with torch.no_grad():
        problems = []
        rms = float(action.square().mean().sqrt())
        if not _UNIT[0] <= rms <= _UNIT[1]:
            problems.append(
                f"has normalised actions of root mean square {rms:.3g} where about 1 is expected: its normaliser is missing "
                "or of other data"
            )
        errors = {name: _errors(policy, action, noise, known, ask) for name, ask in _CONVENTIONS.items()}
        best = min(errors, key=lambda name: errors[name][0])
        error, slope = errors[""]
        if best and errors[best][0] < _CLEARLY * error:
            problems.append(best)
        elif not problems and not _CALIBRATED[0] <= slope <= _CALIBRATED[1]:
            problems.append(
                f"answers on another scale: true velocities are {slope:.3g} times its own; divide its targets or its "
                "normaliser accordingly"
            )
        contradiction = _contradiction(policy, action, noise, known)
        if contradiction > _AGREEING and not problems:
            problems.append(
                f"contradicts itself: eps_hat and x + (1 - s) v_hat differ by {contradiction:.3g} (root mean square); one of "
                "predict_noise and predict_velocity is wrong"
            )
    return Probe(rms, error, slope, contradiction, tuple(problems))


def _errors(
    policy: GenerativePolicy, action: Tensor, noise: Tensor, known: object, ask: Convention
) -> tuple[float, float]:
    """Mean squared error of the velocity as a share of its own size, and the slope of truth over answer."""
    wrong = size = both = square = 0.0
    for level in _LEVELS:
        s = action.new_tensor(level)
        answer, truth = ask(policy, mix(action, noise, s), s, known), noise - action
        wrong += float((answer - truth).square().mean())
        size += float(truth.square().mean())
        both += float((answer * truth).mean())
        square += float(answer.square().mean())
    return wrong / size, both / max(square, 1e-12)


def _contradiction(policy: GenerativePolicy, action: Tensor, noise: Tensor, known: object) -> float:
    found = []
    for level in _LEVELS[1:-1]:  # at the ends clipping and floors tell the two apart
        s = action.new_tensor(level)
        x = mix(action, noise, s)
        said = policy.predict_noise(x, s, known)
        implied = noise_from_velocity(x, s, policy.predict_velocity(x, s, known))
        found.append((said - implied).square().mean())
    return float(torch.stack(found).mean().sqrt())
