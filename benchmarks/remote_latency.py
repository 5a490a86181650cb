"""What it costs to ask a policy in another process: the loopback round trip, beside openpi's own client and server.

Our server and client hold the same policy: the overhead is `RemotePolicy.sample` minus the local `sample`, in one
alternating run. openpi is measured with a server that answers at once, and so is our client for its protocol; give its
client's folder with --openpi (a checkout's packages/openpi-client/src).
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.policies.remote.openpi import OpenPiConfig, OpenPiPolicy
from sensorimotor.policies.remote.remote import connect
from sensorimotor.policies.remote.wire import encode

HORIZON, ACTIONS = 16, 7
FIELDS = {
    "low-dim": {"state": Field(shape=(14,))},
    "224x224x3 image": {"image.base": Field(shape=(224, 224, 3), dtype="uint8"), "state": Field(shape=(14,))},
}


class Small(Policy):
    """One matrix product and fresh noise: as little as a policy can do."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        weights = torch.randn(14, HORIZON * ACTIONS, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights)

    def sample(
        self,
        observation: Mapping[str, Tensor],
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        **rest: Any,
    ) -> Tensor:
        """One chunk per sample."""
        mean = (observation["state"][:, -1] @ self.get_buffer("weights")).view(-1, 1, HORIZON, ACTIONS)
        shape = (len(mean), samples, HORIZON, ACTIONS)
        return mean + torch.randn(shape, generator=generator or torch.Generator().manual_seed(0))


def make_spec(what: str) -> Spec:
    return Spec(
        observation=FIELDS[what], action=Field(shape=(ACTIONS,)), control_hz=50, horizon=HORIZON, execute=8
    )


def observe(what: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randint(0, 256, (1, 1, *field.shape), generator=generator, dtype=torch.uint8)
        if field.dtype == "uint8"
        else torch.randn(1, 1, *field.shape, generator=generator)
        for key, field in FIELDS[what].items()
    }


def serve_ours(what: str) -> None:
    """In a process of its own: our server, until the standard input ends."""
    from sensorimotor.real.server import PolicyServer, ServerConfig

    torch.set_num_threads(1)
    with PolicyServer(Small(make_spec(what)), ServerConfig(port=0)) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def serve_openpi() -> None:
    """In a process of its own: openpi's protocol as its server speaks it, with a policy that answers at once."""
    import asyncio

    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    from sensorimotor.policies.remote.wire import decode

    actions = np.zeros((HORIZON, ACTIONS), np.float32)

    async def talk(socket: Any) -> None:
        await socket.send(encode({}))
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                decode(frame)
                await socket.send(encode({"actions": actions, "server_timing": {"infer_ms": 0.0}}))

    async def run() -> None:
        async with serve(talk, "127.0.0.1", 0, compression=None, max_size=None) as server:
            print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(run())


class Server:
    """A server in another process; ends with the context."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(self, *rest: object) -> None:
        self.process.communicate(timeout=20)


def take_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, after a tenth that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(-(rounds // 10), rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if i >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def measure(what: str, rounds: int, openpi: str | None) -> dict[str, list[float]]:
    """Times of one observation, all contenders in turn."""
    spec, seen = make_spec(what), observe(what)
    local = Small(spec)
    with Server("--serve-ours", what) as ours, Server("--serve-openpi") as theirs, connect(ours) as remote:
        here, there = (torch.Generator().manual_seed(1) for _ in range(2))
        assert torch.equal(local.sample(seen, generator=here), remote.sample(seen, generator=there))
        keys = (("image.base", "observation/image"), ("state", "observation/state"))
        config = OpenPiConfig(connection=ConnectionConfig(url=theirs, heartbeat_s=0), keys=keys)
        with OpenPiPolicy(config, spec) as ask:
            contenders: dict[str, Callable[[], Any]] = {
                "local": lambda: local.sample(seen, generator=here),
                "served": lambda: remote.sample(seen, generator=there),
                "OpenPiPolicy": lambda: ask.sample(seen),
            }
            if openpi is not None:
                contenders["openpi-client"] = openpi_client(openpi, theirs, dict(keys), seen)
            return take_turns(contenders, rounds)


def openpi_client(
    folder: str, url: str, keys: Mapping[str, str], seen: Mapping[str, Tensor]
) -> Callable[[], Any]:
    """Openpi's own client asking the same of the same server."""
    sys.path.insert(0, folder)
    from openpi_client.image_tools import resize_with_pad  # pyright: ignore[reportMissingImports]
    from openpi_client.websocket_client_policy import WebsocketClientPolicy  # pyright: ignore[reportMissingImports]

    client = WebsocketClientPolicy(url)
    request = {keys[key]: value[0, -1].numpy() for key, value in seen.items()}

    def ask() -> None:
        now = {k: resize_with_pad(v, 224, 224) if v.dtype == np.uint8 else v for k, v in request.items()}
        assert client.infer(now)["actions"].shape == (HORIZON, ACTIONS)

    return ask


def overheads(times: Mapping[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """Per contender: median, 5 % and 95 % quantiles of milliseconds beyond the local call of the same round."""
    out = {}
    for name, values in times.items():
        base = times["local"] if name == "served" else [0.0] * len(values)
        beyond = np.subtract(values, base)
        out[name] = tuple(float(q) for q in np.percentile(beyond, [50, 5, 95]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=500, help="turns of each contender")
    parser.add_argument("--openpi", help="folder that holds the package openpi_client")
    parser.add_argument("--serve-ours", choices=FIELDS, help=argparse.SUPPRESS)
    parser.add_argument("--serve-openpi", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_ours:
        serve_ours(options.serve_ours)
        return
    if options.serve_openpi:
        serve_openpi()
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from record import record

    torch.set_num_threads(1)
    times = {what: measure(what, options.rounds, options.openpi) for what in FIELDS}
    rows = []
    for what, found in times.items():
        for name, (middle, low, high) in overheads(found).items():
            meaning = {"served": "served minus local", "local": "local sample"}.get(
                name, f"{name}, round trip"
            )
            rows.append([what, meaning, f"{middle:.2f} [{low:.2f}, {high:.2f}]"])
    served = {what: overheads(found)["served"][0] for what, found in times.items()}
    record(
        "remote_latency",
        title="The price of asking a policy in another process of the same machine",
        columns=["observation", "what", "ms, median [5 %, 95 %]"],
        rows=rows,
        headline=", ".join(f"{what}: {ms:.2f} ms on top of the local call" for what, ms in served.items()),
        notes=[
            f"{options.rounds} rounds, contenders in turn; client and server are two processes, one torch thread each; "
            f"the machine's load average was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
            "served: the generator's state (5 kB) travels both ways, so that the chunk equals the local one bit for bit",
            "openpi-client and OpenPiPolicy ask one stand-in server that speaks openpi's protocol and answers at once",
        ],
        data={
            what: {name: statistics.median(values) for name, values in found.items()}
            for what, found in times.items()
        },
    )


if __name__ == "__main__":
    main()
