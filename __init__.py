"""sensorimotor: from demonstrations to a moving robot.

The library works without the command: `load` trained policies, `compose` them, `rerank` their candidates, `evaluate` the
result on a task, `policy.sample` actions.
Attributes are imported at first use, so that `import sensorimotor` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .composition.composed import compose, compose_conditional
    from .composition.critic_cost import guide_by_critic
    from .composition.guided import guide
    from .composition.meeting import Part
    from .composition.probe import check_member
    from .composition.reranked import rerank
    from .composition.saved import load, save
    from .composition.superposed import superpose
    from .data.episodes import Episodes, open_episodes, save_episodes
    from .data.formats import load_dataset
    from .data.spec import Field, Spec
    from .policies.policy import GenerativePolicy, Policy
    from .rl.factory import load_critic
    from .sim.evaluation import evaluate
    from .sim.tasks import make_task

__version__ = "0.1.0"

_HOMES = {
    "Episodes": ".data.episodes",
    "open_episodes": ".data.episodes",
    "save_episodes": ".data.episodes",
    "load_dataset": ".data.formats",
    "Field": ".data.spec",
    "Spec": ".data.spec",
    "Part": ".composition.meeting",
    "check_member": ".composition.probe",
    "compose": ".composition.composed",
    "compose_conditional": ".composition.composed",
    "guide": ".composition.guided",
    "guide_by_critic": ".composition.critic_cost",
    "load": ".composition.saved",
    "rerank": ".composition.reranked",
    "save": ".composition.saved",
    "superpose": ".composition.superposed",
    "GenerativePolicy": ".policies.policy",
    "Policy": ".policies.policy",
    "load_critic": ".rl.factory",
    "evaluate": ".sim.evaluation",
    "make_task": ".sim.tasks",
}

__all__ = [
    "Episodes",
    "Field",
    "GenerativePolicy",
    "Part",
    "Policy",
    "Spec",
    "check_member",
    "compose",
    "compose_conditional",
    "evaluate",
    "guide",
    "guide_by_critic",
    "load",
    "load_critic",
    "load_dataset",
    "make_task",
    "open_episodes",
    "rerank",
    "save",
    "save_episodes",
    "superpose",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'sensorimotor' has no attribute {name!r}; it offers {', '.join(__all__)}"
        )
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
