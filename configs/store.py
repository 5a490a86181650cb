"""Everything Hydra may compose, registered in this one place.

Nodes are plain mappings made from the dataclasses by `typed.plain`: a default is written once, in the code that uses
it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from .typed import option_name, plain, plain_value
from .verbs import ConvertConfig, DoctorConfig, InspectConfig, ReportConfig, ServeConfig

_LIGHT = {
    "convert": ConvertConfig,
    "inspect": InspectConfig,
    "report": ReportConfig,
    "doctor": DoctorConfig,
    "serve": ServeConfig,
}

# What each verb composes, and what it starts from; later groups win over earlier ones.
_CHOSEN: Mapping[str, Mapping[str, str | None]] = {
    "train": {
        "data": "push_t",
        "task": "push_t",
        "policy": "flow_points",
        "critic": None,
        "training": "preset",
        "experiment": "push_t",
    },
    "eval": {"task": None, "sampler": None},
    "compose": {"task": None, "data": None, "sampler": None},
    "rerank": {"task": None, "sampler": None},
    "demos": {"task": "push_t", "expert": "${task}"},
}


def root(verb: str) -> Any:
    """The dataclass of a verb. Those that know policies and tasks take seconds to import, hence here."""
    if verb in _LIGHT:
        return _LIGHT[verb]
    from .composing import ComposeConfig, RerankConfig
    from .train import DemosConfig, EvalConfig, TrainConfig

    return {
        "train": TrainConfig,
        "eval": EvalConfig,
        "demos": DemosConfig,
        "compose": ComposeConfig,
        "rerank": RerankConfig,
    }[verb]


def groups(verb: str) -> dict[str, list[str]]:
    """The groups a verb composes, with the names of their options; `register` first."""
    repository = ConfigStore.instance().repo
    return {
        group: sorted(name.removesuffix(".yaml") for name in repository[group])
        for group in _CHOSEN.get(verb, {})
    }


def starting_options(verb: str) -> set[str]:
    """The groups of which an option is chosen from the start."""
    return {group for group, option in _CHOSEN.get(verb, {}).items() if option is not None}


@cache  # the store is a global of Hydra's: once is enough
def register(verb: str) -> None:
    """Register a verb's root and the groups it composes."""
    chosen = _CHOSEN.get(verb, {})
    values = {
        key: value for key, value in plain(root(verb)).items() if key not in chosen or key == "training"
    }
    if verb == "train":
        values["training"]["seed"] = "${seed}"
    defaults = ["_self_", *({group: option} for group, option in chosen.items())]
    _store(verb, {"defaults": defaults, **values})
    if "task" in chosen:
        _register_tasks()
    if "expert" in chosen:
        _register_experts()
    if "sampler" in chosen:
        _register_samplers()
    if "data" in chosen:
        _register_data()
    if "experiment" in chosen:
        _register_policies()
        _register_critics()
        _register_experiments()


def _store(name: str, node: dict[str, Any], *, group: str | None = None, package: str | None = None) -> None:
    ConfigStore.instance().store(name=name, node=node, group=group, package=package)


def _register_tasks() -> None:
    from ..sim.tasks import TASKS

    for name, task in TASKS.items():
        _store(name, {"kind": type(task).__name__, **plain(task)}, group="task")


def _register_experts() -> None:
    """Each task's expert under the task's own name, so that choosing the task chooses it."""
    from ..sim.demonstrator import expert_of
    from ..sim.tasks import TASKS

    for name, task in TASKS.items():
        expert = expert_of(task)
        _store(name, {"kind": type(expert).__name__, **plain(expert)}, group="expert")


def _register_samplers() -> None:
    from ..composition.ito import ReverseSDE
    from ..policies.consistency import ConsistencyJump
    from ..policies.descent import Descent
    from ..policies.sampling import DDIM, DDPM, DPMSolver, FlowEuler, FlowHeun

    for sampler in (DDPM, DDIM, DPMSolver, FlowEuler, FlowHeun, ReverseSDE, Descent, ConsistencyJump):
        _store(option_name(sampler), {"kind": sampler.__name__, **plain(sampler)}, group="sampler")


def _register_policies() -> None:
    """A policy brings the training settings it learns well with, hence the global package."""
    from ..policies.presets import PRESETS

    for name, preset in PRESETS.items():
        policy = plain_value(preset.policy, choice=True)
        training = {key: plain_value(value) for key, value in preset.training.items()}
        _store(name, {"policy": policy, "training": training}, group="policy", package="_global_")
    _store("preset", {}, group="training")
    _store("quick", {"training": {"steps": 5000}}, group="training", package="_global_")
    smoke = {
        "training": {"steps": 50, "batch_size": 64, "warmup_steps": 5, "log_every": 10},
        "evaluation": {"episodes": 4, "video": 1},
    }
    _store("smoke", smoke, group="training", package="_global_")


def _register_critics() -> None:
    """A critic is trained in place of the policy, and with its own settings, hence after it."""
    from ..rl.presets import CRITICS

    for name, preset in CRITICS.items():
        critic = plain_value(preset.critic, choice=True)
        training = {key: plain_value(value) for key, value in preset.training.items()}
        _store(name, {"critic": critic, "training": training}, group="critic", package="_global_")


def _register_data() -> None:
    from .train import BUNDLED, DataConfig

    sources = {
        "push_t": {"path": BUNDLED, "mirror": True},
        "push_t_human": {"control_hz": 10.0, "mirror": True, "held_out": 0.02},
        "push_t_language": {"path": "demos/push_t_language.hdf5", "record": 300, "mirror": True},
        "recordings": {},
    }
    for name, source in sources.items():
        _store(name, plain(DataConfig) | source, group="data")


def _register_experiments() -> None:
    everyone = ["hold_still", "random", "nearest", "regressor"]
    experiments = {
        "push_t": {
            "defaults": [{"override /training": "quick"}],
            "evaluation": {"baselines": everyone},
        },
        "push_t_pixels": {
            "defaults": [{"override /policy": "flow_pixels"}],
            "task": {"images": True},
            "evaluation": {"baselines": ["hold_still", "regressor"]},
        },
        "push_t_human": {
            "defaults": [
                {"override /data": "push_t_human"},
                {"override /task": "push_t_human"},
                {"override /policy": "flow_points"},
            ],
            "evaluation": {"baselines": everyone},
        },
        "push_t_human_published": {
            "defaults": [
                {"override /data": "push_t_human"},
                {"override /task": "push_t_human"},
                {"override /policy": "diffusion_unet_published"},
            ],
            "data": {"mirror": False},
        },
        **{task: _arm_experiment(task) for task in ("lift", "can", "square")},
        "push_t_language": {
            "defaults": [
                {"override /data": "push_t_language"},
                {"override /task": "push_t_language"},
                {"override /policy": "vla_push_t"},
            ],
            "evaluation": {"baselines": ["hold_still", "random"]},
        },
        "recordings": {"defaults": [{"override /data": "recordings"}, {"override /task": None}]},
    }
    for name, node in experiments.items():
        _store(name, {**node, "name": name}, group="experiment", package="_global_")


def _arm_experiment(task: str) -> dict[str, Any]:
    """One of robomimic's tasks, learned from a recording of the expert or of robomimic's."""
    return {
        "defaults": [
            {"override /data": "recordings"},
            {"override /task": task},
            {"override /policy": "flow_arm"},
        ],
        "evaluation": {"baselines": ["nearest", "regressor"]},
    }
