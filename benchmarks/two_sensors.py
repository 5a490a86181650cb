"""Two policies that see a target through sensors of their own: when is their composition better than both?

A target a* ~ N(0, 1). One policy sees a* + s_A n, the other a* + s_B n'; success is |a - a*| < 0.5. Every policy is a small
diffusion network, trained on its own sensor alone; weights are drawn by DDIM in ten steps, which is also how the curve
without any network is computed: for exact posteriors samples are a linear function of noise and readings, so that
success = 2 Phi(0.5 / std) - 1. Beside the curve: regressors, a draw from the exact posterior of both sensors, the
classifier-free form, and OR and AND of two policies that disagree.

Usage: python benchmarks/two_sensors.py [--seeds 3] [--updates 4000]
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from record import record
from torch import Tensor

from sensorimotor.composition.composed import compose, compose_conditional
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.prior import error_gram, simplex_minimum
from sensorimotor.composition.search import grid_search, simplex_grid
from sensorimotor.composition.seeds import Seeds
from sensorimotor.composition.superposed import superpose
from sensorimotor.composition.trials import Trials
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.intervals import mean_interval
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import PolicyConfig, build_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.path import levels
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM

REGIMES = {"equal sensors": (0.5, 0.5), "one a little worse": (0.5, 0.7), "one much worse": (0.4, 1.2)}
WEIGHTS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)  # of the first policy
NEAR = 0.5  # success
SAMPLER = DDIM(steps=10, clip=None)
SDE = ReverseSDE(steps=400)
KEYS = ("a", "b", "nothing")
SPEC = Spec(
    observation={key: Field(shape=(1,)) for key in KEYS},
    action=Field(shape=(1,)),
    control_hz=10,
    horizon=1,
    execute=1,
)
CHUNK = {"observation_steps": 1, "horizon": 1, "execute": 1}
TRUNK = MLPConfig(width=64, depth=2, expansion=1, step_width=16)
DRAWS = 20_000

Readings = Callable[[int, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


def readings(first: float, second: float) -> Readings:
    """Targets (N,), and what the sensors say of them."""

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        target, n, other = torch.randn(3, count, generator=generator)
        seen = {"a": target + first * n, "b": target + second * other, "nothing": torch.zeros(count)}
        return target, {key: value.view(-1, 1, 1) for key, value in seen.items()}

    return draw


def either_side(side: float) -> Readings:
    """Actions N(side, 0.25), whatever is seen."""

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        action = side + 0.5 * torch.randn(count, generator=generator)
        return action, {key: torch.zeros(count, 1, 1) for key in KEYS}

    return draw


def train(config: PolicyConfig, data: Readings, *, updates: int, seed: int, hidden: float = 0.0) -> Any:
    """Train on fresh draws; with `hidden`, this share of the readings is shown as zeros."""
    unit = torch.zeros(1), torch.ones(1)
    normalizer = Normalizer({key: unit for key in (*KEYS, "action")})
    policy = build_policy(config, config.chunk.apply(SPEC), normalizer, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        target, seen = data(512, generator)
        if hidden:
            shown = (torch.rand(512, generator=generator) >= hidden).view(-1, 1, 1)
            seen = {key: value * shown for key, value in seen.items()}
        batch = Batch(seen, target.view(-1, 1, 1), torch.ones(512, 1, dtype=torch.bool))
        optimizer.zero_grad()
        policy(batch, generator).backward()
        optimizer.step()
        schedule.step()
    return policy.eval()


def diffusion(*keys: str) -> DiffusionConfig:
    return DiffusionConfig(chunk=ChunkConfig(observation=keys, **CHUNK), trunk=TRUNK, sampler=SAMPLER)


def success(policy: Policy, data: Readings, seed: int, count: int = DRAWS) -> float:
    """Share of draws that come near the target."""
    target, seen = data(count, torch.Generator().manual_seed(seed))
    drawn = policy.sample(seen, generator=torch.Generator().manual_seed(seed + 1)).flatten()
    return ((drawn - target).abs() < NEAR).float().mean().item()


def exact(terms: Sequence[tuple[float, float]]) -> float:
    """Success of exact posteriors under DDIM: the sampler's own recursion, every step of which is linear.

    Args:
        terms: weight and noise of each sensor; infinite noise for a policy that sees nothing.
    """
    alphas, sigmas = (level.tolist() for level in levels("squaredcos_cap_v2", SAMPLER.train_steps))
    shares = [(s**2 / (1 + s**2), 1 / (1 + s**2)) if math.isfinite(s) else (1.0, 0.0) for _, s in terms]
    visited = range(90, -1, -10)
    own, by_reading = 1.0, [0.0] * len(terms)  # how the sample depends on its noise and on every reading
    for k, after in zip(visited, [*visited[1:], None], strict=True):
        alpha, sigma = alphas[k], sigmas[k]
        next_alpha, next_sigma = (1.0, 0.0) if after is None else (alphas[after], sigmas[after])
        # eps_i = slope_i (x - alpha mean_i reading_i)
        slopes = [w * sigma / (alpha**2 * v + sigma**2) for (w, _), (v, _) in zip(terms, shares, strict=True)]
        keep = next_alpha / alpha
        change = next_sigma - keep * sigma
        own *= keep + change * sum(slopes)
        by_reading = [
            (keep + change * sum(slopes)) * b - change * slope * alpha * mean
            for b, slope, (_, mean) in zip(by_reading, slopes, shares, strict=True)
        ]
    noises = [(b * s) ** 2 for b, (_, s) in zip(by_reading, terms, strict=True) if b]
    return within(math.sqrt(own**2 + (sum(by_reading) - 1) ** 2 + sum(noises)))


def within(std: float) -> float:
    return 2 * NormalDist().cdf(NEAR / std) - 1


def chosen(members: Sequence[Policy], data: Readings) -> tuple[float, ...]:
    """The weight that 2,000 draws choose on a grid of tenths; other draws than those reported."""

    def play(weights: tuple[float, ...], seeds: Sequence[int]) -> np.ndarray:
        target, seen = data(len(seeds), torch.Generator().manual_seed(seeds[0]))
        policy = compose(members, weights, sampler=SAMPLER)
        drawn = policy.sample(seen, generator=torch.Generator().manual_seed(seeds[0] + 1)).flatten()
        return ((drawn - target).abs() < NEAR).double().numpy()

    return grid_search(Trials(play), simplex_grid(2), Seeds(selection=2000)).weights


def denoising(members: Sequence[GenerativePolicy], data: Readings) -> float:
    """The first weight that denoises fresh targets best."""
    target, seen = data(DRAWS, torch.Generator().manual_seed(77))
    episodes = Episodes(
        spec=SPEC,
        observation={key: value.view(-1, 1).numpy() for key, value in seen.items()},
        action=target.view(-1, 1).numpy(),
        ends=np.arange(1, DRAWS + 1),
    )
    return simplex_minimum(error_gram(compose(members, sampler=SAMPLER), episodes, count=DRAWS))[0]


def curve(name: str, options: argparse.Namespace) -> tuple[list[list[str]], dict[str, Any]]:
    """One pair of sensors: closed form, learned members, plain regressors."""
    first, second = REGIMES[name]
    data = readings(first, second)
    closed = {w: exact([(w, first), (1 - w, second)]) for w in WEIGHTS}
    learned: dict[float, list[float]] = {w: [] for w in WEIGHTS}
    best, prior, at_best = [], [], []
    plain: dict[str, list[float]] = {"first": [], "second": [], "both": []}
    for seed in range(options.seeds):
        members = [
            train(diffusion(key), data, updates=options.updates, seed=10 * seed + i)
            for i, key in enumerate("ab")
        ]
        for w in WEIGHTS:
            learned[w].append(success(compose(members, (w, 1 - w), sampler=SAMPLER), data, 100_000 + seed))
        best.append(chosen(members, data)[0])
        prior.append(denoising(members, data))
        weights = (best[-1], 1 - best[-1])
        at_best.append(success(compose(members, weights, sampler=SAMPLER), data, 150_000 + seed))
        for who, keys in (("first", ("a",)), ("second", ("b",)), ("both", ("a", "b"))):
            config = RegressorConfig(chunk=ChunkConfig(observation=keys, **CHUNK), trunk=TRUNK)
            regressor = train(config, data, updates=options.updates, seed=10 * seed)
            plain[who].append(success(regressor, data, 100_000 + seed))
    optimum = max(np.linspace(0, 1, 101), key=lambda w: exact([(w, first), (1 - w, second)]))
    label = f"{name} ({first:g}, {second:g})"
    rows = [
        [label, "closed form", *(f"{closed[w]:.3f}" for w in WEIGHTS), f"{optimum:.2f}", ""],
        [
            label,
            "learned",
            *(share(learned[w]) for w in WEIGHTS),
            ", ".join(f"{w:.1f}" for w in best),
            ", ".join(f"{w:.2f}" for w in prior),
        ],
    ]
    exact_prior = second**2 / (first**2 + second**2)
    rows[0][-1] = f"{exact_prior:.2f}"
    return rows, {
        "closed": closed,
        "learned": learned,
        "chosen": best,
        "at_chosen": at_best,
        "prior": prior,
        "regressors": plain,
    }


def references(options: argparse.Namespace) -> dict[str, list[float]]:
    """Other ways to use both sensors of the first regime, per training seed; and what is exact."""
    first, second = REGIMES["equal sensors"]
    data = readings(first, second)
    found: dict[str, list[float]] = {
        "one draw from the exact posterior of both": [within(math.sqrt(2 / 9))],
        "one draw from the product of both posteriors": [
            # N((m1 + m2) / 2, 0.1) with m_i = 0.8 y_i: errors of the mean and of the draw.
            within(math.sqrt(0.1 + (0.8 - 1) ** 2 + 2 * (0.4 * 0.5) ** 2))
        ],
        "exact classifier-free form": [exact([(1.0, first), (1.0, second), (-1.0, math.inf)])],
        "learned classifier-free form": [],
        "learned even mixture": [],
        "learned with both sensors": [],
    }
    for seed in range(options.seeds):
        settings = {"updates": options.updates, "seed": 100 + 10 * seed}
        nobody = train(diffusion("nothing"), data, **settings)
        members = [train(diffusion(key), data, **settings) for key in "ab"]
        both = train(diffusion("a", "b"), data, **settings)
        free = compose_conditional(nobody, members, (1.0, 1.0), sampler=SAMPLER)
        found["learned classifier-free form"].append(success(free, data, 100_000 + seed))
        found["learned even mixture"].append(success(compose(members, sampler=SAMPLER), data, 100_000 + seed))
        found["learned with both sensors"].append(success(both, data, 100_000 + seed))
    return found


def disagreement(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Two policies, one on either side of 0: where do mixtures, OR and AND of them go?"""
    found: dict[str, dict[str, list[float]]] = {}
    nothing = {key: torch.zeros(DRAWS, 1, 1) for key in KEYS}
    for seed in range(options.seeds):
        left, right = (
            train(diffusion("nothing"), either_side(side), updates=options.updates, seed=200 + seed)
            for side in (-2.0, 2.0)
        )
        made: Mapping[str, Policy] = {
            "the left one alone": compose([left], sampler=SDE),
            "the right one alone": compose([right], sampler=SDE),
            "even mixture": compose([left, right], sampler=SDE),
            "OR, shares 0.5 and 0.5": superpose([left, right], "or", sampler=SDE),
            "OR, shares 0.8 and 0.2": superpose([left, right], "or", prior=(0.8, 0.2), sampler=SDE),
            "AND": superpose([left, right], "and", sampler=SDE),
        }
        for name, policy in made.items():
            drawn = policy.sample(nothing, generator=torch.Generator().manual_seed(100_000 + seed)).flatten()
            kept = found.setdefault(name, {"right": [], "near a mode": []})
            kept["right"].append((drawn > 0).float().mean().item())
            kept["near a mode"].append(((drawn.abs() - 2).abs() < 1).float().mean().item())
    return found


