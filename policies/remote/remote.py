"""Policies of another process, used like one's own.

With a CPU generator, `sample` returns the numbers the served policy would return here, bit for bit where both machines
compute alike: the generator's state travels to the server and comes back advanced.
"""

import concurrent.futures
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ...data.errors import ConfigError, SpecError
from ...data.normalizer import Normalizer
from ...data.schema import from_mapping, to_mapping
from ...data.spec import Spec
from ..guidance import ChunkGuide
from ..origin import OffsetActions
from ..policy import GenerativePolicy
from ..sampling import OwnSampler, SamplerConfig, Trace
from .client import Client, check_actions, token_for
from .connection import ConnectionConfig
from .message import generator_state, guide_entries, restore_generator, take_array, to_array, to_tensor
from .service import Answer, ForgottenError, Service, follow


def connect(
    where: str | ConnectionConfig,
    *,
    token: str | None = None,
    spec: Spec | None = None,
    generator: np.random.Generator | None = None,
) -> "RemotePolicy":
    """The policy of a server.

    Args:
        where: its address, ws://host:port or wss://host:port, or how to reach it in detail.
        token: shown to the server; the environment variable SENSORIMOTOR_TOKEN if not given.
        spec: of the task or robot the policy will act on, compared before anything moves.
        generator: of the jitter in the pauses between attempts to connect.

    Returns:
        A `RemoteGenerativePolicy` where the served policy answers at any noise level, else a `RemotePolicy`.

    Raises:
        RemoteError: if the server cannot be reached in time, refuses the token or speaks another protocol.
        SpecError: if its policy does not fit `spec`.
    """
    config = ConnectionConfig(url=where) if isinstance(where, str) else where
    token = token_for(config.url, token)
    service = Service(config, token=token, spec=spec, generator=generator)
    try:
        return (RemoteGenerativePolicy if service.greeting.generative else RemotePolicy)(service)
    except BaseException:
        service.close()
        raise


class RemotePolicy(Client):
    """A policy that samples in another process."""

    config: ConnectionConfig

    def __init__(self, service: Service) -> None:
        """Speak through a service that has been reached; `connect` makes both."""
        super().__init__(service.greeting.spec, service.config)
        self.service, self.connection = service, service.connection

    @property
    def name(self) -> str:
        """What the server calls the policy."""
        return self.service.greeting.policy

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        deadline_s: float | None = None,
    ) -> Tensor:
        """Draw action chunks, see `Policy.sample`.

        Raises:
            SpecError: if the observation or the prefix does not fit, or the generator is not on the CPU.
            RemoteError: at the deadline, `config.deadline_s` if not given, and for answers that are no actions.
        """
        future = self.submit(
            observation, samples=samples, generator=generator, prefix=prefix, deadline_s=deadline_s
        )
        return self.connection.wait(future, deadline_s=deadline_s)

    def submit(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        deadline_s: float | None = None,
    ) -> concurrent.futures.Future[Tensor]:
        """`sample` without waiting; the generator moves on when the answer comes."""
        batch = self._check(observation, prefix)
        entries = self._entries(observation, samples, generator, prefix)
        answered = self.service.submit("sample", entries, deadline_s=deadline_s)
        return follow(answered, lambda answer: self._chunks(answer, batch, samples, generator))

    def _check(self, observation: Mapping[str, Tensor], prefix: Tensor | None) -> int:
        batch = self.check_observation(observation)
        self.check_prefix(prefix, batch)
        return batch

    def _entries(
        self,
        observation: Mapping[str, Tensor],
        samples: int,
        generator: torch.Generator | None,
        prefix: Tensor | None,
    ) -> dict[str, Any]:
        return {
            "observation": self._observation(observation),
            "samples": samples,
            "state": None if generator is None else generator_state(generator),
            "prefix": None if prefix is None else to_array(prefix),
        }

    def _observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """What the spec names; text as lists of words, one entry per row."""
        return {
            key: list(observation[key]) if field.is_text else to_array(observation[key])
            for key, field in self.spec.observation.items()
        }

    def _chunks(self, answer: Answer, batch: int, samples: int, generator: torch.Generator | None) -> Tensor:
        chunks = take_array(answer, "chunks")
        shape = (batch, samples, self.spec.horizon, self.spec.action_dim)
        check_actions(chunks, shape, server=self.config.url)
        if generator is not None:
            restore_generator(generator, take_array(answer, "state"))
        return to_tensor(chunks)


@dataclass
class _Handle:
    """How the server calls an observation it has encoded; renewed if the server forgets it."""

    number: int
    observation: Mapping[str, Any]


