"""Value guidance (V-GPS) on PushT: a critic trained offline picks among a policy's candidates, with nothing else trained.

Two data sets: the human demonstrations, all of which count as successes; and a mixed one, recorded from the flow policy that
was trained on them with more or less noise on its actions, where it is known which episodes succeeded. On each, a policy
(flow) and a critic (Cal-QL on chunks) are trained for their own processor time. The critic then picks among K candidates
at temperature beta; with the human data also among those of a composition. Critics score the eight actions that are carried
out, and train at the rates of their preset. Reported are seeds 100000 and up.

Usage: python benchmarks/push_t_values.py [--data pusht_lowdim.npz] [--only human mixed]

What an earlier call has recorded, trained or played is not done again.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fitting import kept
from push_t_budget import FAMILIES, fit_for, run_of
from push_t_human import RECORDINGS, summary
from record import record
from weighing import points, scores, solved, success

from sensorimotor.composition.composed import compose
from sensorimotor.composition.reranked import RerankedPolicy, rerank
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.formats.robomimic import read_robomimic, write_robomimic
from sensorimotor.data.intervals import Interval, paired_interval
from sensorimotor.policies.execution import RecedingHorizon
from sensorimotor.policies.factory import load
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.sampling import FlowEuler
from sensorimotor.rl.critic import Critic
from sensorimotor.rl.factory import describe_critic, load_critic, make_critic, make_transitions
from sensorimotor.rl.presets import CRITICS
from sensorimotor.sim.evaluation import evaluate, for_policies
from sensorimotor.sim.push_t_human import SPEC, PushTHuman, read_demonstrations
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import train

FAMILY = "flow"
NOISES = (0.0, 15.0, 30.0, 60.0)  # px, of the commanded targets; a quarter of the mixed episodes each
CORRELATION = 0.8  # of the noise, from one step to the next
COMPOSED = "composition"
PARTNER, WEIGHTS = "diffusion, v", (0.6, 0.4)  # as benchmarks/push_t_composition.py chose, flow first
PICKS = [(10, 0.0), (10, 0.1), (10, 1.0), (50, 0.0), (50, 0.1), (50, 1.0)]  # K and beta
TEMPERATURES = (1.0, 0.5)


def record_mixed(policy: Policy, episodes: int, file: Path) -> Episodes:
    """Episodes of a policy with noise on its actions, from starts 0 and up; made once."""
    if file.exists():
        return read_robomimic(file)
    task = PushTHuman(worlds=episodes)
    generator = np.random.default_rng(0)
    std = np.resize(NOISES, episodes)[:, None]
    observation = task.reset(list(range(episodes)))
    runner = RecedingHorizon(policy, generator=torch.Generator().manual_seed(0))
    noise = std * generator.standard_normal((episodes, 2))
    seen: list[dict[str, np.ndarray]] = []
    acted: list[np.ndarray] = []
    alive, length = np.ones(episodes, dtype=bool), np.zeros(episodes, dtype=np.int64)
    solved = np.zeros(episodes, dtype=bool)
    for _ in range(task.max_steps):
        wanted = runner.act({key: for_policies(value) for key, value in observation.items()}).numpy()
        action = np.clip(wanted + noise, 0.0, 512.0).astype(np.float32)
        seen.append(observation)
        acted.append(action)
        length += alive
        step = task.step(action)
        observation, solved = step.observation, solved | (step.success & alive)
        alive &= ~(step.terminated | step.truncated)
        fresh = np.sqrt(1 - CORRELATION**2) * std * generator.standard_normal((episodes, 2))
        noise = CORRELATION * noise + fresh
        if not alive.any():
            break
    rows = [(t, world) for world in range(episodes) for t in range(length[world])]
    recorded = Episodes(
        spec=SPEC,
        observation={key: np.stack([seen[t][key][world] for t, world in rows]) for key in SPEC.observation},
        action=np.stack([acted[t][world] for t, world in rows]),
        ends=np.cumsum(length),
        success=solved,
        metadata={"noise_px": np.resize(NOISES, episodes).tolist()},
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_robomimic(recorded, file)
    return recorded


def fit_critic(episodes: Episodes, run: Path, *, steps: int, horizon: int) -> Critic:
    """A critic of so many actions; what an earlier call has trained is not trained again."""
    preset = CRITICS["cal_ql_points"]
    chunk = replace(preset.critic.chunk, horizon=horizon)
    critic = make_critic(replace(preset.critic, chunk=chunk), episodes)
    settings = {**preset.training, "steps": steps, "tensorboard": False, "log_every": 200}
    outcome = train(
        critic,
        make_transitions(critic, episodes),
        TrainingConfig(**settings),
        run,
        describe=lambda folder: describe_critic(critic, folder),
        resume=(run / "checkpoints" / "last").exists(),
    )
    if outcome.stopped:
        raise SystemExit(f"interrupted after {outcome.steps:,} updates; call again to go on")
    return load_critic(run)


def rows_of(
    data: str,
    ways: Mapping[str, GenerativePolicy],
    critic: Critic,
    task: PushTHuman,
    options: argparse.Namespace,
    run: Path,
) -> dict[str, dict[str, Any]]:
    """Success and score of every row about one data set: each way to draw, alone and with every pick."""

    def played(label: str, make: Callable[[], Policy]) -> dict[str, Any]:
        def play() -> dict[str, Any]:
            policy = make()
            found = summary(evaluate(policy, task, episodes=options.episodes, first_seed=options.first))
            return found | ({"spread": asdict(policy.spread())} if isinstance(policy, RerankedPolicy) else {})

        return kept(run / f"{label}, {options.first} and {options.episodes - 1} more.json", play)

    found = {}
    for way, policy in ways.items():
        head = f"{data}, {way}"
        found[f"{head}, K 1"] = alone = played(f"{head}, K 1", lambda p=policy: p)
        for k, beta in PICKS[:1] if way == COMPOSED else PICKS:
            label = f"{head}, K {k}, beta {beta:g}"
            found[label] = played(
                label, lambda p=policy, k=k, b=beta: rerank(p, critic, samples=k, temperature=b)
            )
            found[label]["gain"] = asdict(paired_interval(solved(found[label]), solved(alone)))
    return found


def row(label: str, found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    data, way, k, *beta = label.split(", ")
    cells = [data, way, k.removeprefix("K "), "".join(beta).removeprefix("beta "), success(found)]
    if "spread" not in found:
        return [*cells, "", "", "", scores(found)]
    apart = found["spread"]
    gain = points(Interval(**found["gain"]))
    return [*cells, gain, f"{100 * apart['value_share']:.0f} %", f"{apart['gain']:.2f}", scores(found)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=RECORDINGS)
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="processor minutes of training per policy"
    )
    parser.add_argument("--critic-steps", type=int, default=20_000)
    parser.add_argument("--horizon", type=int, default=8, help="actions that critics score together")
    parser.add_argument("--recorded", type=int, default=400, help="episodes of the mixed data")
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument(
        "--first", type=int, default=100_000, help="first start; 200000 and up to settle something"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark/push_t_budget"))
    parser.add_argument("--only", nargs="*", choices=["human", "mixed"], help="play these, record nothing")
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"push_t_values measures nothing: no demonstrations at {options.data}; give --data")
        return
    torch.set_num_threads(1)
    folder = options.runs.parent / "push_t_values"
    human = read_demonstrations(options.data, mirror=True)
    expert_run = run_of(FAMILY, options.minutes, options.runs)
    fit_for(FAMILIES[FAMILY].config, human, options.minutes, expert_run)
    expert = load(expert_run)
    mixed = record_mixed(expert, options.recorded, folder / f"mixed_{options.recorded}.hdf5")
    mixed_run = folder / f"flow_mixed_{options.recorded}_{options.minutes:g}min"
    data_sets = {"human": (human, expert_run), "mixed": (mixed, mixed_run)}
    task = PushTHuman(worlds=min(250, options.episodes))
    found: dict[str, dict[str, Any]] = {}
    for name in options.only or data_sets:
        episodes, run = data_sets[name]
        fit_for(FAMILIES[FAMILY].config, episodes, options.minutes, run)
        critic_run = folder / f"cal_ql_{name}_{options.horizon}_{options.critic_steps}"
        critic = fit_critic(episodes, critic_run, steps=options.critic_steps, horizon=options.horizon)
        members = [load(run)]
        ways = {
            f"temperature {t}": compose(members, sampler=FlowEuler(steps=2, temperature=t))
            for t in TEMPERATURES
        }
        if name == "human":
            other = run_of(PARTNER, options.minutes, options.runs)
            fit_for(FAMILIES[PARTNER].config, human, options.minutes, other)
            ways[COMPOSED] = compose(
                [*members, load(other)], WEIGHTS, sampler=FlowEuler(steps=10, temperature=0.5)
            )
        found |= rows_of(name, ways, critic, task, options, critic_run)
    for label, values in found.items():
        print(*row(label, values), f"{values['latency_ms']:.1f} ms", sep="  ")
    if options.only or options.first != 100_000:
        return
    succeeded = 0 if mixed.success is None else int(mixed.success.sum())
    record(
        "push_t_values",
        title="PushT: a critic picks among a policy's candidates (V-GPS)",
        columns=[
            "data",
            "sampler",
            "K",
            "beta",
            "success [95 %]",
            "gain over K = 1, points",
            "values apart",
            "hoped gain",
            "score [95 %]",
        ],
        rows=[row(label, values) for label, values in found.items()],
        headline=headline(found),
        notes=[
            f"Seeds 100000 to {100_000 + options.episodes - 1}, 300 steps, 8 of 16 actions executed; flow, Euler in 2 steps. "
            f"The composition: {WEIGHTS[0]:g} flow and {WEIGHTS[1]:g} diffusion, Euler in 10 steps at temperature 0.5.",
            f"Cal-QL on {options.horizon} actions at a time, {options.critic_steps:,} updates; one training seed, intervals are "
            "over episodes only.",
            f"Mixed: {options.recorded} episodes of the flow policy with noise of {', '.join(f'{n:g}' for n in NOISES)} px on its "
            f"actions, of which {succeeded} succeeded.",
            "K = 1 is the policy alone. beta 0 takes the best candidate, larger ones choose more evenly.",
            "Values apart: how much they differ among the candidates of one decision, as a share of how they vary at all. "
            "Hoped gain: the best candidate's value less the mean one's; values lie in [-100, 0].",
            "Each interval is for itself: of so many comparisons one or two leave 0 outside by chance.",
        ],
        data=found,
    )


def headline(found: dict[str, dict[str, Any]]) -> str:
    def rate(label: str) -> str:
        return f"{100 * found[label]['success']['value']:.0f} %"

    return (
        "; ".join(
            f"{name}: alone {rate(f'{name}, temperature 1.0, K 1')}, "
            + ", ".join(
                f"K = {k} {rate(f'{name}, temperature 1.0, K {k}, beta {b:g}')}" for k, b in PICKS if b == 0.0
            )
            for name in ("human", "mixed")
        )
        + f"; a composition alone {rate(f'human, {COMPOSED}, K 1')}, the best of 10 {rate(f'human, {COMPOSED}, K 10, beta 0')}"
    )


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
