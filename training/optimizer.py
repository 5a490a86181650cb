"""AdamW, fused where the device can, and its state as named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.errors import CheckpointError, ConfigError
from .config import TrainingConfig
from .offers import rate_factor

_FUSED = ("cpu", "cuda", "mps", "xpu")


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient; build it after the model is on its device.

    Every group carries the `factor` that its learning rate is multiplied by, 1 unless the model says otherwise.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ConfigError("the model has no parameter that requires a gradient; nothing can be trained")
    # A scalar, such as a learned step size, means something by itself: it is never drawn towards zero.
    least = 2 if config.decay_matrices_only else 1
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in trained.items():
        decay = config.weight_decay if p.ndim >= least else 0.0
        grouped.setdefault((rate_factor(model, name), decay), []).append(p)
    groups = [
        {"params": parameters, "weight_decay": decay, "factor": factor, "lr": config.learning_rate * factor}
        for (factor, decay), parameters in grouped.items()
    ]
    fused = all(p.device.type in _FUSED and p.is_floating_point() for p in trained.values())
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=fused or None
    )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `<parameter name>/<quantity>`, e.g. `encoder.weight/exp_avg`."""
    return {
        f"{name}/{quantity}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of `optimizer_tensors`; learning rate, betas and decay stay those of the configuration."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, quantity = key.rsplit("/", 1)
        grouped.setdefault(name, {})[quantity] = value.clone()  # not a view of the file
    number = {p: i for i, p in enumerate(p for g in optimizer.param_groups for p in g["params"])}
    state = {}
    for name, parameter in model.named_parameters():
        if name not in grouped:
            continue  # never had a gradient
        values = grouped.pop(name)
        if parameter not in number or any(v.shape not in ((), parameter.shape) for v in values.values()):
            raise CheckpointError(
                f"the optimiser state of {name!r} has shapes {[tuple(v.shape) for v in values.values()]}, the "
                f"model's parameter {tuple(parameter.shape)}; resume with the model that was trained"
            )
        state[number[parameter]] = values
    if grouped:
        raise CheckpointError(
            f"the optimiser state names {sorted(grouped)[0]!r}, which the model lacks; "
            "resume with the model that was trained"
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
