"""How things are called in tables and on the page."""

from typing import Any

from ..configs.typed import kind_name, option_name

__all__ = ["kind_name", "milliseconds", "policy_name", "shown_name"]


def policy_name(config: Any) -> str:
    """`flow unet`, `energy transformer`, `nearest`, `robomimic bc_rnn_gmm`."""
    words = [option_name(type(config))]
    trunk = getattr(config, "trunk", None)
    if trunk is not None:
        words.append(option_name(type(trunk)).removeprefix(f"{words[0]}_"))
    if algorithm := getattr(config, "algorithm", None):  # robomimic's
        words.append(algorithm)
    return " ".join(words)


def shown_name(policy: Any) -> str:
    """The same of a policy: what a composition is, what a server calls it, or else what its configuration is called."""
    from ..composition.tree import Branch
    from ..policies.remote.remote import RemotePolicy

    if isinstance(policy, RemotePolicy):
        return f"{policy.name}, served"
    return policy.heading() if isinstance(policy, Branch) else policy_name(policy.config)


def milliseconds(value: float) -> str:
    """`315 ms`, `8.3 ms`, `0.02 ms`."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"
