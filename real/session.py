"""What a policy server does for one client: frames in, frames out, without a socket.

Nothing a client sends can do more than fail: every entry is checked for type and size before it costs anything, and
what the policy itself raises comes back as one line, never as a traceback.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.errors import ConfigError, SensorimotorError, SpecError
from ..data.schema import from_mapping
from ..policies.policy import GenerativePolicy, Policy
from ..policies.remote.message import (
    check_version,
    read_guide,
    restore_generator,
    take,
    take_array,
    to_array,
    to_tensor,
)
from ..policies.remote.service import ForgottenError
from ..policies.remote.wire import MAX_BYTES, PROTOCOL, WireError, decode, encode
from ..policies.sampling import SamplerConfig, Trace

KINDS = ("sample", "encode", "noise", "velocity")
_LOG = logging.getLogger(__name__)
_TEXT = 1000  # characters of an error that are sent


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What one client may ask for.

    Attributes:
        max_bytes: of one frame, in either direction.
        max_rows: chunks in one answer, B * K.
        max_steps: of a sampler that a client names, and of its noise schedule.
        conditions: encoded observations kept; the one used longest ago goes first.
    """

    max_bytes: int = MAX_BYTES
    max_rows: int = 4096
    max_steps: int = 1000
    conditions: int = 16

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_rows", "max_steps", "conditions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Request:
    """A frame whose head has been read.

    Attributes:
        number: its `id`, repeated in the answer.
        kind: what is asked.
        patience_s: seconds after which the client no longer wants an answer.
        message: all of it.
    """

    number: int
    kind: str
    patience_s: float
    message: Mapping[str, Any]


def read_request(frame: bytes | str, *, limit: int = MAX_BYTES) -> Request:
    """The head of a client's frame.

    Raises:
        TransportError: if it is no request of this protocol.
    """
    if isinstance(frame, str):
        raise WireError("a request must be a binary frame, got text")
    message = decode(frame, limit=limit)
    check_version(message)
    number, kind = take(message, "id", int), take(message, "kind", str)
    if not 0 <= number < 2**63:
        raise WireError(f"id must lie in 0..2^63, got {number}")
    if kind not in KINDS:
        raise WireError(f"unknown kind {kind[:40]!r}; allowed are {', '.join(KINDS)}")
    patience = take(message, "patience_s", float)
    if not -1e9 < patience < 1e9:
        raise WireError(f"patience_s must be finite, got {patience}")
    return Request(number, kind, patience, message)


def error_frame(number: int | None, error: BaseException) -> bytes:
    """How an error is told to a client: its type and one message."""
    text = str(error) if isinstance(error, SensorimotorError) else f"inference failed: {type(error).__name__}"
    kind = type(error).__name__ if isinstance(error, SensorimotorError) else "InferenceError"
    return encode({"version": PROTOCOL, "kind": "error", "id": number, "type": kind, "message": text[:_TEXT]})


