"""What a person sees who prints a composition."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.guided import guide
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.superposed import superpose
from sensorimotor.composition.weights import Observed, PerDimension, Schedule
from sensorimotor.policies.sampling import DDIM


def near_zero(chunks: Tensor, observation: Mapping[str, Any]) -> Tensor:
    return chunks.square().sum(dim=(2, 3))


def test_members_weights_parameters_and_calls(
    pair: list[Any], gaussian: Callable, seen: dict[str, Tensor]
) -> None:
    inner = compose({"left": pair[0], "right": pair[1]}, (0.25, 0.75))
    third = gaussian(0.0, 1.0)
    third.weight = torch.nn.Parameter(torch.zeros(1234))
    policy = compose({"both": inner, "third": third, "idle": gaussian(0.0, 1.0)}, (0.4, 0.6, 0.0))
    for _ in range(101):
        policy.sample(seen, sampler=DDIM(clip=None))
    assert repr(policy).splitlines() == [
        "composition, drawn by FlowEuler(10), 1.23 k parameters",
        "├─ 0.4  both   composition, 0 parameters, asked 1,010 times",
        "│  ├─ 0.25  left   Gaussian, 0 parameters, asked 1,010 times",
        "│  └─ 0.75  right  Gaussian, 0 parameters, asked 1,010 times",
        "├─ 0.6  third  Gaussian, 1.23 k parameters, asked 1,010 times",
        "└─   0  idle   Gaussian, 0 parameters, never asked",
    ]


def test_every_kind_of_composition_and_of_weights(gaussian: Callable, pair: list[Any]) -> None:
    either = superpose(pair, "or", prior=(0.8, 0.2), sampler=ReverseSDE(steps=150))
    agreed = superpose(pair, "and")
    drawn_in = guide(gaussian(0.0, 1.0), near_zero, strength=0.5)
    schedule = Schedule((0.2, 0.8), ((0.5, 0.2, 0.3), (0.0, 1.0, 0.0)))
    policy = compose({"either": either, "agreed": agreed, "careful": drawn_in}, schedule)
    assert repr(policy).splitlines() == [
        "composition, drawn by ReverseSDE(150), 0 parameters",
        "├─ 0.5@s=0.2 0@s=0.8  either   superposition, OR, 0 parameters, asked 0 times",
        "│  ├─ prior 0.8  gaussian    Gaussian, 0 parameters, asked 0 times",
        "│  └─ prior 0.2  gaussian_2  Gaussian, 0 parameters, asked 0 times",
        "├─ 0.2@s=0.2 1@s=0.8  agreed   superposition, AND, 0 parameters, asked 0 times",
        "│  ├─ even  gaussian    Gaussian, 0 parameters, asked 0 times",
        "│  └─ even  gaussian_2  Gaussian, 0 parameters, asked 0 times",
        "└─ 0.3@s=0.2 0@s=0.8  careful  guided by near_zero, strength 0.5, 0 parameters, asked 0 times",
        "   └─ gaussian  Gaussian, 0 parameters, asked 0 times",
    ]


@pytest.mark.parametrize(
    ("weights", "total", "lines"),
    [
        (PerDimension(((1 / 3,), (2 / 3,))), "one", ("composition, ", "[0.333]", "[0.667]")),
        (Observed(lambda seen: torch.ones(1, 2) / 2, 2), "one", ("composition, ", "observed", "observed")),
        ((1.5, -0.5), "one", ("composition, ", " 1.5", "-0.5")),
        ((1.0, 1.0), "any", ("composition of weights that sum to [2.0], ", "1", "1")),
    ],
)
def test_weights_as_they_are_read(
    pair: list[Any], weights: Any, total: Any, lines: tuple[str, str, str]
) -> None:
    head, first, second = repr(compose({"a": pair[0], "b": pair[1]}, weights, total=total)).splitlines()
    assert head.startswith(lines[0])
    assert first.startswith(f"├─ {lines[1]}  a  Gaussian")
    assert second.startswith(f"└─ {lines[2]}  b  Gaussian")


def test_members_that_failed_are_seen(pair: list[Any], seen: dict[str, Tensor]) -> None:
    pair[1]._clean_and_noise = lambda x, s: (x * float("nan"), x * float("nan"))
    policy = compose({"a": pair[0], "b": pair[1]}, fallback="others")
    with pytest.warns(UserWarning, match="failed"):
        policy.sample(seen)
    assert (
        repr(policy).splitlines()[2] == "└─ 0.5  b  Gaussian, 0 parameters, asked 1 times, failed in 1 chunk"
    )
    policy.sample(seen)
    assert repr(policy).endswith("asked 2 times, failed in 2 chunks")
