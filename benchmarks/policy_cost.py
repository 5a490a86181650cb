"""What one training update and one ten-step chunk of the published U-Net cost: ours, a plain loop, and LeRobot.

    python benchmarks/policy_cost.py                          # ours against a plain loop over diffusers
    python benchmarks/policy_cost.py --peer VENV/bin/python   # and against LeRobot, in its environment

All contenders of a comparison run in one process with one torch, in turns; the ratio is the median over turns. LeRobot's
network gets our weights first and must give our output, so that the same arithmetic is timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

OBSERVED = {"state": 2, "environment": 18}  # PushT's twenty numbers
ACTIONS, HORIZON, STEPS = 2, 16, 10
TRAIN_BATCH = 64

CHUNK, GRADIENT, UPDATE = WHAT = (
    f"{STEPS}-step chunk, batch 1",
    f"loss and gradient, batch {TRAIN_BATCH}",
    f"training update, batch {TRAIN_BATCH}",
)
Contender = Mapping[str, Callable[[], Any]]  # one of WHAT -> do it once


def make_data(batch: int) -> tuple[dict[str, Tensor], Tensor]:
    """Normalised observations, key -> (B, 2, width), and actions (B, H, A)."""
    generator = torch.Generator().manual_seed(0)
    observation = {k: 2 * torch.rand(batch, 2, w, generator=generator) - 1 for k, w in OBSERVED.items()}
    return observation, 2 * torch.rand(batch, HORIZON, ACTIONS, generator=generator) - 1


def make_ours() -> Any:
    """Our policy in the published size, with an identity normaliser."""
    from sensorimotor.data.normalizer import Normalizer
    from sensorimotor.data.spec import Field, Spec
    from sensorimotor.policies.chunk import ChunkConfig
    from sensorimotor.policies.diffusion import DiffusionConfig
    from sensorimotor.policies.factory import build_policy

    spec = Spec(
        observation={key: Field(shape=(width,)) for key, width in OBSERVED.items()},
        action=Field(shape=(ACTIONS,)),
        control_hz=10,
    )
    widths = OBSERVED | {"action": ACTIONS}
    normalizer = Normalizer({key: (torch.zeros(w), torch.ones(w)) for key, w in widths.items()})
    config = DiffusionConfig(chunk=ChunkConfig(start=-1))
    return build_policy(config, config.chunk.apply(spec), normalizer)


def ours(policy: Any) -> Contender:
    from sensorimotor.data.windows import Batch
    from sensorimotor.policies.presets import preset
    from sensorimotor.training.config import TrainingConfig
    from sensorimotor.training.optimizer import make_optimizer

    observation, _ = make_data(1)
    seen, action = make_data(TRAIN_BATCH)
    batch = Batch(seen, action, torch.ones(TRAIN_BATCH, HORIZON, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    optimizer = make_optimizer(policy, TrainingConfig(**preset("diffusion_unet_published").training))
    return contender(
        lambda: policy.sample(observation, generator=generator),
        lambda: policy(batch, generator),
        policy,
        optimizer,
    )


def plain_loop(network: nn.Module) -> Contender:
    """The same network, written as one would without this package."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(STEPS)
    observation, _ = make_data(1)
    seen, action = make_data(TRAIN_BATCH)

    @torch.no_grad()  # as ours, whose networks may be differentiated in their inputs
    def chunk() -> Tensor:
        condition = torch.cat(list(observation.values()), dim=-1)
        x = torch.randn(1, HORIZON, ACTIONS)
        for k in scheduler.timesteps:
            x = scheduler.step(network(x, k.expand(1), condition), k, x).prev_sample  # pyright: ignore
        return x

    def loss() -> Tensor:
        condition = torch.cat(list(seen.values()), dim=-1)
        noise, k = torch.randn_like(action), torch.randint(100, (TRAIN_BATCH,))
        noisy = scheduler.add_noise(action, noise, k)  # pyright: ignore[reportArgumentType]
        return F.mse_loss(network(noisy, k, condition), noise)

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    return contender(chunk, loss, network, optimizer)


def lerobot(reference: nn.Module) -> tuple[Contender, dict[str, Any]]:
    """LeRobot's policy with the same sizes and our weights; raises ImportError where it is not installed."""
    import lerobot as package  # pyright: ignore[reportMissingImports]
    from lerobot.configs.types import FeatureType, PolicyFeature  # pyright: ignore[reportMissingImports]
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # pyright: ignore[reportMissingImports]
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy  # pyright: ignore[reportMissingImports]

    config = DiffusionConfig(
        device="cpu",
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (OBSERVED["state"],)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (OBSERVED["environment"],)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
        down_dims=(256, 512, 1024),
        kernel_size=5,
        n_groups=8,
        diffusion_step_embed_dim=256,
        noise_scheduler_type="DDIM",
        num_inference_steps=STEPS,
    )
    policy = DiffusionPolicy(config)
    copy_weights(reference, policy.diffusion.unet)
    difference = compare(reference, policy.diffusion.unet)
    names = {"state": "observation.state", "environment": "observation.environment_state"}
    observation = {names[key]: value for key, value in make_data(1)[0].items()}
    seen, action = make_data(TRAIN_BATCH)
    batch = {names[key]: value for key, value in seen.items()}
    batch |= {"action": action, "action_is_pad": torch.zeros(TRAIN_BATCH, HORIZON, dtype=torch.bool)}
    facts = {
        "version": package.__version__,
        "parameters": sum(p.numel() for p in policy.parameters()),
        "largest_difference_of_outputs": difference,
    }

    @torch.no_grad()  # as ours, whose networks may be differentiated in their inputs
    def chunk() -> Tensor:
        policy.eval()
        return policy.diffusion.generate_actions(observation)

    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    return contender(chunk, lambda: policy.forward(batch)[0], policy, optimizer), facts


