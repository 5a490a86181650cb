"""Serves a policy that takes its time, in a process that a test may kill: slow_server.py PORT SECONDS."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import Policy
from sensorimotor.real.server import PolicyServer, ServerConfig


class Slow(Policy):
    """Random chunks, after a while."""

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        **rest: Any,
    ) -> Tensor:
        print("asked", flush=True)
        time.sleep(float(sys.argv[2]))
        return torch.randn(len(observation["state"]), samples, 8, 2, generator=generator)


if __name__ == "__main__":
    spec = Spec(observation={"state": Field(shape=(3,))}, action=Field(shape=(2,)), control_hz=10, horizon=8)
    with PolicyServer(Slow(spec), ServerConfig(port=int(sys.argv[1]))) as server:
        print(server.url, flush=True)
        sys.stdin.read()  # until the test closes it
