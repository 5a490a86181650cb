"""What composing costs: a composition against its members alone, members asked in one go, and K candidates against one.

Everything is timed in turns in one process, on one thread, in processor time, which other programs on the machine disturb
least; ratios are of calls made in the same round. All members draw by the same ten DDIM steps. Networks have fresh
weights: none are needed to time them.

Usage: python benchmarks/composition_cost.py [--rounds 20]
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from record import record

from sensorimotor.composition.composed import ComposedPolicy, compose
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.presets import preset
from sensorimotor.policies.sampling import DDIM

OBSERVED = {"state": 2, "environment": 18}  # PushT's twenty numbers
CHUNK, SAMPLER = ChunkConfig(start=-1), DDIM(steps=10, clip=None)
CANDIDATES = (1, 10, 50)
PAPER = {10: 1.28, 50: 1.59}  # V-GPS, arXiv 2410.13816, an Octo policy on a GPU, the choice by value included
MIXED = {
    "published U-Net": ("diffusion_unet_published", {}),
    "residual MLP": ("flow_points", {}),
    "transformer": ("flow_transformer", {}),
    "small U-Net": ("diffusion", {}),
}
ALIKE = {
    "MLP 64 x 2": ("flow_points", {"trunk": MLPConfig(width=64, depth=2)}),
    "MLP 512 x 3 (flow_points)": ("flow_points", {}),
    "small U-Net (flow), not stacked": ("flow", {}),
}
MANY = {
    "published U-Net": ("diffusion_unet_published", {}),
    "small U-Net (diffusion)": ("diffusion", {}),
    "MLP 512 x 3 (flow_points)": ("flow_points", {}),
}
Call = Callable[[], Any]


def make(name: str, changes: Mapping[str, Any], seed: int = 0) -> Any:
    """A preset's policy for PushT's numbers, with an identity normaliser."""
    fields = {key: Field(shape=(width,)) for key, width in OBSERVED.items()}
    spec = Spec(observation=fields, action=Field(shape=(2,)), control_hz=10)
    widths = OBSERVED | {"action": 2}
    normalizer = Normalizer({key: (torch.zeros(w), torch.ones(w)) for key, w in widths.items()})
    config: Any = replace(preset(name).policy, chunk=CHUNK, **changes)
    policy = build_policy(config, CHUNK.apply(spec), normalizer, seed=seed).eval()
    return policy.requires_grad_(False)


def call(policy: Any, samples: int = 1) -> Call:
    """Draw a chunk."""
    observation = {key: torch.rand(1, CHUNK.observation_steps, width) for key, width in OBSERVED.items()}
    return lambda: policy.sample(observation, samples=samples, sampler=SAMPLER)


def in_turn(policies: Sequence[Any]) -> Call:
    """Ask policies at ten levels in turn and do nothing with their answers: what no mixing could undercut."""
    observation = {key: torch.rand(1, CHUNK.observation_steps, width) for key, width in OBSERVED.items()}
    x, levels = torch.randn(1, CHUNK.horizon, 2), torch.linspace(0.9, 0.05, SAMPLER.steps)

    @torch.no_grad()
    def ask() -> None:
        known = [policy.encode(observation) for policy in policies]
        for s in levels:
            for policy, condition in zip(policies, known, strict=True):
                policy.predict_noise(x, s, condition)

    return ask


def take_turns(contenders: Mapping[str, Call], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each contender in each round, after one round that does not count; the order rotates."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = time.process_time()
            contenders[name]()
            if i:
                times[name].append(1e3 * (time.process_time() - began))
    return {name: np.array(found) for name, found in times.items()}


def middle(values: np.ndarray) -> str:
    """Median with quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def mixed(rounds: int) -> dict[str, Any]:
    """Two to four members of different architectures against the sum of the members alone."""
    members = {label: make(*which, seed=i) for i, (label, which) in enumerate(MIXED.items())}
    labels = list(members)
    contenders = {label: call(policy) for label, policy in members.items()}
    sets = [labels[:n] for n in (2, 3, 4)] + [labels[1:3], labels[1:]]
    for names in sets:
        label, chosen = " + ".join(names), {name: members[name] for name in names}
        contenders |= {label: call(compose(chosen)), f"{label} in turn": in_turn(list(chosen.values()))}
    times = take_turns(contenders, rounds)
    return {
        label: {
            "ms": times[label],
            "ratio": times[label] / sum(times[name] for name in names),
            "turn": times[label] / times[f"{label} in turn"],
        }
        for label, names in ((" + ".join(names), names) for names in sets)
    }