def share(values: Sequence[float]) -> str:
    """Mean share over trainings, with its interval."""
    return mean_interval(values, within=(0.0, 1.0)).decimal()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each policy")
    parser.add_argument("--updates", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, data = [], {}
    for name in REGIMES:
        own, data[name] = curve(name, options)
        rows += own
    data["references"], data["disagreement"] = references(options), disagreement(options)
    empty = [""] * len(WEIGHTS)
    for name, regressors in ((name, data[name]["regressors"]) for name in REGIMES):
        told = ", ".join(f"{who} {np.mean(values):.3f}" for who, values in regressors.items())
        rows.append([name, f"regressors: {told}", *empty, "", ""])
    for what, values in data["references"].items():
        told = f"{values[0]:.3f}" if len(values) == 1 else share(values)
        rows.append(["equal sensors", f"{what}: {told}", *empty, "", ""])
    for what, shares in data["disagreement"].items():
        told = f"{share(shares['right'])} right, {np.mean(shares['near a mode']):.3f} near a mode"
        rows.append(["N(-2, 0.25) and N(2, 0.25)", f"{what}: {told}", *empty, "", ""])
    record(
        "two_sensors",
        title="Two policies with a noisy sensor each: success against the weight of the first",
        columns=[
            "sensors (noise)",
            "members",
            *(f"w = {w:g}" for w in WEIGHTS),
            "best or chosen w",
            "w that denoises best",
        ],
        rows=rows,
        headline="; ".join(
            f"{name}: alone {max(np.mean(data[name]['learned'][w]) for w in (0.0, 1.0)):.3f}, "
            f"composed with the chosen weight {np.mean(data[name]['at_chosen']):.3f}"
            for name in REGIMES
        ),
        notes=[
            f"Learned: mean [95 %] over {options.seeds} trainings of {options.updates:,} updates of 512 draws; {DRAWS:,} fresh "
            "draws each.",
            "Chosen: by 2,000 draws per weight that are not among those reported. DDIM, 10 steps, for parents and "
            "compositions alike.",
            "Regressors predict the mean, which is what |a - a*| < 0.5 rewards; a draw cannot beat them.",
            f"OR, AND and the policies beside them: reverse diffusion in {SDE.steps} steps.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
