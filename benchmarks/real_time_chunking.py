"""Does the next chunk stay with the choice of the one under way? Two ways around an obstacle, asked halfway.

    python benchmarks/real_time_chunking.py [--seeds 5]

The arcs of `arc_toy.py`, two modes. A chunk of 8 points is under way; three of them will have been executed when the
next chunk arrives, and six are known. Stays: share of next chunks on the same side. Seam: distance between the last
executed point and the first point of the next chunk, averaged over starts; 0.166 on one and the same arc.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from arc_toy import SHARED, arc, cell, name, train
from record import record
from torch import Tensor

from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.guidance import ChunkGuide
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import DDIM, DDPM, FlowEuler, SamplerConfig

DELAY, END, BETA = 3, 6, 10.0
FAMILIES = {
    "flow": (FlowConfig(**SHARED), (FlowEuler(steps=10),)),
    "diffusion": (DiffusionConfig(**SHARED), (DDIM(steps=10), DDPM(steps=100))),
}
METHODS = (
    "naive",
    "hard overwrite",
    "guided, vjp, linear",
    "guided, vjp, exp",
    "guided, identity, linear",
    "guided, identity, exp",
)


def options(method: str, previous: Tensor) -> dict[str, Any]:
    """What `sample` is told of the chunk under way."""
    match method.split(", "):
        case ["naive"]:
            return {}
        case ["hard overwrite"]:
            return {"prefix": previous[:, :DELAY]}
        case [_, jacobian, schedule]:
            settings: dict[str, Any] = {"jacobian": jacobian, "schedule": schedule}
            return {"guide": ChunkGuide(previous=previous, delay=DELAY, end=END, beta=BETA, **settings)}
        case _:
            raise SystemExit(f"unknown method {method!r}")


def judge(
    policy: GenerativePolicy, sampler: SamplerConfig, method: str, *, count: int
) -> Mapping[str, float]:
    """Share that stays, seam, share between the modes, and error to the nearer arc."""
    generator = torch.Generator().manual_seed(10_000)
    goal = torch.rand(count, generator=generator) - 0.5
    sign = 2.0 * torch.randint(2, (count,), generator=generator) - 1
    previous = arc(goal, sign) + 0.01 * torch.randn(count, 8, 2, generator=generator)
    told = options(method, previous)
    observation = {"state": goal.view(-1, 1, 1)}
    chunk = policy.sample(observation, generator=generator, sampler=sampler, **told)[:, 0]
    middle = chunk[:, 3:5, 1].mean(dim=1) - goal / 2
    errors = [(chunk - arc(goal, torch.full((count,), s))).square().mean(dim=(1, 2)) for s in (1.0, -1.0)]
    return {
        "stays": (middle * sign > 0).float().mean().item(),
        "seam": (chunk[:, DELAY] - previous[:, DELAY - 1]).norm(dim=-1).mean().item(),
        "between": (middle.abs() < 0.3).float().mean().item(),
        "rmse": torch.stack(errors).amin(dim=0).mean().sqrt().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each family")
    parser.add_argument("--updates", type=int, default=4000, help="updates of each training")
    parser.add_argument("--count", type=int, default=2000, help="chunks per training and method")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[tuple[str, str, str], list[Mapping[str, float]]] = {}
    for family, (config, samplers) in FAMILIES.items():
        for seed in range(chosen.seeds):
            policy = train(config, 2, updates=chosen.updates, seed=seed)
            assert isinstance(policy, GenerativePolicy)
            for sampler in samplers:
                for method in METHODS:
                    found = judge(policy, sampler, method, count=chosen.count)
                    results.setdefault((family, name(sampler), method), []).append(found)
    rows = [
        [*key, *(cell([run[q] for run in runs], 3) for q in ("stays", "seam", "between", "rmse"))]
        for key, runs in results.items()
    ]
    shown = [
        f"{method} {sum(r['stays'] for r in results['flow', 'FlowEuler 10', method]) / chosen.seeds:.2f}"
        for method in ("naive", "hard overwrite", "guided, vjp, linear", "guided, identity, linear")
    ]
    record(
        "real_time_chunking",
        title="Two-mode arcs: does the next chunk stay with the one under way?",
        columns=[
            "family",
            "sampler",
            "method",
            "stays",
            "seam",
            "between the modes",
            "RMSE to the nearer arc",
        ],
        rows=rows,
        headline=f"stays with the chunk under way, flow: {'; '.join(shown)}",
        notes=[
            f"means over {chosen.seeds} trainings with 95 % Student intervals, {chosen.count} chunks each; "
            f"{chosen.updates} updates of batch 128",
            f"3 of 8 points executed until the next chunk arrives, 6 known, beta {BETA:g}; the seam of one and the same "
            "arc is 0.166",
            "hard overwrite replaces the first 3 points at every step; its RMSE contains the points it replaced",
        ],
        data=[{"family": k[0], "sampler": k[1], "method": k[2], "runs": runs} for k, runs in results.items()],
    )


if __name__ == "__main__":
    main()
