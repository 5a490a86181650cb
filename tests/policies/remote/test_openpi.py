"""Against a server that speaks openpi's protocol as openpi's own does."""

from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import msgpack
import numpy as np
import pytest
import torch

from sensorimotor.data.errors import ConfigError, RemoteError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.remote.openpi import OpenPiConfig, OpenPiPolicy
from sensorimotor.policies.remote.wire import WireError, decode, encode

SPEC = Spec(
    observation={"image.base": Field(shape=(48, 64, 3), dtype="uint8"), "state": Field(shape=(4,))},
    action=Field(shape=(3,)),
    control_hz=15,
    horizon=5,
    execute=4,
)
CHUNK = np.arange(15, dtype=np.float32).reshape(5, 3)


class Server:
    """Answers what it was given, and remembers what it was asked."""

    def __init__(self, actions: Any) -> None:
        self.actions, self.requests = actions, []

    def __call__(self, peer: Any) -> None:
        peer.send(encode({"model": "pi0"}))
        for frame in peer:
            self.requests.append(decode(frame))
            if isinstance(self.actions, str):
                peer.send(self.actions)
                peer.close(1011, "Internal server error")
                return
            peer.send(encode({"actions": self.actions, "server_timing": {"infer_ms": 1.0}}))


def observation(batch: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image.base": torch.randint(0, 256, (batch, 1, 48, 64, 3), generator=generator, dtype=torch.uint8),
        "state": torch.randn(batch, 1, 4, generator=generator),
    }


@pytest.fixture
def ask(fake_server: Callable[..., str], reach: Callable[..., Any]) -> Callable[..., Any]:
    def sample(
        actions: Any, *, batch: int = 1, spec: Spec = SPEC, **rest: Any
    ) -> tuple[torch.Tensor, Server]:
        server = Server(actions)
        config = OpenPiConfig(connection=reach(fake_server(server)), prompt="fold the towel")
        with OpenPiPolicy(config, spec) as policy:
            assert policy.metadata == {"model": "pi0"}
            return policy.sample(observation(batch), **rest), server

    return sample


def test_a_chunk_comes_back_and_the_request_is_as_openpi_wants_it(ask) -> None:
    chunks, server = ask(CHUNK)
    assert chunks.dtype == torch.float32
    torch.testing.assert_close(chunks, torch.from_numpy(CHUNK)[None, None], rtol=0, atol=0)
    (request,) = server.requests
    assert set(request) == {"observation/image", "observation/state", "prompt"}
    assert request["prompt"] == "fold the towel"
    assert (request["observation/image"].dtype, request["observation/image"].shape) == (
        np.uint8,
        (224, 224, 3),
    )
    np.testing.assert_array_equal(request["observation/state"], observation()["state"][0, 0].numpy())
    assert not request["observation/image"][:28].any()


def test_rows_and_samples_are_calls_in_order(ask) -> None:
    chunks, server = ask(CHUNK, batch=2, samples=3)
    assert chunks.shape == (2, 3, 5, 3)
    states = [tuple(request["observation/state"]) for request in server.requests]
    assert states[:3] == [tuple(observation(2)["state"][0, 0].numpy())] * 3
    assert len(set(states)) == 2


def test_every_row_is_told_its_own_instruction(fake_server, reach) -> None:
    server = Server(CHUNK)
    spec = replace(SPEC, observation={**SPEC.observation, "instruction": Field(shape=(), dtype="str")})
    keys = (*OpenPiConfig().keys, ("instruction", "prompt"))
    with OpenPiPolicy(OpenPiConfig(connection=reach(fake_server(server)), keys=keys), spec) as policy:
        policy.sample(observation(2) | {"instruction": ["fold", "unfold"]})
        assert [request["prompt"] for request in server.requests] == ["fold", "unfold"]
        with pytest.raises(SpecError, match="0 samples of 1 observations"):
            policy.sample(observation(1) | {"instruction": ["fold"]}, samples=0)


def test_a_chunk_begins_with_its_prefix(ask) -> None:
    chunks, _ = ask(CHUNK, prefix=torch.full((1, 2, 3), 7.0))
    assert (chunks[0, 0, :2] == 7).all()
    torch.testing.assert_close(chunks[0, 0, 2:], torch.from_numpy(CHUNK[2:]))


