"""A fresh policy learns to do what it is told, in seconds."""

from collections.abc import Callable
from typing import Any

import torch

from sensorimotor.data.windows import Batch
from sensorimotor.policies.vla.policy import VLAPolicy

LEFT, RIGHT = "to the left", "to the right"


def batch_of(rows: int, generator: torch.Generator) -> Batch:
    """A grey picture; the instruction alone says to which side the line of actions goes."""
    right = torch.rand(rows, generator=generator) < 0.5
    sign = torch.where(right, 1.0, -1.0)
    action = sign[:, None, None] * torch.linspace(0, 1, 8)[:, None] * torch.tensor([2.0, 0.2])
    observation: dict[str, Any] = {
        "state": torch.randn(rows, 1, 2, generator=generator),
        "image.top": torch.full((rows, 1, 32, 32, 3), 128, dtype=torch.uint8),
        "instruction": [RIGHT if side else LEFT for side in right.tolist()],
    }
    return Batch(observation, action, torch.ones(rows, 8, dtype=torch.bool))


def test_it_goes_where_it_is_told(vla: Callable[..., VLAPolicy]) -> None:
    policy, generator = vla("pi0", shake=0.0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(120):
        optimizer.zero_grad()
        policy(batch_of(32, generator), generator).backward()
        optimizer.step()
    worlds: Any = batch_of(20, generator).observation
    for told, sign in ((RIGHT, 1), (LEFT, -1)):
        ends = policy.sample(worlds | {"instruction": [told] * 20})[:, 0, -1, 0]
        assert ((sign * ends) > 0.5).float().mean() > 0.9
