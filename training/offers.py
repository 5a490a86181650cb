"""What a model may offer the loop besides its loss; a model that offers nothing is trained all the same.

- `after_update()`: called once after every update of the weights, e.g. to let a target network follow.
- `health() -> Mapping[str, float]`: numbers about the newest update, which join the row of metrics. What they say must
  follow from that update alone, so that a resumed run writes the rows of an uninterrupted one.
- `held_out_error(batch, generator) -> Tensor`: what held-out data is judged by where the loss is of no use for that, such as
  one whose targets move; `checkpoints/best` is the least of it.
- `rate_factors() -> Mapping[str, float]`: beginnings of parameter names, and what the learning rate of these parameters
  is multiplied by.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..data.errors import ConfigError


def after_update(model: nn.Module) -> None:
    """Tell a model that its weights have changed."""
    _call(model, "after_update")


def health(model: nn.Module) -> dict[str, float]:
    """What a model says about its newest update; often nothing."""
    return dict(_call(model, "health") or {})


def held_out_error(model: nn.Module) -> Callable[..., Tensor]:
    """What a model is judged by on held-out batches; often its loss."""
    return getattr(model, "held_out_error", model)


def rate_factor(model: nn.Module, name: str) -> float:
    """What the learning rate of a parameter is multiplied by.

    Raises:
        ConfigError: if the model names it with several factors.
    """
    found = [
        factor for start, factor in (_call(model, "rate_factors") or {}).items() if name.startswith(start)
    ]
    if len(found) > 1:
        raise ConfigError(f"parameter {name!r} has {len(found)} learning rate factors {found}; name it once")
    return found[0] if found else 1.0


def _call(model: nn.Module, name: str) -> Any:
    offered = getattr(model, name, None)
    return None if offered is None else offered()
