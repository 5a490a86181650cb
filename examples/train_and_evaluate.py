"""The library without the command: demonstrations in, an evaluated policy out.

Usage: python examples/train_and_evaluate.py [updates] [episodes] [run folder]
"""

import sys
from functools import partial
from pathlib import Path

import sensorimotor
from sensorimotor.data.windows import Windows
from sensorimotor.policies.factory import describe, make_policy
from sensorimotor.policies.presets import preset
from sensorimotor.sim.demos import DEMONSTRATIONS
from sensorimotor.training.config import TrainingConfig
from sensorimotor.training.loop import train


def main(updates: int, episodes: int, run: str) -> None:
    demonstrations = sensorimotor.load_dataset(DEMONSTRATIONS)
    recipe = preset("flow_points")
    policy = make_policy(recipe.policy, demonstrations)
    config = TrainingConfig(**{**recipe.training, "steps": updates})
    train(policy, Windows(demonstrations, policy.spec), config, Path(run), describe=partial(describe, policy))

    task = sensorimotor.make_task("push_t", worlds=episodes)
    result = sensorimotor.evaluate(sensorimotor.load(run), task, episodes=episodes)
    print(f"success {result.success_rate.percent()}, score {result.mean_reward.decimal()}")


if __name__ == "__main__":
    defaults = ["2000", "20", "runs/example"]
    updates, episodes, run = (*sys.argv[1:4], *defaults[len(sys.argv) - 1 :])
    main(int(updates), int(episodes), run)
