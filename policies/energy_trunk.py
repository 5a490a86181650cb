"""Which networks give an energy, and how to build one.

Every one of them reads the observations once, `memory = trunk.observe(features (B, O, C))`, and is then called as
`trunk(x (B, H, A), memory) -> (B,)`, smooth in x.
"""

from typing import assert_never

from ..data.spec import Spec
from .energy_mlp import EnergyMLP, EnergyMLPConfig
from .energy_transformer import EnergyTransformer, EnergyTransformerConfig

EnergyTrunkConfig = EnergyMLPConfig | EnergyTransformerConfig
EnergyTrunk = EnergyMLP | EnergyTransformer


def build_energy_trunk(config: EnergyTrunkConfig, spec: Spec, observation_dim: int) -> EnergyTrunk:
    """Build a network with fresh weights.

    Args:
        config: family and size.
        spec: the policy's, with its window lengths.
        observation_dim: C, features per observation step.
    """
    shared = {
        "action_dim": spec.action_dim,
        "horizon": spec.horizon,
        "observation_steps": spec.observation_steps,
        "observation_dim": observation_dim,
    }
    match config:
        case EnergyMLPConfig():
            return EnergyMLP(config, **shared)
        case EnergyTransformerConfig():
            return EnergyTransformer(config, **shared, start=spec.start)
        case _:
            assert_never(config)
