"""The server among strangers, impatient clients, and at its end."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from websockets.asyncio.client import connect as meet
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as dial
from websockets.typing import Origin

from sensorimotor.data.errors import ConfigError, RemoteError
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.remote.connection import is_loopback
from sensorimotor.policies.remote.message import generator_state
from sensorimotor.policies.remote.remote import connect
from sensorimotor.policies.remote.wire import decode, encode
from sensorimotor.real.server import PolicyServer, ServerConfig
from sensorimotor.real.session import SessionConfig


def observe() -> dict[str, Tensor]:
    return {"state": torch.zeros(1, 2, 3)}


def request(**changes: Any) -> bytes:
    message = {
        "version": 1,
        "id": 1,
        "kind": "sample",
        "patience_s": 10.0,
        "observation": {"state": observe()["state"].numpy()},
        "samples": 1,
        "state": None,
        "prefix": None,
    }
    return encode(message | changes)


def hear(client: Any) -> dict[str, Any]:
    """The next message for a client."""
    frame = client.recv(timeout=5)
    assert isinstance(frame, bytes)
    return decode(frame)


def get(server: PolicyServer, path: str = "/healthz") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Gated(Policy):
    """Counts what it computes; every chunk waits for the gate."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.spec)
        self.gate, self.begun, self.asked = threading.Event(), threading.Semaphore(0), 0

    def sample(self, observation: Mapping[str, Tensor], *, samples: int = 1, **rest: Any) -> Tensor:
        self.asked += 1
        self.begun.release()
        assert self.gate.wait(20)
        return torch.full((len(observation["state"]), samples, 8, 2), float(self.asked))


@pytest.fixture
def gated(policy: Policy) -> Iterator[Gated]:
    gated = Gated(policy)
    yield gated
    gated.gate.set()


def test_health_and_heartbeats_are_answered_while_a_chunk_is_computed(gated, serve, reach) -> None:
    server = serve(gated, token="secret")
    with (
        connect(reach(server.url), token="secret") as remote,
        dial(server.url, additional_headers={"Authorization": "Bearer secret"}) as other,
    ):
        future = remote.submit(observe())
        assert gated.begun.acquire(timeout=5)
        assert get(server) == (200, "OK\n")
        assert other.ping().wait(5)
        assert not future.done()
        gated.gate.set()
        assert remote.service.connection.wait(future).shape == (1, 1, 8, 2)


def served(server: PolicyServer, clients: int) -> None:
    """Wait until the server counts so many clients: it has seen the others leave."""
    until(lambda: len(server._clients) == clients)


def waiting(server: PolicyServer, requests: int) -> None:
    """Wait until so many requests wait or run."""
    until(lambda: sum(len(client.tasks) for client in server._clients) == requests)


def until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("waited for 20 s in vain")


def test_a_client_that_left_is_not_computed_for(gated, serve, reach) -> None:
    server = serve(gated)
    with dial(server.url) as leaving, connect(reach(server.url)) as staying:
        leaving.recv()
        for number in range(3):
            leaving.send(request(id=number))
        assert gated.begun.acquire(timeout=5)
        leaving.close()
        served(server, 1)
        future = staying.submit(observe())
        gated.gate.set()
        assert staying.service.connection.wait(future)[0, 0, 0, 0] == 2
        assert gated.asked == 2, "the first of the leaver's requests was under way, the others were not begun"


def test_clients_that_come_ask_and_leave_fill_no_queue(gated, serve) -> None:
    server = serve(gated)
    for number in range(5):
        with dial(server.url) as leaving:
            leaving.recv()
            leaving.send(request())
            assert leaving.ping().wait(5)  # the request was read before the ping
            assert number or gated.begun.acquire(timeout=5)
    served(server, 0)
    assert server._inference._work_queue.qsize() == 0, "the first is under way, the others were forgotten"
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    stopping.join(0.3)
    assert stopping.is_alive(), "the policy is still in use"
    gated.gate.set()
    stopping.join(5)
    assert gated.asked == 1


