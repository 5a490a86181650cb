"""What composing costs: a composition against its members alone, members asked in one go, and a choice among K candidates.

Everything is timed in turns in one process, on one thread, in processor time, which other programs on the machine disturb
least (but two threads in time on the wall); ratios are of calls made in the same round. All members draw by the same ten
DDIM steps. Networks have fresh weights: none are needed to time them.

Usage: python benchmarks/composition_cost.py [--rounds 20]
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from record import record
from torch.func import functional_call, stack_module_state

from sensorimotor.composition.composed import ComposedPolicy, compose
from sensorimotor.composition.reranked import rerank
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.presets import preset
from sensorimotor.policies.sampling import DDIM
from sensorimotor.policies.unet import UNetConfig
from sensorimotor.rl.critic import Critic
from sensorimotor.rl.factory import build_critic
from sensorimotor.rl.presets import CRITICS

OBSERVED = {"state": 2, "environment": 18}  # PushT's twenty numbers
CAMERA = "image.top"
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
    "one camera and a small U-Net": ("flow_pixels", {"trunk": UNetConfig(channels=(64, 128), step_width=64)}),
    "one camera and an MLP (flow_pixels)": ("flow_pixels", {}),
}
PAIRS = [("published U-Net", "small U-Net"), ("small U-Net", "transformer"), ("small U-Net", "residual MLP")]
Call = Callable[[], Any]


def push_t() -> tuple[Spec, Normalizer]:
    """PushT's numbers and a camera, with an identity normaliser."""
    fields = {key: Field(shape=(width,)) for key, width in OBSERVED.items()}
    fields[CAMERA] = Field(shape=(96, 96, 3), dtype="uint8")
    spec = Spec(observation=fields, action=Field(shape=(2,)), control_hz=10)
    widths = OBSERVED | {"action": 2}
    return spec, Normalizer({key: (torch.zeros(w), torch.ones(w)) for key, w in widths.items()})


def make(name: str, changes: Mapping[str, Any], seed: int = 0) -> Any:
    """A preset's policy."""
    spec, normalizer = push_t()
    config: Any = preset(name).policy
    seen = (CAMERA, "state") if name.endswith("pixels") else tuple(OBSERVED)
    chunk = replace(CHUNK, observation=seen)
    config = replace(config, chunk=chunk, **changes)
    return build_policy(config, chunk.apply(spec), normalizer, seed=seed).eval().requires_grad_(False)


def make_critic() -> Critic:
    """A critic of the next eight actions, of the preset's size."""
    spec, normalizer = push_t()
    config = CRITICS["cal_ql_points"].critic
    chunk = replace(config.chunk, observation=tuple(OBSERVED), horizon=8)
    return build_critic(replace(config, chunk=chunk), chunk.apply(spec), normalizer).requires_grad_(False)


def look() -> dict[str, torch.Tensor]:
    """One observation."""
    observation = {key: torch.rand(1, CHUNK.observation_steps, width) for key, width in OBSERVED.items()}
    frames = torch.randint(256, (1, CHUNK.observation_steps, 96, 96, 3), dtype=torch.uint8)
    return observation | {CAMERA: frames}


def call(policy: Any, samples: int = 1) -> Call:
    """Draw a chunk."""
    observation = look()
    return lambda: policy.sample(observation, samples=samples, sampler=SAMPLER)


def in_turn(policies: Sequence[Any], helper: Executor | None = None) -> Call:
    """Ask policies at ten levels and do nothing with their answers: what no mixing could undercut.

    In turn; or the first of them in a helper's thread, while the others are asked.
    """
    observation = look()
    x, levels = torch.randn(1, CHUNK.horizon, 2), torch.linspace(0.9, 0.05, SAMPLER.steps)

    @torch.no_grad()
    def ask(policy: Any, s: torch.Tensor, condition: Any) -> None:
        policy.predict_noise(x, s, condition)

    def draw() -> None:
        known = [policy.encode(observation) for policy in policies]
        for s in levels:
            asked = list(zip(policies, known, strict=True))
            aside = [] if helper is None else [helper.submit(ask, asked[0][0], s, asked[0][1])]
            for policy, condition in asked[len(aside) :]:
                ask(policy, s, condition)
            for future in aside:
                future.result()

    return draw


