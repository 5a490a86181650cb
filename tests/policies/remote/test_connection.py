import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.errors import ConfigError, RemoteError
from sensorimotor.policies.remote.backoff import BackoffConfig
from sensorimotor.policies.remote.connection import Connection, ConnectionConfig

Reach = Callable[..., ConnectionConfig]
Serve = Callable[..., str]


def echo(peer: Any) -> None:
    peer.send(b"hello")
    for frame in peer:
        peer.send(frame)


@pytest.fixture
def open_connection() -> Iterator[Callable[..., Connection]]:
    opened: list[Connection] = []

    def make(config: ConnectionConfig, **options: Any) -> Connection:
        options = {"greet": lambda frame: None, "generator": np.random.default_rng(0)} | options
        opened.append(Connection(config, **options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


def say(text: bytes) -> Callable[[float], bytes]:
    return lambda left_s: text


def test_calls_from_many_threads_get_their_own_answers(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    connection = open_connection(reach(fake_server(echo)))
    futures = [connection.submit(say(b"%d" % i)) for i in range(50)]
    assert [connection.wait(f) for f in futures] == [b"%d" % i for i in range(50)]
    assert connection.connects == 1


def test_the_greeting_is_seen_at_every_connect(fake_server: Serve, reach: Reach, open_connection) -> None:
    def once(peer: Any) -> None:
        peer.send(b"hello")
        peer.send(peer.recv())

    greetings: list[bytes] = []
    connection = open_connection(reach(fake_server(once)), greet=greetings.append)
    for i in range(3):
        assert connection.call(say(b"%d" % i)) == b"%d" % i
    assert greetings == [b"hello"] * 3


def test_nothing_listening_ends_at_the_deadline(reach: Reach, open_connection) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        connection = open_connection(reach(f"ws://127.0.0.1:{unused.getsockname()[1]}"))
        with pytest.raises(RemoteError, match=r"no answer within 0.2 s; \d+ attempts failed"):
            connection.call(say(b"x"), deadline_s=0.2)


def test_a_peer_that_never_shakes_hands_ends_at_the_deadline(reach: Reach, open_connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = open_connection(reach(f"ws://127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises(RemoteError, match=r"no answer within 0.2 s$"):
            connection.call(say(b"x"), deadline_s=0.2)


def test_a_late_answer_is_never_taken_for_the_next_one(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    slow = threading.Event()

    def handler(peer: Any) -> None:
        peer.send(b"hello")
        for frame in peer:
            if frame == b"slow":
                slow.wait(10)
            peer.send(frame)

    connection = open_connection(reach(fake_server(handler)))
    with pytest.raises(RemoteError, match=r"no answer within 0.1 s"):
        connection.call(say(b"slow"), deadline_s=0.1)
    slow.set()
    assert connection.call(say(b"quick")) == b"quick"


def test_a_call_that_waits_behind_a_slow_one_keeps_its_own_deadline(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    go = threading.Event()

    def handler(peer: Any) -> None:
        peer.send(b"hello")
        for frame in peer:
            go.wait(10)
            peer.send(frame)

    connection = open_connection(reach(fake_server(handler)))
    first = connection.submit(say(b"first"))
    with pytest.raises(RemoteError, match=r"no answer within 0.1 s"):
        connection.call(say(b"second"), deadline_s=0.1)
    go.set()
    assert connection.wait(first) == b"first"
    assert connection.connects == 1


def test_a_broken_socket_is_replaced_and_the_call_repeated(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    seen = []

    def handler(peer: Any) -> None:
        peer.send(b"hello")
        for frame in peer:
            seen.append(frame)
            if len(seen) == 1:
                peer.socket.shutdown(socket.SHUT_RDWR)
                return
            peer.send(frame)

    connection = open_connection(reach(fake_server(handler)))
    assert connection.call(say(b"again")) == b"again"
    assert seen == [b"again", b"again"]
    assert connection.connects == 2


def test_a_server_that_breaks_at_every_call_is_asked_ever_more_rarely(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    def handler(peer: Any) -> None:
        peer.send(b"hello")
        peer.recv()
        peer.socket.shutdown(socket.SHUT_RDWR)

    pauses = BackoffConfig(first_s=0.02, factor=2, longest_s=10, jitter=0)
    connection = open_connection(reach(fake_server(handler), backoff=pauses))
    with pytest.raises(RemoteError, match=r"no answer within 0.5 s; \d attempts failed"):
        connection.call(say(b"x"), deadline_s=0.5)
    assert 1 <= connection.connects <= 5  # at 0, 0.02, 0.06, 0.14 and 0.3 s


def test_a_silent_peer_is_found_out_by_heartbeats_before_the_deadline(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    connects, over = [], threading.Event()

    def handler(peer: Any) -> None:
        connects.append(peer)
        peer.send(b"hello")
        if len(connects) == 1:
            peer.protocol.send_frame = lambda frame: None  # half open: takes everything in, says nothing
            over.wait(20)
            return
        for frame in peer:
            peer.send(frame)

    connection = open_connection(reach(fake_server(handler), heartbeat_s=0.1, deadline_s=8.0))
    try:
        assert connection.call(say(b"x")) == b"x"
    finally:
        over.set()
    assert connection.connects == 2


def test_a_text_frame_is_the_servers_error(fake_server: Serve, reach: Reach, open_connection) -> None:
    def handler(peer: Any) -> None:
        peer.send(b"hello")
        peer.recv()
        peer.send("Traceback (most recent call last):\nKeyError: 'observation/image'")

    connection = open_connection(reach(fake_server(handler)))
    with pytest.raises(RemoteError, match=r"reports an error: .*\n?KeyError: 'observation/image'"):
        connection.call(say(b"x"))


def test_an_answer_beyond_the_limit_is_refused_at_once(
    fake_server: Serve, reach: Reach, open_connection
) -> None:
    connection = open_connection(reach(fake_server(echo), max_bytes=1000))
    with pytest.raises(RemoteError, match=r"ended the connection: .*code 1009"):
        connection.call(say(bytes(1001)))
    assert connection.call(say(bytes(1000))) == bytes(1000)


def test_what_the_greeting_raises_ends_the_call(fake_server: Serve, reach: Reach, open_connection) -> None:
    def greet(frame: bytes) -> None:
        raise RemoteError("not who was expected")

    with pytest.raises(RemoteError, match="not who was expected"):
        open_connection(reach(fake_server(echo)), greet=greet).connect()


def test_closing_ends_calls_under_way(fake_server: Serve, reach: Reach, open_connection) -> None:
    def handler(peer: Any) -> None:
        peer.send(b"hello")
        peer.recv()
        threading.Event().wait(1)

    connection = open_connection(reach(fake_server(handler)))
    connection.connect()
    future = connection.submit(say(b"x"))
    connection.close()
    with pytest.raises(RemoteError, match="was closed"):
        connection.wait(future, deadline_s=1.0)
    with pytest.raises(RemoteError, match="was closed"):
        connection.submit(say(b"x"))
    with pytest.raises(RemoteError, match="was closed"):
        connection.connect()
    connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "http://127.0.0.1",
        "ws://",
        "ws://:8000",
        "ws://robot:99999",
        "ws://robot:port",
        "ws://a..b:8000",
        "ws://[::1",
        "ws://robot:8000 ",
        "ws://robot\n:8000",
        "ws://robot#8000",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ws://host:port or wss://host:port, got '"):
        ConnectionConfig(url=url)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "wss://[::1]:8443", "ws://robot.example/policy"])
def test_addresses_are_taken_as_they_are(url: str) -> None:
    assert ConnectionConfig(url=url).url == url


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"deadline_s": 0.0}, "deadline_s must be positive"),
        ({"deadline_s": float("nan")}, "deadline_s must be positive"),
        ({"heartbeat_s": -1.0}, "heartbeat_s must be at least 0"),
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
    ],
)
def test_impossible_connections_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        replace(ConnectionConfig(url="ws://127.0.0.1:1"), **changes)
