"""What was asked of the robot, as an observation: from the list of tasks that a recording brings, and back."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .episodes import Array, Episodes
from .errors import DataError
from .spec import Field

INSTRUCTION, TASK_INDEX, TASKS = "instruction", "task_index", "tasks"


def with_instruction(episodes: Episodes) -> Episodes:
    """The same episodes with an `instruction` that says the task of every step; unchanged if there is one.

    Raises:
        DataError: if the recording names no tasks.
    """
    if INSTRUCTION in episodes.observation:
        return episodes
    tasks, index = episodes.metadata.get(TASKS), episodes.extra.get(TASK_INDEX)
    if not tasks or index is None:
        raise DataError(
            "these episodes have no `instruction` and name no tasks; LeRobot datasets do, or record with an instruction"
        )
    spec = replace(
        episodes.spec,
        observation={**episodes.spec.observation, INSTRUCTION: Field(shape=(), dtype="str")},
    )
    told = instructions_of(tasks, index)
    return replace(episodes, spec=spec, observation={**episodes.observation, INSTRUCTION: told})


def instructions_of(tasks: list[str], index: Array) -> Array:
    """(N,) the task of every step, from the number of each.

    Raises:
        DataError: if a number names no task.
    """
    if index.dtype.kind not in "iu" or (index.size and not 0 <= index.min() <= index.max() < len(tasks)):
        raise DataError(
            f"{TASK_INDEX!r} must number the {len(tasks)} tasks from 0, got {index.dtype} {np.unique(index)[:8].tolist()}; "
            "correct it or the list of tasks"
        )
    return np.array([str(task) for task in tasks])[index]


def tasks_of(observation: Mapping[str, Array]) -> tuple[Array, list[str]] | None:
    """Number (N,) of every step's instruction and the different ones, first come first; None without instructions."""
    if INSTRUCTION not in observation:
        return None
    texts, first, number = np.unique(observation[INSTRUCTION], return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[number.reshape(-1)], [str(text) for text in texts[order]]
