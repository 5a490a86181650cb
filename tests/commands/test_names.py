"""What tables call a policy."""

import pytest

from sensorimotor.commands.names import policy_name
from sensorimotor.policies.presets import PRESETS


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("flow_points", "flow mlp"),
        ("diffusion_transformer", "diffusion transformer"),
        ("ebt_points", "energy mlp"),
        ("ebt_published", "energy transformer"),
        ("vla_tiny", "vla"),
        ("nearest", "nearest"),
        ("robomimic_bc", "robomimic bc"),
    ],
)
def test_a_policy_is_called_by_its_family_and_its_network(preset: str, name: str) -> None:
    assert policy_name(PRESETS[preset].policy) == name
