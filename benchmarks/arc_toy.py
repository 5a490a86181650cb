"""Two ways around an obstacle: what policies make of demonstrations that disagree.

    python benchmarks/arc_toy.py [--seeds 5]

Observation: the height y_g of a goal. Chunk: 8 points of an arc to it, x = 0.8 t, y = y_g t + sign 0.6 sin(pi t), with a
little noise; the sign is always + (one mode) or random (two modes). Collapse is the share of chunks that pass near the
straight line between the two arcs, where no demonstration goes; RMSE is to the nearer noiseless arc. NFE are the network
evaluations that a chunk took; those of an energy include a gradient, which costs about as much again.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sensorimotor.data.intervals import mean_interval
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.consistency import ConsistencyConfig, ConsistencyJump
from sensorimotor.policies.descent import Descent
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.energy import EnergyConfig
from sensorimotor.policies.energy_mlp import EnergyMLPConfig
from sensorimotor.policies.factory import PolicyConfig, build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.reflow import ReflowConfig
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, SamplerConfig, Trace
from sensorimotor.policies.teacher import Student
from sensorimotor.policies.unroll import Unroll

POINTS = 8
SPEC = Spec(observation={"state": Field(shape=(1,))}, action=Field(shape=(2,)), control_hz=10)
CHUNK = ChunkConfig(observation_steps=1, horizon=POINTS, execute=POINTS)
SHARED = {"chunk": CHUNK, "trunk": MLPConfig(width=128, depth=1, expansion=1, step_width=16)}
ENERGY = EnergyConfig(chunk=CHUNK, trunk=EnergyMLPConfig(width=128, depth=1, expansion=1))
FLOW = [FlowEuler(steps=n) for n in (1, 2, 5, 10)]
JUMPS = [ConsistencyJump(steps=n) for n in (1, 2, 3)]
DIFFUSION = [DDPM(steps=100), DDIM(steps=2), DDIM(steps=10), DDIM(steps=50), DDIM(steps=100)]
DESCENT = [Descent(steps=n) for n in (2, 5, 10)]

Sampler = SamplerConfig | ConsistencyJump | Descent


@dataclass(frozen=True)
class Family:
    """A method and the samplers it is tried with; none for a policy that does not sample.

    Attributes:
        config: of the policy.
        samplers: to try.
        teacher: family that a student learns from, trained before it with the same seed.
        share: of the updates that the others get; one through a whole descent costs several.
    """

    config: PolicyConfig
    samplers: tuple[Sampler, ...] = ()
    teacher: str | None = None
    share: float = 1.0


def regressing(steps: int) -> Family:
    """The descent of EBT-Policy without what makes it robust: fixed steps, no momentum, no noise."""
    unroll = Unroll(steps=steps, extra=0, size_spread=1.0, noise=(0.0, 0.0))
    return Family(replace(ENERGY, objective="regress", unroll=unroll), tuple(DESCENT), share=0.25)


FAMILIES = {
    "regression": Family(RegressorConfig(**SHARED)),
    "diffusion": Family(DiffusionConfig(**SHARED), tuple(DIFFUSION)),
    "flow": Family(FlowConfig(**SHARED), tuple(FLOW)),
    "consistency": Family(ConsistencyConfig(**SHARED), tuple(JUMPS), teacher="flow"),
    "reflow": Family(ReflowConfig(**SHARED), tuple(FLOW[:2]), teacher="flow"),
    "ebt denoise": Family(replace(ENERGY, objective="denoise"), tuple(DESCENT)),
    "ebt eqm": Family(ENERGY, tuple(DESCENT)),
    "ebt regress, K = 2": regressing(2),
    "ebt regress, K = 6": regressing(6),
}


def arc(goal: Tensor, sign: Tensor) -> Tensor:
    """Noiseless arcs (B, 8, 2) to goals (B,) on the side of `sign` (B,)."""
    t = torch.linspace(0, 1, POINTS)
    y = goal[:, None] * t + 0.6 * sign[:, None] * torch.sin(math.pi * t)
    return torch.stack([(0.8 * t).expand_as(y), y], dim=-1)


def demonstrate(count: int, modes: int, generator: torch.Generator) -> Batch:
    """Demonstrations as a training batch."""
    goal = torch.rand(count, generator=generator) - 0.5
    sign = torch.ones(count)
    if modes == 2:
        sign = 2.0 * torch.randint(2, (count,), generator=generator) - 1
    action = arc(goal, sign) + 0.01 * torch.randn(count, POINTS, 2, generator=generator)
    return Batch({"state": goal.view(-1, 1, 1)}, action, torch.ones(count, POINTS, dtype=torch.bool))


def train(
    config: PolicyConfig,
    modes: int,
    *,
    updates: int,
    seed: int,
    batch: int = 128,
    teacher: Policy | None = None,
) -> Policy:
    """Train on fresh demonstrations; AdamW 1e-3 with a cosine, gradients clipped to 1."""
    # Arcs lie inside [-1, 1] as they are.
    identity = Normalizer(
        {"state": (torch.zeros(1), torch.ones(1)), "action": (torch.zeros(2), torch.ones(2))}
    )
    policy = build_policy(config, config.chunk.apply(SPEC), identity, seed=seed)
    if teacher is not None and isinstance(policy, Student):
        policy.learn_from(teacher)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        optimizer.zero_grad()
        policy(demonstrate(batch, modes, generator), generator).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return policy.eval()


def judge(policy: Policy, sampler: Sampler | None, modes: int, *, count: int = 2000) -> Mapping[str, float]:
    """Network evaluations, RMSE to the nearer arc, collapse, and the share of chunks on the upper side."""
    generator = torch.Generator().manual_seed(10_000)
    goal = torch.rand(count, generator=generator) - 0.5
    observation = {"state": goal.view(-1, 1, 1)}
    trace = Trace(evaluations=torch.ones(count, 1))
    if isinstance(policy, GenerativePolicy):
        chunk = policy.sample(observation, generator=generator, sampler=sampler, trace=trace)[:, 0]
    else:
        chunk = policy.sample(observation)[:, 0]
    assert trace.evaluations is not None
    signs = (1.0, -1.0) if modes == 2 else (1.0,)
    errors = [(chunk - arc(goal, torch.full((count,), s))).square().mean(dim=(1, 2)) for s in signs]
    middle = chunk[:, 3:5, 1].mean(dim=1) - goal / 2
    return {
        "evaluations": trace.evaluations.float().mean().item(),
        "rmse": torch.stack(errors).amin(dim=0).mean().sqrt().item(),
        "collapse": (middle.abs() < 0.3).float().mean().item(),
        "upper": (middle > 0).float().mean().item(),
    }


def name(sampler: Sampler | None) -> str:
    """How a table calls a sampler."""
    return "one prediction" if sampler is None else f"{type(sampler).__name__} {sampler.steps}"


def cell(values: list[float], digits: int) -> str:
    return mean_interval(values, within=(0.0, 1.0)).decimal(
        digits
    )  # neither errors nor shares are outside here


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each method")
    parser.add_argument("--updates", type=int, default=4000, help="updates of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    from record import record

    trained: dict[tuple[int, str | None, int], Policy] = {}
    results: dict[tuple[int, str, str], list[Mapping[str, float]]] = {}
    for modes in (1, 2):
        for family, what in FAMILIES.items():
            for seed in range(options.seeds):
                teacher = trained.get((modes, what.teacher, seed))
                updates = round(what.share * options.updates)
                policy = train(what.config, modes, updates=updates, seed=seed, teacher=teacher)
                trained[modes, family, seed] = policy
                for sampler in what.samplers or (None,):
                    key = (modes, family, name(sampler))
                    results.setdefault(key, []).append(judge(policy, sampler, modes))
    rows = []
    for (modes, family, sampler), runs in results.items():
        rmse, collapse, upper = ([run[q] for run in runs] for q in ("rmse", "collapse", "upper"))
        shares = (
            [cell(collapse, 3), cell(upper, 3) if family != "regression" else ""] if modes == 2 else ["", ""]
        )
        spent = f"{np.mean([run['evaluations'] for run in runs]):g}"
        rows.append([str(modes), family, sampler, spent, cell(rmse, 4), *shares])
    shown = {k[1:]: np.mean([run["collapse"] for run in v]) for k, v in results.items() if k[0] == 2}
    record(
        "arc_toy",
        title="Two-mode arcs: error, and chunks between the modes",
        columns=["modes", "method", "sampler", "NFE", "RMSE to the nearer arc", "collapse", "upper side"],
        rows=rows,
        headline=(
            f"collapse with two modes: regression {shown['regression', 'one prediction']:.2f}, "
            f"DDPM 100 {shown['diffusion', 'DDPM 100']:.2f}, DDIM 10 {shown['diffusion', 'DDIM 10']:.2f}, "
            f"flow 10 {shown['flow', 'FlowEuler 10']:.2f}, "
            f"energy 10 {shown['ebt eqm', 'Descent 10']:.2f}"
        ),
        notes=[
            f"means over {options.seeds} trainings with 95 % Student intervals, 2000 chunks each; "
            f"{options.updates} updates of batch 128",
            "a residual MLP of width 128 for all, without a step input and with one output for energies; "
            "'upper side' should be 0.5 with two modes",
            "'ebt regress' gets a quarter of the updates, each through K steps; NFE are network evaluations per chunk",
        ],
        data=[{"modes": k[0], "method": k[1], "sampler": k[2], "runs": v} for k, v in results.items()],
    )


if __name__ == "__main__":
    main()
