"""Servers that say what a test wants them to say, on ports of the system's choice."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from websockets.sync.server import serve

from sensorimotor.policies.remote.backoff import BackoffConfig
from sensorimotor.policies.remote.connection import ConnectionConfig


@pytest.fixture
def fake_server() -> Iterator[Callable[..., str]]:
    """Start a server with a handler of sockets; returns its address."""
    running = []

    def start(handler: Callable[[Any], None], **options: Any) -> str:
        server = serve(handler, "127.0.0.1", 0, compression=None, close_timeout=0.2, **options)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join(5)


@pytest.fixture
def reach() -> Callable[..., ConnectionConfig]:
    """How tests reach a server: impatiently."""

    def config(url: str, **changes: Any) -> ConnectionConfig:
        quick = ConnectionConfig(
            url=url, deadline_s=5.0, heartbeat_s=0.0, backoff=BackoffConfig(first_s=0.01, longest_s=0.05)
        )
        return replace(quick, **changes)

    return config
