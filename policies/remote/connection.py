"""One thread that owns one socket to a policy server.

Calls may come from any thread; they are sent one at a time, in order. Nothing waits without a deadline: a call that
misses it fails with a `RemoteError`, and its socket is dropped, since a late answer must never be taken for that of the
next call, and a peer that went silent cannot be told from a slow one. A broken connection is made again, with growing
pauses, as long as a call has time left.
"""

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...data.errors import ConfigError, RemoteError
from .backoff import Backoff, BackoffConfig
from .wire import MAX_BYTES, require_serving

_GRACE_S = 2.0  # beyond a call's deadline, in case the thread itself has died
_TEXT = 2000  # characters of a server's error that are repeated
_REFUSED = {
    401: "the token is missing or wrong",
    403: "access is refused",
    404: "there is no policy at this path",
}
_FINAL_CODES = {1002, 1003, 1007, 1008, 1009, 1010}  # the server closed because of what it was sent


@dataclass(frozen=True, kw_only=True)
class ConnectionConfig:
    """How a server is reached.

    Attributes:
        url: ws://host:port or wss://host:port.
        deadline_s: for a call that names none, connecting included.
        heartbeat_s: between pings while connected; a peer that answers none for as long is gone. 0 sends none, for
            servers that answer nothing while they compute.
        max_bytes: of one answer.
        backoff: pauses between attempts to connect.
    """

    url: str
    deadline_s: float = 10.0
    heartbeat_s: float = 5.0
    max_bytes: int = MAX_BYTES
    backoff: BackoffConfig = field(default_factory=BackoffConfig)

    def __post_init__(self) -> None:
        if not _is_websocket(self.url):
            raise ConfigError(
                f"a policy server's address is ws://host:port or wss://host:port, got {self.url!r}"
            )
        if not 0 < self.deadline_s < float("inf"):
            raise ConfigError(f"deadline_s must be positive and finite, got {self.deadline_s}")
        if not 0 <= self.heartbeat_s < float("inf"):
            raise ConfigError(f"heartbeat_s must be at least 0 and finite, got {self.heartbeat_s}")
        if self.max_bytes < 1:
            raise ConfigError(f"max_bytes must be at least 1, got {self.max_bytes}")