def take_turns(
    contenders: Mapping[str, Call], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, np.ndarray]:
    """Milliseconds of each contender in each round, after one round that does not count; the order rotates."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = clock()
            contenders[name]()
            if i:
                times[name].append(1e3 * (clock() - began))
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
    """A critic's choice among K candidates against one chunk, the observation encoded once for all candidates."""
    result, critic, observation = {}, make_critic(), look()
    for label, which in MANY.items():
        policy = compose([make(*which)], sampler=SAMPLER)
        choices = {k: rerank(policy, critic, samples=k) for k in CANDIDATES}
        shorter = {k: rerank(policy, critic, samples=k) for k in CANDIDATES[1:]}
        contenders: dict[str, Call] = {
            str(k): partial(choice.sample, observation) for k, choice in choices.items()
        }
        contenders |= {f"{k}, bfloat16": _in_bfloat16(choice, observation) for k, choice in shorter.items()}
        times = take_turns(contenders, rounds)
        for k, name, choice in [
            *((k, str(k), choice) for k, choice in choices.items()),
            *((k, f"{k}, bfloat16", choice) for k, choice in shorter.items()),
        ]:
            seconds = {who: entry.seconds for (who, _), entry in choice.ledger.entries.items()}
            result[f"{label}, K = {name}"] = {
                "ms": times[name],
                "ratio": times[name] / times["1"],
                "critic": np.array([seconds.get("critic", 0.0) / sum(seconds.values())]),
                "k": k,
            }
    return result


def _in_bfloat16(policy: Policy, observation: Mapping[str, torch.Tensor]) -> Call:
    def draw() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            policy.sample(observation)

    return draw


def threads(rounds: int) -> dict[str, Any]:
    """Two members side by side, a thread and a core each, against one after the other, in time on the wall."""
    result = {}
    with ThreadPoolExecutor(1) as helper:
        for names in PAIRS:
            members = [make(*MIXED[name]) for name in names]
            contenders = {"turn": in_turn(members), "beside": in_turn(members, helper)}
            times = take_turns(contenders, rounds, time.perf_counter)
            result[" beside ".join(names)] = {
                "ms": times["beside"],
                "ratio": times["beside"] / times["turn"],
                "threads": 2,
            }
    return result


def mapped(rounds: int) -> dict[str, Any]:
    """The networks of two U-Nets under vmap over their stacked weights, against one after the other: why they are not stacked."""
    nets: list[Any] = [make("flow", {}, seed=seed).trunk for seed in range(2)]
    x, step = torch.randn(1, CHUNK.horizon, 2), torch.tensor([500.0])
    seen = torch.randn(2, 1, CHUNK.observation_steps, sum(OBSERVED.values()))
    weights, base = stack_module_state(nets), nets[0]
    together = torch.vmap(lambda p, b, c: functional_call(base, (p, b), (x, step, c)))

    @torch.no_grad()
    def at_once() -> None:
        together(*weights, seen)

    @torch.no_grad()
    def one_by_one() -> None:
        for net, condition in zip(nets, seen, strict=True):
            net(x, step, condition)

    times = take_turns({"vmap": at_once, "turn": one_by_one}, 5 * rounds)
    return {
        "2 x small U-Net, one call": {
            "ms": times["vmap"],
            "ratio": times["vmap"] / times["turn"],
            "vmap": True,
        }
    }


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
    if "vmap" in each:
        return "torch.vmap over stacked weights"
    if "threads" in each:
        return "two threads, time on the wall"
    if each["k"] == 1:
        return ""
    return f"V-GPS's {PAPER[each['k']]}; {100 * each['critic'].item():.0f} % of it the critic's"


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
        "threads": threads(options.rounds),
        "mapped": mapped(options.rounds),
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
            *rows(parts["threads"], "of one thread"),
            *rows(parts["mapped"], "of one by one"),
        ],
        headline=f"{large:.2f} of the members' sum with the published U-Net among them, {middling:.2f} without; "
        f"two tiny members asked in one go {tiny:.2f}",
        notes=[
            f"processor time on one thread, medians of {options.rounds} rounds ({max(3, options.rounds // 3)} of many "
            "chunks) with quartiles; ten DDIM steps, batch 1",
            "the sum: every member alone draws its chunk by the same sampler, in the same round",
            "asking them in turn: the same answers and nothing made of them. A member alone keeps its weights in the "
            "processor's caches for ten steps, members in turn push each other out",
            "V-GPS's ratios are of another policy on a GPU; K candidates are K times the arithmetic, which one core has no "
            "room for; bfloat16 is torch.autocast around the call, against one chunk without it",
        ],
        data={
            part: {
                label: {k: v.round(3).tolist() for k, v in each.items() if k not in ("k", "threads", "vmap")}
                for label, each in found.items()
            }
            for part, found in parts.items()
        },
    )


if __name__ == "__main__":
    main()
