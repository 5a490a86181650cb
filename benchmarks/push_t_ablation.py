"""What point noise and the temperature of the first noise are worth on PushT from human demonstrations.

The default preset with and without point noise, each sampled at several temperatures, on the starts kept for selection
(200000 and up), so that the reported starts stay untouched by the choice.

Usage: python benchmarks/push_t_ablation.py [--data pusht_lowdim.npz] [--episodes 400] [--runs runs/benchmark]
"""

import argparse
from dataclasses import replace
from pathlib import Path

from push_t_human import RECORDINGS, summary, train
from record import record

from sensorimotor.policies.factory import load
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.sim.evaluation import evaluate
from sensorimotor.sim.push_t_human import PushTHuman

FIRST_SEED = 200_000
TEMPERATURES = (1.0, 0.75, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=RECORDINGS)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_human"))
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"push_t_ablation measures nothing: no demonstrations at {options.data}; give --data")
        return
    steps = int(PRESETS["flow_points"].training["steps"])
    task = PushTHuman(worlds=min(200, options.episodes))
    rows, data = [], {}
    for name, run, overrides in (
        ("as the preset", f"flow_{steps}", ()),
        ("none", f"flow_{steps}_no_point_noise", ("policy.point_noise=0",)),
    ):
        train(options.runs / run, options.data, f"training.steps={steps}", *overrides)
        policy = load(options.runs / run)
        assert isinstance(policy, GenerativePolicy)
        sampler = policy.sampler
        assert isinstance(sampler, FlowEuler)
        for temperature in TEMPERATURES:
            policy.sampler = replace(sampler, temperature=temperature)
            result = evaluate(policy, task, episodes=options.episodes, first_seed=FIRST_SEED, name=name)
            rows.append([name, f"{temperature}", result.mean_reward.decimal(), result.success_rate.percent()])
            data[f"point noise {name}, temperature {temperature}"] = summary(result)
    record(
        "push_t_ablation",
        title="PushT from human demonstrations: point noise in training, temperature in sampling",
        columns=["point noise", "temperature", "score [95 %]", "success [95 %]"],
        rows=rows,
        headline="; ".join(f"{noise} at {t}: {success}" for noise, t, _, success in (rows[2], rows[4])),
        notes=[
            f"Seeds {FIRST_SEED} to {FIRST_SEED + options.episodes - 1}, on which the preset was chosen; {steps:,} updates.",
            "One training seed per row: intervals are over episodes only.",
        ],
        data=data,
    )


if __name__ == "__main__":
    main()