def test_a_client_may_only_have_so_many_requests_waiting(gated, serve) -> None:
    server = serve(gated, waiting=2)
    with dial(server.url) as client:
        client.recv()
        for number in range(4):
            client.send(request(id=number))
        refused = [hear(client) for _ in range(2)]
        assert [(r["id"], r["type"]) for r in refused] == [(2, "RemoteError"), (3, "RemoteError")]
        assert "2 requests wait already" in refused[0]["message"]
        gated.gate.set()
        assert [hear(client)["id"] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("left", [False, True])
def test_a_request_nobody_waits_for_any_more_is_not_computed(gated, serve, left: bool) -> None:
    clock = [0.0]
    server = PolicyServer(gated, ServerConfig(port=0), clock=lambda: clock[0])
    with server, dial(server.url) as first, dial(server.url) as second:
        first.recv()
        first.send(request())
        assert gated.begun.acquire(timeout=5)
        if left:
            first.close()
            served(server, 1)
        second.recv()
        second.send(request(id=2, patience_s=1.0))
        waiting(server, 1 if left else 2)
        clock[0] = 1.5
        gated.gate.set()
        assert "waited 1.500 s, longer than the client does" in hear(second)["message"]
        assert gated.asked == 1


def test_only_so_many_clients_and_a_place_that_is_left_is_free_again(policy, serve, reach) -> None:
    server = serve(policy, clients=1)
    with connect(reach(server.url)):
        with pytest.raises(RemoteError, match="attempts failed"):
            connect(reach(server.url, deadline_s=0.3))
        assert get(server) == (200, "OK\n")
    connect(reach(server.url)).close()


@pytest.mark.parametrize(
    "shown", [None, "Bearer", "Bearer guess", "Api-Key secret", "secret", "Bearer secretx"]
)
def test_only_the_token_opens(policy, serve, shown: str | None) -> None:
    server = serve(policy, token="secret")
    headers = {} if shown is None else {"Authorization": shown}
    with pytest.raises(InvalidStatus, match="401"), dial(server.url, additional_headers=headers):
        pass
    with dial(server.url, additional_headers={"Authorization": "Bearer secret"}) as client:
        assert hear(client)["kind"] == "greeting"


def test_a_page_in_a_browser_is_refused(policy, serve) -> None:
    server = serve(policy)
    page = Origin("http://127.0.0.1")
    with pytest.raises(InvalidStatus, match="403"), dial(server.url, origin=page):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "robot.example"])
def test_other_machines_need_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        ServerConfig(host=host)
    assert "secret" not in repr(ServerConfig(host=host, token="secret"))


def test_loopback_is_known_in_all_its_spellings() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "localhost.example", ""))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"port": 70_000}, "port must lie in"),
        *(
            ({"token": token}, "token is empty, begins or ends with blanks")
            for token in ("", " ", "x ", "x\ny")
        ),
        ({"clients": 0}, "clients must be at least 1"),
        ({"send_s": float("inf")}, "send_s must be positive and finite"),
        ({"key": "server.key"}, "needs a certificate"),
    ],
)
def test_impossible_servers_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ServerConfig(**changes)


def test_a_certificate_that_is_none_is_refused(policy, tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"server.pem cannot be used"):
        PolicyServer(policy, ServerConfig(certificate=str(tmp_path / "server.pem")))


def test_a_certificate_makes_it_wss(policy, serve, reach, tmp_path: Path, monkeypatch) -> None:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    made = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
    words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", made["key"], "-out", made["certificate"]]
    subprocess.run([openssl, *words, *files], check=True, capture_output=True)
    server = serve(policy, **made)
    assert server.url.startswith("wss://")
    with pytest.raises(RemoteError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(reach(server.url, deadline_s=0.5))
    monkeypatch.setenv("SSL_CERT_FILE", made["certificate"])
    with connect(reach(server.url)) as remote:
        assert torch.equal(remote.sample(observe()), policy.sample(observe()))


def test_a_port_in_use_is_said(policy, serve) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(RemoteError, match="cannot listen on"),
    ):
        serve(policy, port=taken.getsockname()[1])


def test_a_host_that_is_none_is_said(policy, serve) -> None:
    with pytest.raises(RemoteError, match=r"cannot listen on a\.\.b:0: .*or a host that is this machine"):
        serve(policy, host="a..b", token="secret")


def test_stopping_finishes_the_chunk_under_way_and_refuses_the_next(gated, serve) -> None:
    server = serve(gated)
    with dial(server.url) as client:
        client.recv()
        client.send(request())
        assert gated.begun.acquire(timeout=5)
        client.send(request(id=2))
        waiting(server, 2)
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(server.stop)
            until(server._stopping.is_set)
            gated.gate.set()
            answers = {a["id"]: a for a in (hear(client) for _ in range(2))}
            stopping.result(10)
        assert answers[1]["kind"] == "reply"
        assert "the server stops" in answers[2]["message"]
        with pytest.raises(ConnectionClosed, match="1001"):
            client.recv(timeout=5)
    assert gated.asked == 1
    server.stop()


def test_a_client_that_takes_no_answers_is_cut_off_and_harms_nobody(make_flow, serve, reach) -> None:
    policy = make_flow()
    server = serve(policy, send_s=0.2, session=SessionConfig(max_rows=100_000))
    with socket.create_connection(("127.0.0.1", server.port)) as greedy, connect(reach(server.url)) as honest:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        frame = request(samples=60_000)  # an answer of 3.8 MB, more than sockets hold
        head = b"\x82\xfe" + len(frame).to_bytes(2, "big") + bytes(4)  # masked with zeros

        def insist() -> None:
            for _ in range(200):
                greedy.sendall(head + frame)
                assert honest.sample(observe()).shape == (1, 1, 8, 2)
                time.sleep(0.05)

        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            insist()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


