"""Servers of this project's protocol that do not keep to it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sensorimotor.data.errors import RemoteError, SpecError, TransportError
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


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"relative": "state"}, "another policy: relative was None and is 'state'"),
        ({"generative": True}, "another policy: generative was False and is True"),
        ({"spec": replace(GREETING.spec, control_hz=50)}, "another policy: control_hz was 10 and is 50"),
    ],
)
def test_a_server_that_comes_back_as_another_is_refused(
    meet: Meet, changes: dict[str, Any], match: str
) -> None:
    service = meet(GREETING, replace(GREETING, **changes), answers=lambda number: [reply(number)])
    service.connection.drop()
    with pytest.raises(SpecError, match=match):
        service.ask("sample", {})


@pytest.mark.parametrize(
    "entries",
    [
        {"spec": "null"},
        {"spec": "3"},
        {"spec": "[1]"},
        {"spec": "{"},
        {"spec": '{"control_hz": ' + "1" * 5000 + "}"},
        {"spec": '{"observation": null}'},
        {"spec": '{"observation": {}, "action": 1}'},
        {"spec": None},
        {"statistics": {"state": 1}},
        {"statistics": {1: {}}},
        {"statistics": {"state": {"offset": np.zeros(3), "scale": np.zeros(3)}}},
        {"fingerprint": 1},
        {"generative": 1},
        {"sampler": "["},
        {"sampler": "1" * 5000},
        {"sampler": "[]"},
        {"kind": "reply"},
        {"version": 2},
    ],
)
def test_a_greeting_that_is_none_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises((TransportError, SpecError)):
        Greeting.from_message(GREETING.to_message() | entries)
