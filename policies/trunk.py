"""Which networks there are, and how to build one.

Every trunk is called as `trunk(x (B, H, A), step () or (B,), condition (B, O, C)) -> (B, H, A)`.
"""

from typing import assert_never

from torch import nn

from .mlp import MLPConfig
from .transformer import TransformerConfig
from .unet import UNetConfig

TrunkConfig = UNetConfig | TransformerConfig | MLPConfig


def build_trunk(
    config: TrunkConfig, *, action_dim: int, horizon: int, observation_steps: int, observation_dim: int
) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        config: family and size.
        action_dim: A.
        horizon: H.
        observation_steps: O.
        observation_dim: C, features per observation step.
    """
    match config:
        case UNetConfig():
            from .unet import ConditionalUnet1d

            flat = observation_steps * observation_dim
            return ConditionalUnet1d(config, action_dim=action_dim, horizon=horizon, condition_dim=flat)
        case TransformerConfig():
            from .transformer import ActionTransformer

            return ActionTransformer(
                config,
                action_dim=action_dim,
                horizon=horizon,
                observation_steps=observation_steps,
                observation_dim=observation_dim,
            )
        case MLPConfig():
            from .mlp import ResidualMLP

            flat = observation_steps * observation_dim
            return ResidualMLP(config, action_dim=action_dim, horizon=horizon, condition_dim=flat)
        case _:
            assert_never(config)