def alike(rounds: int) -> dict[str, Any]:
    """Members of one architecture, asked in one go where that is done, against the sum of the members alone."""
    result = {}
    for label, which in ALIKE.items():
        members = [make(*which, seed=seed) for seed in range(4)]
        for count in (2, 4):
            for samples in (1, 10):
                result[f"{count} x {label}, K = {samples}"] = _alike(members[:count], samples, rounds)
    return result


def _alike(members: Sequence[Any], samples: int, rounds: int) -> dict[str, Any]:
    apart = compose(members)
    apart.teams = []
    contenders = {str(i): call(member, samples) for i, member in enumerate(members)}
    policies: dict[str, ComposedPolicy] = {"together": compose(members), "apart": apart}
    times = take_turns(contenders | {name: call(p, samples) for name, p in policies.items()}, rounds)
    total = sum(times[name] for name in contenders)
    return {
        "ms": times["together"],
        "ratio": times["together"] / total,
        "apart": times["apart"] / total,
    }


def many(rounds: int) -> dict[str, Any]:
    """K candidates per chunk against one, the observation encoded once for all."""
    result = {}
    for label, which in MANY.items():
        policy = make(*which)
        times = take_turns({str(k): call(policy, k) for k in CANDIDATES}, rounds)
        for k in CANDIDATES:
            result[f"{label}, K = {k}"] = {"ms": times[str(k)], "ratio": times[str(k)] / times["1"], "k": k}
    return result


def rows(found: Mapping[str, Mapping[str, Any]], against: str) -> list[list[str]]:
    """Table cells of one part."""
    return [
        [label, f"{np.median(each['ms']):.1f}", f"{middle(each['ratio'])} {against}", remark(each)]
        for label, each in found.items()
    ]


def remark(each: Mapping[str, Any]) -> str:
    """What the ratio may be held against."""
    if "turn" in each:
        return f"{np.median(each['turn']):.2f} of asking them in turn"
    if "apart" in each:
        return f"one by one {np.median(each['apart']):.2f}"
    return f"V-GPS's {PAPER[each['k']]}" if each.get("k") in PAPER else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {
        "mixed": mixed(options.rounds),
        "alike": alike(options.rounds),
        "many": many(max(3, options.rounds // 3)),
    }
    large, middling = (
        max(
            float(np.median(e["ratio"]))
            for name, e in parts["mixed"].items()
            if ("published" in name) == with_it
        )
        for with_it in (True, False)
    )
    tiny = float(np.median(next(iter(parts["alike"].values()))["ratio"]))
    record(
        "composition_cost",
        title="Cost of a composed chunk",
        columns=["what", "ms", "ratio", "beside"],
        rows=[
            *rows(parts["mixed"], "of the sum"),
            *rows(parts["alike"], "of the sum"),
            *rows(parts["many"], "of one chunk"),
        ],
        headline=f"{large:.2f} of the members' sum with the published U-Net among them, {middling:.2f} without; "
        f"two tiny members asked in one go {tiny:.2f}",
        notes=[
            f"processor time on one thread, medians of {options.rounds} rounds ({max(3, options.rounds // 3)} of many "
            "chunks) with quartiles; ten DDIM steps, batch 1",
            "the sum: every member alone draws its chunk by the same sampler, in the same round",
            "asking them in turn: the same answers and nothing made of them; a member alone keeps its weights in the "
            "processor's caches for ten steps, members in turn push each other out",
            "V-GPS's ratios are of another policy on a GPU, the value's choice included",
        ],
        data={
            part: {
                label: {k: v.round(3).tolist() for k, v in each.items() if k != "k"}
                for label, each in found.items()
            }
            for part, found in parts.items()
        },
    )


if __name__ == "__main__":
    main()