def copy_weights(source: Any, target: Any) -> None:
    """Give LeRobot's U-Net the weights of ours, module by module."""
    pairs = [(source.step.net, target.diffusion_step_encoder), (source.head, target.final_conv)]
    for mine, theirs in zip(source.down, target.down_modules, strict=True):
        pairs += [(mine.first, theirs[0]), (mine.second, theirs[1])]
    for mine, theirs in zip(source.up, target.up_modules, strict=True):
        pairs += [(mine.first, theirs[0]), (mine.second, theirs[1])]
    pairs += [(source.middle.first, target.mid_modules[0]), (source.middle.second, target.mid_modules[1])]
    pairs += [(mine, theirs[2]) for mine, theirs in zip(source.downsample, target.down_modules, strict=False)]
    pairs += [(mine, theirs[2]) for mine, theirs in zip(source.upsample, target.up_modules, strict=True)]
    with torch.no_grad():
        for mine, theirs in pairs:
            for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
                q.copy_(p)


def compare(mine: nn.Module, theirs: nn.Module) -> float:
    """Largest difference between the two networks' outputs."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, HORIZON, ACTIONS, generator=generator)
    condition = torch.randn(4, 2, sum(OBSERVED.values()), generator=generator)
    step = torch.tensor([0, 30, 70, 99])
    with torch.no_grad():
        difference = mine(x, step, condition) - theirs(x, step, global_cond=condition.flatten(1))
    return difference.abs().max().item()


def contender(
    chunk: Callable[[], Any], loss: Callable[[], Tensor], model: nn.Module, optimizer: Any
) -> Contender:
    """What is timed of one contender."""

    def gradient() -> None:
        model.train()
        loss().backward()
        optimizer.zero_grad()
        model.eval()

    def update() -> None:
        model.train()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()

    return {CHUNK: chunk, GRADIENT: gradient, UPDATE: update}


def take_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, after one round that does not count; the order rotates."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = time.perf_counter()
            contenders[name]()
            if i:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """All contenders that can be had in this interpreter."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    policy = make_ours().eval()
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": threads,
        "parameters": sum(p.numel() for p in policy.parameters()),
    }
    runs: dict[str, Contender] = {"ours": ours(policy), "plain loop": plain_loop(policy.trunk)}
    try:
        runs["LeRobot"], result["lerobot"] = lerobot(policy.trunk)
    except ImportError as error:
        result["lerobot"] = {"absent": str(error)}
    for what in WHAT:
        result[what] = take_turns({name: run[what] for name, run in runs.items()}, rounds)
    return result


def in_peer(python: str, threads: int, rounds: int) -> dict[str, Any]:
    """The same measurement by another interpreter, with this checkout on its path."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sensorimotor").symlink_to(Path(__file__).resolve().parents[1])
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": str(threads)}
        command = [python, __file__, "--worker", "--threads", str(threads), "--rounds", str(rounds)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Table cells: milliseconds, and how much longer the others take than we do."""
    cells = []
    for what in WHAT:
        mine = result[what]["ours"]
        for name, times in result[what].items():
            low, middle, high = np.percentile(np.divide(times, mine), [25, 50, 75])
            ratio = "" if name == "ours" else f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            cells.append([what, name, f"{statistics.median(times):.1f}", ratio, f"torch {result['torch']}"])
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="python of an environment with LeRobot")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    parser.add_argument("--worker", action="store_true", help="measure here and print JSON; used with --peer")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.threads, options.rounds)))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from record import record

    results = [measure(options.threads, options.rounds)]
    if options.peer:
        results.append(in_peer(options.peer, options.threads, options.rounds))
    peer = results[-1]["lerobot"]
    ratio = "LeRobot was not measured"
    notes = [
        f"{results[0]['parameters']:,} parameters; medians of {options.rounds} turns on {options.threads} thread(s); "
        "ratio to ours with quartiles",
        "a plain loop: our network, diffusers' DDIMScheduler, torch's AdamW and nothing around them",
        "updates are made with each one's own optimiser, without clipping gradients",
    ]
    if "version" in peer:
        notes.append(
            f"LeRobot {peer['version']}: {peer['parameters']:,} parameters, our weights, outputs equal to within "
            f"{peer['largest_difference_of_outputs']:.0e}; its normalisation happens elsewhere and is not counted"
        )
        peers = {
            w: statistics.median(np.divide(results[-1][w]["LeRobot"], results[-1][w]["ours"])) for w in WHAT
        }
        ratio = f"LeRobot takes {peers[CHUNK]:.2f} times as long for a chunk, {peers[UPDATE]:.2f} times for an update"
    record(
        "policy_cost",
        title="Cost of the published diffusion U-Net",
        columns=["what", "who", "ms", "ratio to ours", "with"],
        rows=[row for result in results for row in rows(result)],
        headline=ratio,
        notes=notes,
        data=results,
    )


if __name__ == "__main__":
    main()