def test_a_longer_chunk_is_cut(ask) -> None:
    chunks, _ = ask(np.concatenate([CHUNK, CHUNK]).astype(np.float64))
    torch.testing.assert_close(chunks[0, 0], torch.from_numpy(CHUNK))


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        (CHUNK[:4], "a chunk of 4 actions; the spec's horizon is 5"),
        (CHUNK[:, :2], r"actions of shape \(5, 2\); \(5, 3\) is needed"),
        (CHUNK[None], r"actions of shape \(1, 5, 3\)"),
        (np.where(CHUNK == 7, np.nan, CHUNK), "1 of 15 numbers that are not finite"),
        (np.where(CHUNK == 7, np.inf, CHUNK), "1 of 15 numbers that are not finite"),
        (
            np.where(CHUNK == 7, 1e300, CHUNK.astype(np.float64)),
            "1 of 15 numbers that are not finite",
        ),  # in float32
        (CHUNK.astype(np.int64), "int64 of shape"),
        ([[0.0] * 3] * 5, r"without `actions`; it sent \['actions', 'server_timing'\]"),
        (None, "without `actions`"),
        ("Traceback ...\nValueError: unknown key", "ValueError: unknown key"),
    ],
)
def test_an_answer_that_is_no_chunk_is_refused(ask, actions: Any, match: str) -> None:
    with pytest.raises(RemoteError, match=match):
        ask(actions)


def test_an_answer_with_a_pickle_inside_is_refused(ask) -> None:
    with pytest.raises(RemoteError, match=r"sent \['actions'"):
        ask(b"\x80\x04K\x01.")


def test_the_key_is_shown_as_openpi_expects(fake_server, reach, monkeypatch) -> None:
    def admit(connection: Any, request: Any) -> Any:
        if request.headers.get("Authorization") != "Api-Key secret":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no")
        return None

    config = OpenPiConfig(connection=reach(fake_server(Server(CHUNK), process_request=admit)))
    with pytest.raises(RemoteError, match="401: the token is missing or wrong"):
        OpenPiPolicy(config, SPEC, api_key="guess")
    OpenPiPolicy(config, SPEC, api_key="secret").close()
    monkeypatch.setenv("SENSORIMOTOR_TOKEN", "secret")
    OpenPiPolicy(config, SPEC).close()


def test_a_server_that_dies_is_asked_again(fake_server, reach) -> None:
    served = Server(CHUNK)
    deaths = iter([True, False])

    def handler(peer: Any) -> None:
        if next(deaths):
            peer.send(encode({"model": "pi0"}))
            peer.recv()
            peer.socket.close()
        else:
            served(peer)

    with OpenPiPolicy(OpenPiConfig(connection=reach(fake_server(handler))), SPEC) as policy:
        assert policy.sample(observation()).shape == (1, 1, 5, 3)


def test_the_deadline_is_for_all_calls_together(fake_server, reach) -> None:
    def handler(peer: Any) -> None:
        peer.send(encode({}))
        for _ in peer:
            pass

    with (
        OpenPiPolicy(OpenPiConfig(connection=reach(fake_server(handler))), SPEC) as policy,
        pytest.raises(RemoteError, match="no answer within"),
    ):
        policy.sample(observation(3), samples=5, deadline_s=0.1)


def test_metadata_with_an_extension_type_is_refused(fake_server, reach) -> None:
    def handler(peer: Any) -> None:
        peer.send(msgpack.packb({"x": msgpack.ExtType(5, b"abc")}))
        peer.recv()

    with pytest.raises(WireError, match="an extension, which is refused"):
        OpenPiPolicy(OpenPiConfig(connection=reach(fake_server(handler))), SPEC)


def test_specs_that_openpi_cannot_serve_are_refused() -> None:
    other = Spec(observation={"force": Field(shape=(6,))}, action=Field(shape=(3,)), control_hz=15)
    with pytest.raises(SpecError, match="'force' has no key on the server"):
        OpenPiPolicy(OpenPiConfig(), other)
    with pytest.raises(SpecError, match="observation_steps 2 and start 0"):
        OpenPiPolicy(OpenPiConfig(), SPEC.chunked(observation_steps=2, horizon=5, execute=4))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"keys": (("a", "x"), ("b", "x"))}, "a key of its own"),
        ({"keys": (("a", "prompt"),), "prompt": "fold the towel"}, "a key of its own"),
    ],
)
def test_impossible_mappings_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        OpenPiConfig(**changes)