class Session:
    """One client's conversation with a policy. Not thread-safe: one thread answers."""

    def __init__(self, policy: Policy, config: SessionConfig) -> None:
        """Begin with nothing encoded."""
        self.policy, self.config = policy, config
        self._conditions: OrderedDict[int, tuple[int, Any]] = OrderedDict()  # -> (rows, condition)

    def answer(self, request: Request) -> bytes:
        """The frame to send back; never raises for what a client or the policy did."""
        try:
            entries = self._answer(request)
            frame = encode({"version": PROTOCOL, "kind": "reply", "id": request.number, **entries})
            if len(frame) > self.config.max_bytes:
                raise WireError(f"the answer has {len(frame)} bytes, the limit is {self.config.max_bytes}")
            return frame
        except SensorimotorError as error:
            return error_frame(request.number, error)
        except Exception as error:
            _LOG.exception("request %s failed", request.kind)
            return error_frame(request.number, error)

    def _answer(self, request: Request) -> dict[str, Any]:
        if request.kind == "sample":
            return self._sample(request.message)
        policy = self.policy
        if not isinstance(policy, GenerativePolicy):
            raise SpecError(f"{type(policy).__name__} only samples; it does not answer {request.kind!r}")
        with torch.no_grad():
            if request.kind == "encode":
                return self._encode(policy, request.message)
            ask = policy.predict_noise if request.kind == "noise" else policy.predict_velocity
            return self._predict(ask, request.message)

    def _sample(self, message: Mapping[str, Any]) -> dict[str, Any]:
        observation = self._observation(message)
        batch = self.policy.check_observation(observation)
        samples = take(message, "samples", int)
        if batch < 1 or samples < 1 or batch * samples > self.config.max_rows:
            raise SpecError(
                f"{samples} samples of {batch} observations; allowed are 1..{self.config.max_rows} chunks in all"
            )
        prefix = _floats(message, "prefix")
        generator = _generator(message)
        trace = Trace() if message.get("trace") is True else None
        more = self._sampling(message, trace)
        chunks = self.policy.sample(observation, samples=samples, generator=generator, prefix=prefix, **more)
        if not torch.isfinite(chunks).all():
            raise SpecError("the policy's actions are not finite; is the observation? Nothing was sent")
        found = {} if trace is None else vars(trace)
        return {
            "chunks": to_array(chunks),
            "state": None if generator is None else generator.get_state().numpy(),
            **{name: None if value is None else to_array(value) for name, value in found.items()},
        }

    def _sampling(self, message: Mapping[str, Any], trace: Trace | None) -> dict[str, Any]:
        """Further arguments of `sample`, which only generative policies take."""
        noise, text = _floats(message, "noise"), take(message, "sampler", str, optional=True)
        guide = take(message, "guide", dict, optional=True)
        if not isinstance(self.policy, GenerativePolicy):
            if any(given is not None for given in (noise, text, guide, trace)):
                raise SpecError(
                    f"{type(self.policy).__name__} takes neither noise nor sampler nor guide nor trace"
                )
            return {}
        guide = None if guide is None else read_guide(guide)
        return {"noise": noise, "sampler": self._sampler(text), "guide": guide, "trace": trace}

    def _sampler(self, text: str | None) -> SamplerConfig | None:
        if text is None:
            return None
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # also for a number of too many digits
            raise ConfigError(f"sampler is not JSON: {type(error).__name__}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"sampler must be a map, got {type(values).__name__}")
        for name in ("steps", "train_steps"):
            if name in values and (
                type(values[name]) is not int or not 1 <= values[name] <= self.config.max_steps
            ):
                raise ConfigError(
                    f"sampler.{name} must be an integer in 1..{self.config.max_steps} on this server"
                )
        return from_mapping(SamplerConfig, values, where="sampler")

    def _encode(self, policy: GenerativePolicy, message: Mapping[str, Any]) -> dict[str, Any]:
        observation = self._observation(message)
        rows = policy.check_observation(observation)
        if not 1 <= rows <= self.config.max_rows:
            raise SpecError(f"{rows} observations; allowed are 1..{self.config.max_rows}")
        condition = policy.encode(observation)
        self._conditions[take(message, "condition", int)] = (rows, condition)
        while len(self._conditions) > self.config.conditions:
            self._conditions.popitem(last=False)
        origin = getattr(condition, "origin", None)
        return {"origin": to_array(origin) if isinstance(origin, Tensor) else None}

    def _predict(
        self, ask: Callable[[Tensor, Tensor, Any], Tensor], message: Mapping[str, Any]
    ) -> dict[str, Any]:
        number, repeats = take(message, "condition", int), take(message, "repeats", int)
        if number not in self._conditions:
            raise ForgottenError(f"no observation is encoded under {number}; encode it again")
        self._conditions.move_to_end(number)
        rows, condition = self._conditions[number]
        if repeats < 1 or rows * repeats > self.config.max_rows:
            raise SpecError(
                f"{rows} rows repeated {repeats} times; allowed are 1..{self.config.max_rows} in all"
            )
        x, s = _floats(message, "x"), _floats(message, "s")
        spec = self.policy.spec
        shape = (rows * repeats, spec.horizon, spec.action_dim)
        if x is None or x.shape != shape:
            raise SpecError(f"x has shape {None if x is None else tuple(x.shape)}; allowed is {shape}")
        if s is None or s.shape not in ((), shape[:1]) or not bool(((s >= 0) & (s <= 1)).all()):
            raise SpecError(f"s must be a number in [0, 1] or one for each of {shape[0]} rows")
        condition = condition.repeat(repeats) if repeats > 1 else condition
        return {"value": to_array(ask(x.to(self.policy.device), s.to(self.policy.device), condition))}

    def _observation(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The observation with every entry of its field's kind; shapes are the policy's to check."""
        observation: dict[str, Any] = {}
        for key, value in take(message, "observation", dict).items():
            field = self.policy.spec.observation.get(key)
            if field is None:
                raise SpecError(
                    f"observation {str(key)[:40]!r} is unknown; the policy needs {list(self.policy.spec.observation)}"
                )
            if field.is_text:
                observation[key] = take({key: value}, key, list)
                continue
            array = take_array({key: value}, key)
            if (field.dtype == "uint8") != (array.dtype == "uint8") or array.dtype.kind not in "fiub":
                raise SpecError(f"observation {key!r} is {array.dtype}; the policy needs {field.dtype}")
            observation[key] = to_tensor(array)
        return observation


def _floats(message: Mapping[str, Any], name: str) -> Tensor | None:
    """A floating-point array, or None if there is none."""
    array = take_array(message, name, optional=True)
    if array is not None and array.dtype.kind != "f":
        raise SpecError(f"{name} must hold floating-point numbers, got {array.dtype}")
    return None if array is None else to_tensor(array)


def _generator(message: Mapping[str, Any]) -> torch.Generator | None:
    """The client's generator as it was when it asked."""
    state = take_array(message, "state", optional=True)
    if state is None:
        return None
    generator = torch.Generator()
    restore_generator(generator, state)
    return generator