@dataclass(frozen=True)
class RemoteCondition:
    """Observations encoded on the server: a `Condition`.

    Attributes:
        handle: stands for B rows kept by the server.
        rows: B' = B * repeats.
        repeats: how often each of the B rows stands in a row.
        origin: (B', A) what actions are relative to, physical units, or None.
    """

    handle: _Handle
    rows: int
    repeats: int = 1
    origin: Tensor | None = None

    def repeat(self, samples: int) -> Self:
        """Each row `samples` times in a row."""
        origin = None if self.origin is None else self.origin.repeat_interleave(samples, dim=0)
        return replace(self, rows=self.rows * samples, repeats=self.repeats * samples, origin=origin)


@dataclass(frozen=True, kw_only=True)
class ServedSampler(OwnSampler):
    """The sampler that the served policy brings; only its server knows how to use it."""


class RemoteGenerativePolicy(RemotePolicy, OffsetActions, GenerativePolicy):
    """A policy that answers at any noise level from another process, so that it can be composed.

    `sample` is one round trip; `predict_noise` and `predict_velocity` are one each, and give no gradients.
    """

    def __init__(self, service: Service) -> None:
        """Speak through a service that has been reached; `connect` makes both."""
        super().__init__(service)
        greeting = service.greeting
        self.normalizer = Normalizer(greeting.statistics)
        self.relative = greeting.relative
        served = greeting.sampler
        self.sampler = (
            ServedSampler() if served is None else from_mapping(SamplerConfig, served, where="sampler")
        )
        self._served_sampler = self.sampler
        self._handles = itertools.count(1)

    def encode(self, observation: Mapping[str, Tensor]) -> RemoteCondition:
        """Have the server encode B observations and keep what comes out."""
        batch = self.check_observation(observation)
        handle = _Handle(0, self._observation(observation))
        origin = self._encode(handle)
        if origin is not None:
            check_actions(origin, (batch, self.spec.action_dim), server=self.config.url)
        return RemoteCondition(handle, batch, origin=None if origin is None else to_tensor(origin))

    def _encode(self, handle: _Handle) -> Any:
        handle.number = next(self._handles)  # never used before: a server that came back cannot mix them up
        answer = self.service.ask("encode", {"observation": handle.observation, "condition": handle.number})
        return take_array(answer, "origin", optional=True)

    def predict_noise(self, x: Tensor, s: Tensor, condition: RemoteCondition) -> Tensor:
        """eps_hat (B', H, A), see `GenerativePolicy.predict_noise`."""
        return self._predict("noise", x, s, condition)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: RemoteCondition) -> Tensor:
        """eps_hat - a_hat (B', H, A), see `GenerativePolicy.predict_velocity`."""
        return self._predict("velocity", x, s, condition)

    def _predict(self, kind: str, x: Tensor, s: Tensor, condition: RemoteCondition) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise SpecError(
                "a remote policy gives no gradients; guide a local member, or sample under no_grad"
            )
        if len(x) != condition.rows:
            raise SpecError(f"x has {len(x)} rows, the condition {condition.rows}")
        entries = {"x": to_array(x), "s": to_array(s), "repeats": condition.repeats}
        try:
            answer = self.service.ask(kind, {**entries, "condition": condition.handle.number})
        except ForgottenError:
            self._encode(condition.handle)
            answer = self.service.ask(kind, {**entries, "condition": condition.handle.number})
        value = take_array(answer, "value")
        check_actions(value, tuple(x.shape), server=self.config.url)
        return to_tensor(value).to(x)

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        noise: Tensor | None = None,
        sampler: SamplerConfig | OwnSampler | None = None,
        guide: ChunkGuide | None = None,
        trace: Trace | None = None,
        deadline_s: float | None = None,
    ) -> Tensor:
        """Draw action chunks on the server, see `GenerativePolicy.sample` and `RemotePolicy.sample`."""
        batch = self._check(observation, prefix)
        entries = self._entries(observation, samples, generator, prefix)
        entries["noise"] = None if noise is None else to_array(noise)
        entries["sampler"] = self._sampler(sampler)
        entries["guide"] = None if guide is None else guide_entries(guide)
        entries["trace"] = trace is not None
        answer = self.service.ask("sample", entries, deadline_s=deadline_s)
        if trace is not None:
            for name in ("evaluations", "energy"):
                found = take_array(answer, name, optional=True)
                setattr(trace, name, None if found is None else to_tensor(found))
        return self._chunks(answer, batch, samples, generator)

    def _sampler(self, given: SamplerConfig | OwnSampler | None) -> str | None:
        """The sampler to use as JSON; None for the one the server has."""
        chosen = given or self.sampler
        if isinstance(chosen, ServedSampler) or (given is None and chosen is self._served_sampler):
            return None
        if isinstance(chosen, OwnSampler):
            raise ConfigError(
                f"{type(chosen).__name__} belongs to one family of policies and cannot be sent; "
                "serve the policy with it, or use DDIM, DDPM, DPMSolver, FlowEuler or FlowHeun"
            )
        return json.dumps(to_mapping(chosen))
