"""Two coloured squares and an instruction: does the tiny vision-language-action policy go where it is told?

The world: a red and a blue square at random places of a 32 px picture, a position to start from, "go to red" or "go to
blue", and as demonstration the straight line to that square's centre. A chunk goes right if it ends nearer to the
named square than to the other.

Usage: python benchmarks/vla_toy.py [--updates 4000]
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from record import record
from torch import Tensor

from sensorimotor.data.intervals import wilson
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.policies.vla.config import VLAConfig
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.text import WordsConfig

SIZE, HALF, REACH = 32, 3, 0.8
COLOURS = ("red", "blue")
SPEC = Spec(
    observation={
        "state": Field(shape=(2,)),
        "image.top": Field(shape=(SIZE, SIZE, 3), dtype="uint8"),
        "instruction": Field(shape=(), dtype="str"),
    },
    action=Field(shape=(2,)),
    control_hz=10,
)


def draw_worlds(rows: int, generator: torch.Generator, *, horizon: int) -> tuple[Batch, Tensor, Tensor]:
    """Worlds with their demonstrations; the squares' centres (rows, 2, 2), red first, and the named one (rows,)."""
    centres = REACH * (2 * torch.rand(rows, 2, 2, generator=generator) - 1)
    near = (centres[:, 0] - centres[:, 1]).norm(dim=1) < 0.5
    while near.any():
        centres[near] = REACH * (2 * torch.rand(int(near.sum()), 2, 2, generator=generator) - 1)
        near = (centres[:, 0] - centres[:, 1]).norm(dim=1) < 0.5
    pixels = torch.arange(SIZE)
    at = ((centres + 1) / 2 * (SIZE - 1)).round()
    inside = (pixels[None, None, None] - at[..., None]).abs() <= HALF  # rows, square, axis, pixel
    squares = inside[:, :, 1, :, None] & inside[:, :, 0, None, :]
    image = torch.full((rows, SIZE, SIZE, 3), 255, dtype=torch.uint8)
    for square, colour in enumerate(([220, 30, 30], [30, 30, 220])):
        image[squares[:, square]] = torch.tensor(colour, dtype=torch.uint8)
    state = REACH * (2 * torch.rand(rows, 2, generator=generator) - 1)
    named = torch.randint(2, (rows,), generator=generator)
    target = centres[torch.arange(rows), named]
    share = torch.linspace(0, 1, horizon)[:, None]
    action = state[:, None] + share * (target - state)[:, None]
    observation: dict[str, Any] = {
        "state": state[:, None],
        "image.top": image[:, None],
        "instruction": [f"go to {COLOURS[i]}" for i in named],
    }
    return Batch(observation, action, torch.ones(rows, horizon, dtype=torch.bool)), centres, named


def fresh_policy(seed: int = 0) -> VLAPolicy:
    """The tiny preset for this world, eight actions long; numbers are already of order one."""
    preset = PRESETS["vla_tiny"].policy
    assert isinstance(preset, VLAConfig)
    chunk = ChunkConfig(
        observation=("state", "image.top", "instruction"), observation_steps=1, horizon=8, execute=8
    )
    words = WordsConfig(words=("go", "to", "red", "blue", "push", "the", "goal"))
    unit = (torch.zeros(2), torch.ones(2))
    config = replace(preset, chunk=chunk, text=words)
    policy = build_policy(config, chunk.apply(SPEC), Normalizer({"state": unit, "action": unit}), seed=seed)
    assert isinstance(policy, VLAPolicy)
    return policy


def learn(policy: VLAPolicy, updates: int, *, seed: int = 0, batch: int = 64) -> None:
    """AdamW with a cosine from 1e-3, worlds drawn anew for every update."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    policy.train()
    for _ in range(updates):
        worlds, _, _ = draw_worlds(batch, generator, horizon=policy.spec.horizon)
        optimizer.zero_grad()
        policy(worlds, generator).backward()
        optimizer.step()
        schedule.step()
    policy.eval()


def went_right(policy: VLAPolicy, rows: int, told: str, *, steps: int, seed: int = 1) -> tuple[int, float]:
    """How many of `rows` new worlds end at the named square, told rightly, the other one, or nothing; mean end error."""
    generator = torch.Generator().manual_seed(seed)
    worlds, centres, named = draw_worlds(rows, generator, horizon=policy.spec.horizon)
    says = {
        "named": [f"go to {COLOURS[i]}" for i in named],
        "other": [f"go to {COLOURS[1 - i]}" for i in named],
        "blank": ["" for _ in named],
    }[told]
    observation = {**worlds.observation, "instruction": says}
    ends = policy.sample(observation, generator=generator, sampler=FlowEuler(steps=steps))[:, 0, -1]
    away = (ends[:, None] - centres).norm(dim=2)
    error = away[torch.arange(rows), named].mean()
    return int((away.argmin(dim=1) == named).sum()), float(error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = fresh_policy()
    began = time.perf_counter()
    learn(policy, options.updates)
    minutes = (time.perf_counter() - began) / 60
    rows, data = [], {}
    for told, steps in (("named", 10), ("named", 2), ("named", 1), ("other", 10), ("blank", 10)):
        count, error = went_right(policy, options.rows, told, steps=steps)
        share = wilson(count, options.rows)
        rows.append([told, str(steps), share.percent(), f"{error:.3f}"])
        data[f"{told}, {steps} steps"] = {"named_square": vars(share), "error": error}
    record(
        "vla_toy",
        title=f"Two squares, one named: {options.updates:,} updates in {minutes:.1f} min on one core",
        columns=["instruction", "Euler steps", "ends at the square of the task [95 %]", "mean end error"],
        rows=rows,
        headline=f"named square {rows[0][2]}, told the other one {rows[3][2]}",
        notes=["Workspace +-0.8; a blank instruction says nothing of either. One training seed."],
        data=data,
    )


if __name__ == "__main__":
    main()
