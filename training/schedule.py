"""The learning rate as a pure function of the update number: nothing to save, nothing to restore."""

import math

from .config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of one update.

    Linear from peak / warmup_steps to the peak over the warm-up, so that no update is wasted at zero; then
    constant, or half a cosine from the peak (at step = warmup_steps) to minimum_ratio of it (at step = steps).

    Args:
        step: number of updates made before this one.
        config: peak, warm-up, schedule and minimum.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    share = config.minimum_ratio + (1 - config.minimum_ratio) * 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * share
