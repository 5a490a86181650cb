"""What samples cost a vision-language-action policy: K chunks against one, and a prefix encoded once against every step.

Times are medians of alternating calls in one process, on one thread, in processor time, which other programs on the
machine disturb least; ratios are of calls made side by side. The larger policy has pi0's form, three cameras of 64 tokens and chunks of 50 actions; no trained weights are needed to time it.

Usage: python benchmarks/vla_samples.py [--rounds 5]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from record import record

from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.policies.vla.config import VLAConfig
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.streams import StreamsConfig
from sensorimotor.policies.vla.text import BytesConfig
from sensorimotor.policies.vla.vision import PatchConfig

SAMPLES = (1, 8)
STEPS = (1, 2, 5, 10)


def policies() -> dict[str, tuple[VLAPolicy, dict[str, Any]]]:
    """The tiny preset and a larger policy, each with an observation."""
    tiny = PRESETS["vla_tiny"].policy
    assert isinstance(tiny, VLAConfig)
    larger = VLAConfig(
        chunk=ChunkConfig(observation_steps=1, horizon=50, execute=25),
        vision=PatchConfig(size=224, patch=28),
        text=BytesConfig(),
        streams=StreamsConfig(
            layers=4,
            heads=8,
            groups=1,
            head_width=64,
            prefix_width=512,
            prefix_hidden=2048,
            expert_width=128,
            expert_hidden=256,
        ),
    )
    return {
        "tiny (2 layers, 1 camera)": _built(tiny, 1, 32),
        "larger (4 layers, 3 cameras)": _built(larger, 3, 224),
    }


def _built(config: VLAConfig, cameras: int, size: int) -> tuple[VLAPolicy, dict[str, Any]]:
    images = {
        "image.top" if i == 0 else f"image.{i}": Field(shape=(size, size, 3), dtype="uint8")
        for i in range(cameras)
    }
    observation = {"state": Field(shape=(2,)), **images, "instruction": Field(shape=(), dtype="str")}
    spec = Spec(observation=observation, action=Field(shape=(2,)), control_hz=10)
    config = replace(config, chunk=replace(config.chunk, observation=tuple(observation)))
    unit = (torch.zeros(2), torch.ones(2))
    policy = build_policy(config, config.chunk.apply(spec), Normalizer({"state": unit, "action": unit}))
    assert isinstance(policy, VLAPolicy)
    seen = {key: torch.zeros(1, 1, size, size, 3, dtype=torch.uint8) for key in images}
    return policy.eval(), {
        "state": torch.zeros(1, 1, 2),
        **seen,
        "instruction": ["push the T to the left goal"],
    }


def uncached(policy: VLAPolicy, observation: dict[str, Any], steps: int) -> torch.Tensor:
    """One chunk, the prefix encoded anew for every step."""
    x = torch.zeros(1, policy.spec.horizon, policy.spec.action_dim)
    with torch.no_grad():
        for i in range(steps):
            velocity = policy.predict_velocity(x, torch.tensor(1 - i / steps), policy.encode(observation))
            x = x - velocity / steps
    return x


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of every call, in turn; the first round is left out."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(1e3 * (time.process_time() - began))
    return {name: values[1:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="of the larger policy; the tiny one gets ten times as many"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, data = [], {}
    for name, (policy, observation) in policies().items():
        rounds = options.rounds * (10 if name.startswith("tiny") else 1)
        for steps in STEPS:
            calls: dict[str, Callable[[], Any]] = {
                f"K = {k}": partial(policy.sample, observation, samples=k, sampler=FlowEuler(steps=steps))
                for k in SAMPLES
            }
            if steps == STEPS[-1]:
                calls["K = 1, prefix encoded at every step"] = partial(uncached, policy, observation, steps)
            times = timed(calls, rounds)
            for call, values in times.items():
                ratio = median(v / b for v, b in zip(values, times["K = 1"], strict=True))
                rows.append([name, str(steps), call, f"{median(values):.1f}", f"{ratio:.2f}"])
                data[f"{name}, {steps} steps: {call}"] = {"ms": median(values), "ratio": ratio}
    record(
        "vla_samples",
        title="Vision-language-action: what further chunks of one observation cost",
        columns=["policy", "flow steps", "call", "ms", "times K = 1"],
        rows=rows,
        headline="; ".join(
            f"{row[0]}, {row[1]} steps: K = 8 costs {row[4]} times K = 1"
            for row in rows
            if row[2] == "K = 8" and row[1] in ("2", "10")
        ),
        notes=["One thread, processor time; ratios are medians of pairs of neighbouring calls."],
        data=data,
    )


if __name__ == "__main__":
    main()
