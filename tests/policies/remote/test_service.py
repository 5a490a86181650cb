"""Servers of this project's protocol that do not keep to it."""

from collections.abc import Callable
from typing import Any

import pytest

from sensorimotor.data.errors import RemoteError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.policies.remote.message import Greeting, fingerprint
from sensorimotor.policies.remote.service import Service
from sensorimotor.policies.remote.wire import decode, encode

GREETING = Greeting(
    policy="flow mlp",
    spec=Spec(observation={"state": Field(shape=(3,))}, action=Field(shape=(2,)), control_hz=10),
    statistics={},
    fingerprint=fingerprint({}),
)
Meet = Callable[..., Service]


@pytest.fixture
def meet(fake_server: Callable[..., str], reach: Callable[..., ConnectionConfig]) -> Any:
    """Begin to talk with a server that greets, and answers with what `answers` makes of a request's number."""
    met: list[Service] = []

    def start(*greetings: Greeting, answers: Callable[[int], list[dict[str, Any]]]) -> Service:
        left = list(greetings)

        def handler(peer: Any) -> None:
            peer.send(encode((left.pop(0) if len(left) > 1 else left[0]).to_message()))
            for frame in peer:
                for answer in answers(decode(frame)["id"]):
                    peer.send(encode(answer))

        met.append(Service(reach(fake_server(handler))))
        return met[-1]

    yield start
    for service in met:
        service.close()


def reply(number: int) -> dict[str, Any]:
    return {"version": 1, "kind": "reply", "id": number, "value": number}


def test_a_server_that_answers_twice_is_left_and_met_again(meet: Meet) -> None:
    service = meet(GREETING, answers=lambda number: [reply(number)] * (2 if number == 1 else 1))
    assert service.ask("sample", {})["value"] == 1
    with pytest.raises(RemoteError, match="sent 'reply' 1 where the reply 2 was due"):
        service.ask("sample", {})
    assert service.ask("sample", {})["value"] == 3
    assert service.connection.connects == 2
