"""How things are called in tables and on the page."""

from typing import Any

from ..configs.typed import kind_name, option_name

__all__ = ["kind_name", "policy_name"]


def policy_name(config: Any) -> str:
    """`flow unet`, `diffusion transformer`, `nearest`."""
    words = [option_name(type(config))]
    trunk = getattr(config, "trunk", None)
    if trunk is not None:
        words.append(option_name(type(trunk)))
    return " ".join(words)
