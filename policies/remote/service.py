"""A policy server as one client knows it: its greeting, and questions with answers."""

import concurrent.futures
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...data.errors import ConfigError, RemoteError, SpecError
from ...data.normalizer import Normalizer
from ...data.spec import Spec, check_connection
from .connection import Connection, ConnectionConfig
from .message import Greeting, check_same, check_version, take
from .wire import PROTOCOL, decode, encode

Answer = dict[str, Any]


class ForgottenError(RemoteError):
    """The server no longer holds the observation that a condition stands for."""


_ERRORS = {"SpecError": SpecError, "ConfigError": ConfigError, "ForgottenError": ForgottenError}


class Service:
    """Asks a server of this project, and checks what it says about itself.

    Attributes:
        greeting: what it said when it was first reached.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        *,
        token: str | None = None,
        spec: Spec | None = None,
        generator: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect.

        Args:
            config: where and how.
            token: shown to the server.
            spec: of the task or robot the policy will act on; the served policy must fit it.
            generator: of the jitter in pauses.
            clock: seconds.

        Raises:
            RemoteError: if the server cannot be reached in time, refuses the token or speaks another protocol.
            SpecError: if its policy does not fit `spec`.
        """
        self.config, self._wanted = config, spec
        self._greeting: Greeting | None = None
        self._numbers = itertools.count(1)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.connection = Connection(
            config, greet=self._meet, headers=headers, generator=generator, clock=clock
        )
        try:
            self.connection.connect()
        except BaseException:
            self.connection.close()
            raise

    @property
    def greeting(self) -> Greeting:
        """What the server said when it was first reached."""
        if self._greeting is None:
            raise RemoteError(f"{self.config.url} has not been reached yet")
        return self._greeting

    def submit(
        self, kind: str, entries: Mapping[str, Any], *, deadline_s: float | None = None
    ) -> concurrent.futures.Future[Answer]:
        """Ask; the future holds the answer, or the error the server gave."""
        number = next(self._numbers)

        def frame(left_s: float) -> bytes:
            head = {"version": PROTOCOL, "kind": kind, "id": number, "patience_s": left_s}
            return encode({**head, **entries})

        answered = self.connection.submit(frame, deadline_s=deadline_s)
        return follow(answered, lambda reply: self._read(reply, number))

    def ask(self, kind: str, entries: Mapping[str, Any], *, deadline_s: float | None = None) -> Answer:
        """`submit`, and wait for the answer."""
        return self.connection.wait(self.submit(kind, entries, deadline_s=deadline_s), deadline_s=deadline_s)

    def close(self) -> None:
        """Leave the server."""
        self.connection.close()

    def _meet(self, frame: bytes) -> None:
        """Take a greeting; a server that came back must be what it was."""
        greeting = Greeting.from_message(decode(frame, limit=self.config.max_bytes))
        if self._greeting is None:
            if self._wanted is not None:
                check_connection(greeting.spec, self._wanted, user_name=f"policy at {self.config.url}")
            Normalizer(greeting.statistics)  # raises for numbers that are not finite
            self._greeting = greeting
            return
        check_same(self._greeting, greeting, server=self.config.url)

    def _read(self, frame: bytes, number: int) -> Answer:
        answer = decode(frame, limit=self.config.max_bytes)
        check_version(answer)
        if answer.get("kind") == "error":
            name, text = take(answer, "type", str), take(answer, "message", str)
            if name in _ERRORS:
                raise _ERRORS[name](f"{self.config.url}: {text}")
            raise RemoteError(f"{self.config.url} reports {name}: {text}")
        if answer.get("kind") != "reply" or answer.get("id") != number:
            self.connection.drop()  # or every later answer would be that of the request before
            raise RemoteError(
                f"{self.config.url} sent {answer.get('kind')!r:.40} {answer.get('id')!r:.40} where the reply {number} was due"
            )
        return answer


def follow(
    future: concurrent.futures.Future[Any], then: Callable[[Any], Any]
) -> concurrent.futures.Future[Any]:
    """A future of what `then` makes of another future's result."""
    out: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def finish(done: concurrent.futures.Future[Any]) -> None:
        if not out.set_running_or_notify_cancel():
            return
        try:
            out.set_result(then(done.result()))
        except concurrent.futures.CancelledError:
            out.set_exception(RemoteError("the connection was closed before the answer came"))
        except Exception as error:
            out.set_exception(error)

    future.add_done_callback(finish)
    return out