FRAMES = 10_000
LIMIT = 2**18


GOOD = request(state=generator_state(torch.Generator()))
NAMES = (
    "version",
    "id",
    "kind",
    "patience_s",
    "observation",
    "samples",
    "state",
    "prefix",
    "noise",
    "sampler",
    "guide",
)
LIES = (b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\xc7\xff\x01", b"\xc6\x7f\xff\xff\xff", bytes(LIMIT + 1))


def hostile(generator: np.random.Generator) -> bytes | str:
    """One frame that no honest client would send."""

    def below(n: int) -> int:
        return int(generator.integers(n))

    junk = (
        None,
        True,
        -1,
        2**63,
        1e308,
        float("nan"),
        "x" * 50,
        b"\xff\0",
        [],
        {},
        [[]],
        [b"x"],
        {"kind": {}},
    )
    match below(8):
        case 0:
            return generator.bytes(below(80))
        case 1:
            return GOOD[: below(len(GOOD))]
        case 2:
            at = below(len(GOOD))
            return GOOD[:at] + generator.bytes(1) + GOOD[at + 1 :]
        case 3 | 4:
            return request(**{NAMES[below(len(NAMES))]: junk[below(len(junk))]})
        case 5:
            kinds = ("encode", "noise", "velocity")
            entries = {"condition": junk[below(len(junk))], "repeats": 2**40, "x": observe()["state"].numpy()}
            return request(kind=kinds[below(3)], **entries)
        case 6:
            array = {
                b"__ndarray__": True,
                b"data": bytes(8),
                b"dtype": "<f4",
                b"shape": [2 ** below(40)] * below(9),
            }
            return request(observation={"state": array}, samples=2 ** below(60))
        case _:
            return LIES[below(5)] if below(20) else "text"


async def attack(url: str, seed: int, count: int) -> int:
    """Send hostile frames, each as soon as the one before was answered; how many connections that took."""
    generator, sent, connections = np.random.default_rng(seed), 0, 0
    while sent < count:
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(60), meet(url, compression=None, max_size=None) as stranger:
                connections += 1
                await stranger.recv()
                while sent < count:
                    sent += 1
                    await stranger.send(hostile(generator))
                    await stranger.recv()
    return connections


def test_ten_thousand_hostile_frames_neither_stop_nor_swell_nor_confuse_the_server(
    policy, serve, reach
) -> None:
    server = serve(policy, session=SessionConfig(max_bytes=LIMIT))
    over, served = threading.Event(), [0, 0]

    def honest(number: int) -> None:
        here, there = (torch.Generator().manual_seed(number) for _ in range(2))
        with connect(reach(server.url)) as remote:
            while not over.is_set():
                seen = {"state": torch.full((1, 2, 3), float(number))}
                wanted = policy.sample(seen, generator=here)
                assert torch.equal(remote.sample(seen, generator=there), wanted)
                served[number] += 1
                time.sleep(0.05)
            assert remote.service.connection.connects == 1

    asyncio.run(
        attack(server.url, seed=0, count=300)
    )  # what the first frames bring into memory is there to stay
    before = resident_bytes()
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(honest, number) for number in range(2)]
        try:
            connections = asyncio.run(attack(server.url, seed=1, count=FRAMES))
        finally:
            over.set()
        for client in clients:
            client.result(20)
    assert connections > 100
    assert min(served) > 5
    assert get(server) == (200, "OK\n")
    assert resident_bytes() - before < 100 * 2**20


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def process() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(port: int, seconds: float) -> "subprocess.Popen[str]":
        command = [sys.executable, str(Path(__file__).with_name("slow_server.py")), str(port), str(seconds)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for server in started:
        server.kill()
        server.communicate(timeout=10)


def line(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    return server.stdout.readline().strip()


def test_a_server_killed_mid_chunk_is_waited_for_and_asked_again(process: Start, reach) -> None:
    first = process(0, 30)
    url = line(first)
    with connect(reach(url, deadline_s=60.0)) as remote:
        generator = torch.Generator().manual_seed(7)
        observation = {"state": torch.zeros(2, 1, 3)}
        future = remote.submit(observation, samples=3, generator=generator)
        assert line(first) == "asked"
        first.kill()
        first.wait(10)
        with pytest.raises(RemoteError, match="no answer within"):
            remote.sample(observation, deadline_s=0.3)
        second = process(int(url.rsplit(":", 1)[1]), 0)
        assert line(second) == url
        chunks = remote.service.connection.wait(future)
        wanted = torch.randn(2, 3, 8, 2, generator=torch.Generator().manual_seed(7))
        assert torch.equal(chunks, wanted)
        assert remote.service.connection.connects == 2
