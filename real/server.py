"""A policy, served over websockets to robots and other programs.

One event loop listens, one thread infers: health checks and heartbeats are answered while a chunk is computed. Every
wait, every queue and every frame has a bound.
"""

import asyncio
import concurrent.futures
import contextlib
import hmac
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from ..data.errors import ConfigError, RemoteError, SensorimotorError, TransportError
from ..data.schema import to_mapping
from ..policies.policy import Policy
from ..policies.remote.client import check_token
from ..policies.remote.connection import is_loopback
from ..policies.remote.message import Greeting
from ..policies.remote.wire import encode, require_serving
from ..policies.sampling import SamplerConfig
from .session import Request, Session, SessionConfig, error_frame, read_request

HEALTH = "/healthz"
_LOG = logging.getLogger(__name__)
_QUIET = logging.getLogger(f"{__name__}.socket")  # strangers' broken handshakes are no news
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
_WRONG_REQUEST = 1008  # websocket code "policy violation"
_TRY_LATER = 1013


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where a server listens and what it puts up with.

    Attributes:
        host: address to listen on; any but this machine's own loopback needs a token.
        port: TCP port; 0 lets the system choose.
        token: clients must show it as `Authorization: Bearer <token>`.
        certificate: PEM file of a TLS certificate chain; clients then use wss://.
        key: PEM file of its private key; None if the certificate file holds it too.
        clients: served at the same time.
        waiting: requests of one client that wait or run; more are refused at once.
        faults: frames of one client that are no requests, before it is sent away.
        heartbeat_s: between pings; a client that answers none for as long is gone.
        send_s: a client that does not take its answer within this time is sent away.
        finish_s: how long stopping waits for the chunk under way.
        session: what one client may ask for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = None
    clients: int = 16
    waiting: int = 4
    faults: int = 20
    heartbeat_s: float = 20.0
    send_s: float = 10.0
    finish_s: float = 10.0
    session: SessionConfig = field(default_factory=SessionConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in 0..65535, got {self.port}")
        for name in ("clients", "waiting", "faults"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("heartbeat_s", "send_s", "finish_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if self.token is not None:
            check_token(self.token)
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached by others, which needs a token: set SENSORIMOTOR_TOKEN, "
                "or listen on 127.0.0.1"
            )
        if self.key is not None and self.certificate is None:
            raise ConfigError(f"key {self.key} needs a certificate")


@dataclass(eq=False)
class _Client:
    """A connected client: its conversation and what it waits for."""

    session: Session
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    faults: int = 0


class PolicyServer:
    """Serves one policy from a thread of its own; use it as a context, or `start` and `stop`."""

    def __init__(
        self,
        policy: Policy,
        config: ServerConfig,
        *,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            policy: what is served; it is used by one thread only.
            config: where and with which limits.
            name: of the policy, told to clients; its class name if empty.
            clock: seconds, for the patience of clients.
        """
        require_serving()
        self.policy, self.config, self._clock = policy, config, clock
        sampler = getattr(policy, "sampler", None)
        greeting = Greeting.of(
            policy,
            name=name or type(policy).__name__,
            sampler=to_mapping(sampler) if isinstance(sampler, SamplerConfig) else None,
        )
        self._greeting = encode(greeting.to_message())
        self._ssl = _tls(config)
        self._clients: set[_Client] = set()
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._inference = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="policy-inference")
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._listening: concurrent.futures.Future[int] = concurrent.futures.Future()

    def start(self) -> Self:
        """Listen; returns when clients can connect.

        Raises:
            RemoteError: if the address cannot be used.
        """
        self._thread = threading.Thread(target=self._run, name="policy-server", daemon=True)
        self._thread.start()
        try:
            self._listening.result(self.config.finish_s)
        except (OSError, UnicodeError) as error:
            self._inference.shutdown(wait=False)
            why = getattr(error, "strerror", None) or error
            raise RemoteError(
                f"cannot listen on {self.config.host}:{self.config.port}: {why}; choose another port, "
                "or a host that is this machine"
            ) from error
        return self

    def stop(self) -> None:
        """Take no more requests, finish the chunk under way, send it, and end. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(2 * self.config.finish_s)
        self._inference.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *rest: object) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether clients are being served."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self._listening.result(0)

    @property
    def url(self) -> str:
        """The address that clients on this machine use."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"{'wss' if self._ssl else 'ws'}://{host}:{self.port}"

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self._listening.done():
                self._listening.set_exception(error)
            else:
                _LOG.exception("the policy server ended")
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        from websockets.asyncio.server import serve

        server = await serve(
            self._talk,
            self.config.host,
            self.config.port,
            ssl=self._ssl,
            process_request=self._admit,
            origins=[None],  # no page in somebody's browser may speak to the robot
            compression=None,
            max_size=self.config.session.max_bytes,
            max_queue=2,
            open_timeout=5.0,
            close_timeout=1.0,
            ping_interval=self.config.heartbeat_s,
            ping_timeout=self.config.heartbeat_s,
            logger=_QUIET,
        )
        self._listening.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        tasks = {task for client in self._clients for task in client.tasks}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.finish_s):
                if tasks:  # those still waiting for their turn see that it is over and say so
                    await asyncio.wait(tasks)
                await self._turn.acquire()  # the chunk under way may be that of a client who has left
        server.close(code=1001, reason="the server stops")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), self.config.finish_s)

    def _admit(self, connection: Any, request: Any) -> Any:
        """Answer health checks; refuse who has no token, or comes when all places are taken."""
        if request.path == HEALTH:
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self.config.token is not None:
            shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(shown, f"Bearer {self.config.token}".encode()):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        if len(self._clients) >= self.config.clients or self._stopping.is_set():
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "try later\n")
        return None

    async def _talk(self, socket: Any) -> None:
        """One client from greeting to goodbye; when it has left, what it waits for is not computed."""
        from websockets.exceptions import ConnectionClosed

        if len(self._clients) >= self.config.clients:  # several were admitted at once
            await socket.close(_TRY_LATER, "try later")
            return
        client = _Client(Session(self.policy, self.config.session))
        self._clients.add(client)
        try:
            await socket.send(self._greeting)
            async for frame in socket:
                if not await self._take(client, socket, frame):
                    break
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            for task in client.tasks:
                task.cancel()

    async def _take(self, client: _Client, socket: Any, frame: bytes | str) -> bool:
        """Queue one frame's request; False if the client has to go."""
        try:
            request = read_request(frame, limit=self.config.session.max_bytes)
        except TransportError as error:
            client.faults += 1
            await self._send(socket, error_frame(None, error))
            if client.faults < self.config.faults:
                return True
            await socket.close(_WRONG_REQUEST, "too many frames that are no requests")
            return False
        if len(client.tasks) >= self.config.waiting or self._stopping.is_set():
            why = (
                "the server stops"
                if self._stopping.is_set()
                else f"{self.config.waiting} requests wait already"
            )
            await self._send(socket, error_frame(request.number, RemoteError(f"{why}; ask again later")))
            return True
        task = asyncio.create_task(self._answer(client.session, socket, request, self._clock()))
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)
        return True

    async def _answer(self, session: Session, socket: Any, request: Request, came: float) -> None:
        """Wait for the inference thread, first come first served, then answer."""
        try:
            frame = await self._infer(session, request, came)
        except SensorimotorError as error:
            frame = error_frame(request.number, error)
        await self._send(socket, frame)

    async def _infer(self, session: Session, request: Request, came: float) -> bytes:
        """Have the inference thread answer; the turn lasts until it is free, also if the client leaves meanwhile."""
        await self._turn.acquire()
        try:
            self._still_wanted(request, came)
            work = asyncio.get_running_loop().run_in_executor(self._inference, session.answer, request)
        except BaseException:
            self._turn.release()
            raise
        work.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(work)  # not cancelled with the client: the thread goes on all the same

    def _still_wanted(self, request: Request, came: float) -> None:
        if self._stopping.is_set():
            raise RemoteError("the server stops; ask again later")
        if (waited := self._clock() - came) > request.patience_s:
            raise RemoteError(f"the request waited {waited:.3f} s, longer than the client does")

    async def _send(self, socket: Any, frame: bytes) -> None:
        """Send, but not forever: a client that takes nothing is cut off."""
        from websockets.exceptions import ConnectionClosed

        try:
            async with asyncio.timeout(self.config.send_s):
                await socket.send(frame)
        except ConnectionClosed:
            pass
        except TimeoutError:
            socket.transport.abort()


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(Path(config.certificate), None if config.key is None else Path(config.key))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"certificate {config.certificate} cannot be used: {error}") from error
    return context