class Connection:
    """A socket to one server, made when it is needed and made again when it breaks."""

    def __init__(
        self,
        config: ConnectionConfig,
        *,
        greet: Callable[[bytes], None],
        headers: Mapping[str, str] | None = None,
        generator: np.random.Generator | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread; nothing is sent before the first call.

        `connects` counts how often a connection was made.

        Args:
            config: where and how.
            greet: given the server's first frame after every connect; what it raises ends the call.
            headers: sent with the handshake.
            generator: of the jitter in pauses. Without one it is seeded by the operating system: clients that all
                wait alike come back all at once.
            clock: seconds, for deadlines and pauses.
        """
        require_serving()
        self.config, self._greet, self._headers, self._clock = config, greet, dict(headers or {}), clock
        self._backoff = Backoff(config.backoff, generator=generator or np.random.default_rng(), clock=clock)
        self._socket: Any = None
        self.connects, self._trouble = 0, ""
        self._turn = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="policy-connection", daemon=True
        )
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._loop, self._thread)

    def submit(
        self, frame: Callable[[float], bytes] | None, *, deadline_s: float | None = None
    ) -> concurrent.futures.Future[bytes]:
        """Send a frame; the future holds the server's answer, or a RemoteError at the deadline.

        Args:
            frame: makes the frame, told how many seconds the call has left when it is sent; None only connects.
            deadline_s: seconds from now.
        """
        if not self._end.alive:
            raise RemoteError(f"the connection to {self.config.url} was closed")
        wait = self.config.deadline_s if deadline_s is None else deadline_s
        return asyncio.run_coroutine_threadsafe(self._call(frame, self._clock() + wait, wait), self._loop)

    def call(self, frame: Callable[[float], bytes], *, deadline_s: float | None = None) -> bytes:
        """`submit`, and wait for the answer."""
        return self.wait(self.submit(frame, deadline_s=deadline_s), deadline_s=deadline_s)

    def wait(self, future: concurrent.futures.Future[Any], *, deadline_s: float | None = None) -> Any:
        """The result of a submitted call; even the thread's death cannot make this hang."""
        wait = self.config.deadline_s if deadline_s is None else deadline_s
        try:
            return future.result(wait + _GRACE_S)
        except concurrent.futures.TimeoutError as error:
            raise RemoteError(f"{self.config.url} gave no answer within {wait:g} s") from error
        except concurrent.futures.CancelledError as error:
            raise RemoteError(f"the connection to {self.config.url} was closed") from error

    def connect(self, *, deadline_s: float | None = None) -> None:
        """Connect now instead of at the first call."""
        self.wait(self.submit(None, deadline_s=deadline_s), deadline_s=deadline_s)

    def drop(self) -> None:
        """Give up the socket, for a peer whose answers cannot be told apart; the next call connects anew."""
        if self._end.alive:
            self._loop.call_soon_threadsafe(self._drop)

    def close(self) -> None:
        """End the thread and drop the socket; calls under way fail. Safe to call twice."""
        self.drop()
        self._end()

    async def _call(self, frame: Callable[[float], bytes] | None, deadline: float, wait: float) -> bytes:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())), self._turn:
                try:
                    return await self._exchange(frame, deadline)
                except BaseException:
                    self._drop()
                    raise
        except TimeoutError as error:
            failures = self._backoff.failures
            tried = f"; {failures} attempts failed, is it running? ({self._trouble})" if failures else ""
            raise RemoteError(f"{self.config.url} gave no answer within {wait:g} s{tried}") from error

    async def _exchange(self, frame: Callable[[float], bytes] | None, deadline: float) -> bytes:
        from websockets.exceptions import ConnectionClosed

        while True:
            socket = await self._connected()
            try:
                if frame is None:
                    answer = b""
                else:
                    await socket.send(frame(deadline - self._clock()))
                    answer = self._binary(await socket.recv())
                self._backoff.succeeded()
                return answer
            except ConnectionClosed as error:
                self._drop()
                code = error.rcvd.code if error.rcvd else None
                if code in _FINAL_CODES or (error.sent and error.sent.code in _FINAL_CODES):
                    raise RemoteError(f"{self.config.url} ended the connection: {_reason(error)}") from error
                self._failed(error)

    async def _connected(self) -> Any:
        """The socket, after as many attempts as it takes; the caller's deadline ends them."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        while self._socket is None:
            await asyncio.sleep(self._backoff.wait_s())
            try:
                self._socket = await connect(
                    self.config.url,
                    additional_headers=self._headers,
                    compression=None,
                    max_size=self.config.max_bytes,
                    open_timeout=None,
                    close_timeout=1.0,
                    ping_interval=self.config.heartbeat_s or None,
                    ping_timeout=self.config.heartbeat_s or None,
                    proxy=None,
                )
                self._greet(self._binary(await self._socket.recv()))
                self.connects += 1
            except InvalidStatus as error:
                status = error.response.status_code
                if status in _REFUSED:
                    raise RemoteError(f"{self.config.url} answers {status}: {_REFUSED[status]}") from error
                self._failed(error)
            except (OSError, WebSocketException) as error:
                self._failed(error)
        return self._socket

    def _failed(self, error: Exception) -> None:
        self._trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._drop()
        self._backoff.failed()

    def _binary(self, frame: bytes | str) -> bytes:
        if isinstance(frame, str):  # how openpi's server says what went wrong, before it closes
            raise RemoteError(f"{self.config.url} reports an error: {frame.strip()[-_TEXT:]}")
        return frame

    def _drop(self) -> None:
        """Forget the socket without waiting for the peer, who may be gone."""
        if self._socket is not None:
            self._socket.transport.abort()
            self._socket = None


def _is_websocket(url: str) -> bool:
    """Whether this is an address of a websocket: a scheme, a host, and a port or none."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = (parts.hostname or "").encode("idna"), parts.port  # both raise for what cannot be one
    except ValueError:
        return False
    plain = url.isprintable() and " " not in url and not parts.fragment
    return parts.scheme in ("ws", "wss") and host != b"" and plain


def host_of(url: str) -> str:
    """The host in an address."""
    return urllib.parse.urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Any) -> str:
    """What a closing handshake said."""
    close = error.rcvd or error.sent
    return f"{close.reason or 'no reason given'} (code {close.code})"


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: run the loop until it is stopped, then leave nothing behind."""
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(_GRACE_S)
