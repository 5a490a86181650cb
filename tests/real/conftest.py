"""A small policy whose numbers are known here, and servers of it on ports of the system's choice."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.remote.backoff import BackoffConfig
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.real.server import PolicyServer, ServerConfig

SPEC = Spec(
    observation={"state": Field(shape=(3,), unit="m")},
    action=Field(shape=(2,), unit="m"),
    control_hz=10,
    observation_steps=2,
    horizon=8,
    execute=4,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors only lose time on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def flow(seed: int = 0, spec: Spec = SPEC, relative: str | None = "state") -> Policy:
    normalizer = Normalizer(
        {
            "state": (torch.zeros(3), torch.ones(3)),
            "action": (torch.tensor([0.1, 0.2]), torch.tensor([2.0, 3.0])),
        }
    )
    config = FlowConfig(trunk=MLPConfig(width=32, depth=1), relative=relative)
    return build_policy(config, spec, normalizer, seed=seed).eval()


@pytest.fixture(scope="session")
def make_flow() -> Callable[..., Policy]:
    return flow


@pytest.fixture
def policy() -> Policy:
    return flow()


@pytest.fixture
def serve() -> Iterator[Callable[..., PolicyServer]]:
    """Start a server; it is stopped when the test ends."""
    running: list[PolicyServer] = []

    def start(policy: Policy, name: str = "flow mlp", **changes: Any) -> PolicyServer:
        running.append(PolicyServer(policy, replace(ServerConfig(port=0), **changes), name=name).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def reach() -> Callable[..., ConnectionConfig]:
    def config(url: str, **changes: Any) -> ConnectionConfig:
        quick = ConnectionConfig(url=url, deadline_s=20.0, backoff=BackoffConfig(first_s=0.01, longest_s=0.1))
        return replace(quick, **changes)

    return config
