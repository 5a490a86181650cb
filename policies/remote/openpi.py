"""Client of openpi's policy server (github.com/Physical-Intelligence/openpi, src/openpi/serving).

The server sends a map of metadata, then answers every map of observations with one that holds `actions` (H, A). A text
frame is its traceback, after which it closes. It takes one observation per call, and answers no pings while it infers.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.errors import ConfigError, RemoteError, SpecError
from ...data.spec import Spec
from ..policy import start_with
from .client import Client, check_actions, token_for
from .connection import Connection, ConnectionConfig
from .image import resize_with_pad
from .message import to_array, to_tensor
from .wire import decode, encode


@dataclass(frozen=True, kw_only=True)
class OpenPiConfig:
    """How our observations are told to a server of openpi.

    Attributes:
        connection: where it is; without heartbeats, since it answers none while it infers.
        keys: (our key, the key of its policy) for every observation of the spec.
        image_size: pictures are scaled and padded to this many pixels squared; None sends them as they are.
        prompt: what the robot should do; empty sends none, as for specs with an instruction, which goes where `keys` says.
        prompt_key: where the prompt goes.
    """

    connection: ConnectionConfig = field(
        default_factory=lambda: ConnectionConfig(url="ws://127.0.0.1:8000", heartbeat_s=0.0)
    )
    keys: tuple[tuple[str, str], ...] = (
        ("image.base", "observation/image"),
        ("image.wrist", "observation/wrist_image"),
        ("state", "observation/state"),
    )
    image_size: int | None = 224
    prompt: str = ""
    prompt_key: str = "prompt"

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size must be at least 1 or none, got {self.image_size}")
        theirs = [key for _, key in self.keys] + [self.prompt_key] * bool(self.prompt)
        if len(set(theirs)) != len(theirs):
            raise ConfigError(f"every observation needs a key of its own on the server, got {theirs}")


class OpenPiPolicy(Client):
    """A policy behind openpi's protocol, one call per chunk.

    The server draws its own noise: the generator has no influence, and further samples are further calls.
    """

    config: OpenPiConfig

    def __init__(
        self,
        config: OpenPiConfig,
        spec: Spec,
        *,
        api_key: str | None = None,
        generator: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect.

        Args:
            config: where and how.
            spec: what is observed and how long and wide the chunks are; the server itself says nothing about it.
            api_key: shown to the server; the environment variable SENSORIMOTOR_TOKEN if not given.
            generator: of the jitter in pauses between attempts to connect.
            clock: seconds.

        Raises:
            SpecError: if the spec has an observation that has no key on the server, or more than one step of it.
            RemoteError: if the server cannot be reached in time or refuses the key.
        """
        super().__init__(spec, config)
        names = dict(config.keys)
        if unknown := [key for key in spec.observation if key not in names]:
            raise SpecError(
                f"observation {unknown[0]!r} has no key on the server; `keys` names {list(names)}"
            )
        if spec.observation_steps != 1 or spec.start != 0:
            raise SpecError(
                f"openpi sees one observation and begins at now; the spec has observation_steps "
                f"{spec.observation_steps} and start {spec.start}"
            )
        self._clock = clock
        self.metadata: Mapping[str, Any] = {}
        api_key = token_for(config.connection.url, api_key)
        headers = {} if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self.connection = Connection(
            config.connection, greet=self._meet, headers=headers, generator=generator, clock=clock
        )
        try:
            self.connection.connect()
        except BaseException:
            self.connection.close()
            raise

    def _meet(self, frame: bytes) -> None:
        self.metadata = decode(frame, limit=self.config.connection.max_bytes)

    def sample(
        self,
        observation: Mapping[str, Any],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        prefix: Tensor | None = None,
        deadline_s: float | None = None,
    ) -> Tensor:
        """Ask for B * K chunks, one after the other; see `Policy.sample`.

        Raises:
            SpecError: if the observation or the prefix does not fit.
            RemoteError: at the deadline, which is for all calls together, and for answers that are no chunk.
        """
        batch = self.check_observation(observation)
        self.check_prefix(prefix, batch)
        if samples < 1 or batch < 1:
            raise SpecError(f"{samples} samples of {batch} observations; at least one of each is needed")
        wait = self.config.connection.deadline_s if deadline_s is None else deadline_s
        end = self._clock() + wait
        chunks = []
        for row in range(batch):
            frame = encode(self._request(observation, row))
            for _ in range(samples):
                left = max(0.0, end - self._clock())
                chunks.append(self._chunk(self.connection.call(lambda _, f=frame: f, deadline_s=left)))
        return start_with(torch.stack(chunks).unflatten(0, (batch, samples)), prefix)

    def _request(self, observation: Mapping[str, Any], row: int) -> dict[str, Any]:
        names = dict(self.config.keys)
        request: dict[str, Any] = {self.config.prompt_key: self.config.prompt} if self.config.prompt else {}
        for key, field_ in self.spec.observation.items():
            if field_.is_text:
                request[names[key]] = observation[key][row]
                continue
            value = to_array(observation[key][row, -1])
            size = self.config.image_size
            if field_.dtype == "uint8" and size is not None:
                value = resize_with_pad(value, size, size)
            request[names[key]] = value
        return request

    def _chunk(self, frame: bytes) -> Tensor:
        """The first H actions (H, A) of an answer."""
        server = self.config.connection.url
        answer = decode(frame, limit=self.config.connection.max_bytes)
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray):
            raise RemoteError(f"{server} answered without `actions`; it sent {sorted(map(str, answer))[:8]}")
        horizon, width = self.spec.horizon, self.spec.action_dim
        if actions.ndim == 2 and len(actions) < horizon:
            raise RemoteError(
                f"{server} sent a chunk of {len(actions)} actions; the spec's horizon is {horizon}: "
                "use the horizon the policy was trained with"
            )
        if actions.ndim != 2 or actions.shape[1] != width:
            raise RemoteError(
                f"{server} sent actions of shape {actions.shape}; ({horizon}, {width}) is needed"
            )
        if actions.dtype.kind == "f":  # first, since what is finite may be too large for float32
            with np.errstate(over="ignore"):
                actions = actions.astype(np.float32)
        check_actions(actions[:horizon], (horizon, width), server=server)
        return to_tensor(actions[:horizon])
