"""A conversation without a socket: what is refused, and what is forgotten."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.errors import ConfigError, TransportError
from sensorimotor.data.spec import Field
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.remote.wire import decode, encode
from sensorimotor.real.session import Session, SessionConfig, read_request

STATE = np.zeros((1, 2, 3), np.float32)
HEAD = {"version": 1, "id": 7, "patience_s": 1.0}
SAMPLE = HEAD | {"kind": "sample", "observation": {"state": STATE}, "samples": 1}
ENCODE = HEAD | {"kind": "encode", "observation": {"state": STATE}, "condition": 1}
NOISE = HEAD | {
    "kind": "noise",
    "condition": 1,
    "repeats": 2,
    "x": np.zeros((2, 8, 2), np.float32),
    "s": np.array(0.5, np.float32),
}

GUIDE = {
    "previous": np.zeros((1, 8, 2), np.float32),
    "delay": np.array(2),
    "end": np.array(6),
    "beta": 5.0,
    "schedule": "exp",
    "jacobian": "vjp",
}


def twisted(*, left: int, position: int) -> np.ndarray:
    """A generator's state that would have torch read beyond its words."""
    state = torch.Generator().get_state().numpy().copy()
    state[8:12].view("<i4")[0], state[16:24].view("<u8")[0] = left, position
    return state


def tell(session: Session, message: dict[str, Any]) -> dict[str, Any]:
    return decode(session.answer(read_request(encode(message))))


@pytest.fixture
def session(policy: Policy) -> Session:
    return Session(policy, SessionConfig(max_rows=64, conditions=2))


def test_an_answer_repeats_the_number_and_holds_the_chunks(session: Session, policy: Policy) -> None:
    answer = tell(session, SAMPLE | {"samples": 3})
    assert (answer["version"], answer["kind"], answer["id"], answer["state"]) == (1, "reply", 7, None)
    wanted = policy.sample({"state": torch.zeros(1, 2, 3)}, samples=3)
    assert torch.equal(torch.from_numpy(answer["chunks"].copy()), wanted)


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"samples": 0}, "SpecError", "allowed are 1..64 chunks"),
        ({"samples": 65}, "SpecError", "allowed are 1..64 chunks"),
        ({"samples": True}, "WireError", "samples must be int, got bool"),
        ({"observation": None}, "WireError", "observation must be dict"),
        ({"observation": {}}, "SpecError", "'state' is missing"),
        ({"observation": {"force": STATE}}, "SpecError", "'force' is unknown"),
        ({"observation": {"state": STATE[:0]}}, "SpecError", "samples of 0 observations"),
        ({"observation": {"state": STATE[0]}}, "SpecError", r"shape \(2, 3\)"),
        (
            {"observation": {"state": STATE.astype(np.uint8)}},
            "SpecError",
            "is uint8; the policy needs float32",
        ),
        ({"observation": {"state": []}}, "WireError", "state must be ndarray, got list"),
        ({"observation": {"state": ["x"]}}, "WireError", "state must be ndarray, got list"),
        ({"observation": {"state": STATE, "instruction": [1]}}, "SpecError", "'instruction' is unknown"),
        ({"observation": {"state": "x"}}, "WireError", "state must be ndarray, got str"),
        ({"observation": {"state": STATE * np.nan}}, "SpecError", "not finite"),
        ({"prefix": np.zeros((1, 9, 2), np.float32)}, "SpecError", "prefix has shape"),
        ({"prefix": np.zeros((1, 2, 2), np.int64)}, "SpecError", "prefix must hold floating-point"),
        ({"noise": np.zeros((1, 2, 8, 2), np.float32)}, "SpecError", "noise has shape"),
        ({"guide": []}, "WireError", "guide must be dict, got list"),
        ({"guide": {}}, "WireError", "previous must be ndarray"),
        ({"guide": GUIDE | {"end": 8}}, "WireError", "end must be ndarray, got int"),
        ({"guide": GUIDE | {"end": np.zeros(0, np.int64)}}, "WireError", "its delay and end integers"),
        ({"guide": GUIDE | {"delay": np.array(0.5)}}, "WireError", "its delay and end integers"),
        ({"guide": GUIDE | {"delay": np.array(9)}}, "SpecError", r"delay must lie in 0\.\.8, got 9"),
        ({"guide": GUIDE | {"previous": STATE.astype(np.int32)}}, "WireError", "floating-point numbers"),
        ({"guide": GUIDE | {"previous": STATE}}, "SpecError", r"needed is \(1, 8, 2\)"),
        ({"guide": GUIDE | {"beta": float("inf")}}, "ConfigError", "beta must be positive and finite"),
        ({"guide": GUIDE | {"jacobian": "vpj"}}, "ConfigError", "did you mean 'vjp'"),
        ({"state": np.zeros(5, np.uint8)}, "WireError", "must be that of a CPU generator"),
        (
            {"state": torch.Generator().get_state().numpy() * 0},
            "WireError",
            "not one that a CPU generator can be in",
        ),
        ({"state": twisted(left=624, position=624)}, "WireError", "not one that a CPU generator can be in"),
        ({"state": twisted(left=1, position=2**40)}, "WireError", "not one that a CPU generator can be in"),
        ({"state": twisted(left=0, position=625)}, "WireError", "not one that a CPU generator can be in"),
        ({"sampler": "{"}, "ConfigError", "not JSON"),
        ({"sampler": "[]"}, "ConfigError", "must be a map"),
        ({"sampler": '{"steps": ' + "1" * 5000 + "}"}, "ConfigError", "not JSON"),
        ({"sampler": "[" * 50_000}, "ConfigError", "not JSON"),
        ({"sampler": '{"kind": "FlowEuler", "steps": 1001}'}, "ConfigError", "integer in 1..1000"),
        ({"sampler": '{"kind": "FlowEuler", "steps": "x"}'}, "ConfigError", "integer in 1..1000"),
        ({"sampler": '{"kind": "DDIM", "train_steps": 1e9}'}, "ConfigError", "integer in 1..1000"),
        ({"sampler": '{"kind": "os.system"}'}, "ConfigError", "unknown kind"),
    ],
)
def test_a_sample_that_cannot_be_is_refused(session: Session, changes: Any, kind: str, match: str) -> None:
    answer = tell(session, SAMPLE | changes)
    assert (answer["kind"], answer["id"], answer["type"]) == ("error", 7, kind)
    assert re.search(match, answer["message"])


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"condition": 2}, "ForgottenError", "under 2; encode it again"),
        ({"repeats": 0}, "SpecError", "repeated 0 times"),
        ({"repeats": 65}, "SpecError", "allowed are 1..64"),
        ({"repeats": 1}, "SpecError", r"x has shape \(2, 8, 2\); allowed is \(1, 8, 2\)"),
        ({"x": None}, "SpecError", "x has shape None"),
        ({"s": np.array(1.5, np.float32)}, "SpecError", r"s must be a number in \[0, 1\]"),
        ({"s": np.array(np.nan, np.float32)}, "SpecError", r"s must be a number in \[0, 1\]"),
        ({"s": np.zeros(3, np.float32)}, "SpecError", r"s must be a number in \[0, 1\]"),
    ],
)
def test_a_prediction_that_cannot_be_is_refused(
    session: Session, changes: Any, kind: str, match: str
) -> None:
    assert tell(session, ENCODE)["kind"] == "reply"
    assert tell(session, NOISE)["value"].shape == (2, 8, 2)
    answer = tell(session, NOISE | changes)
    assert (answer["kind"], answer["type"]) == ("error", kind)
    assert re.search(match, answer["message"])


def test_the_condition_used_longest_ago_is_forgotten(session: Session) -> None:
    tell(session, ENCODE | {"condition": 1})
    tell(session, ENCODE | {"condition": 2})
    tell(session, NOISE | {"condition": 1})
    tell(session, ENCODE | {"condition": 3})
    kept = [tell(session, NOISE | {"condition": n})["kind"] for n in (1, 2, 3)]
    assert kept == ["reply", "error", "reply"]


@pytest.mark.parametrize(
    ("words", "kind", "match"),
    [
        ([["fold"]], "SpecError", "a list of strings, one per row"),
        ([1], "SpecError", "a list of strings, one per row"),
        (["fold", "unfold"], "SpecError", "the keys before it"),
        ("fold", "WireError", "instruction must be list, got str"),
        (STATE, "WireError", "instruction must be list, got ndarray"),
    ],
)
def test_instructions_are_words_one_for_each_row(
    make_flow: Callable[..., Policy], words: Any, kind: str, match: str
) -> None:
    class Told(Policy):
        def sample(self, observation: Mapping[str, Any], *, samples: int = 1, **rest: Any) -> torch.Tensor:
            self.check_observation(observation)
            assert observation["instruction"] == ["fold the towel"]
            return torch.zeros(1, samples, 8, 2)

    spec = make_flow().spec
    told = {**spec.observation, "instruction": Field(shape=(), dtype="str")}
    session = Session(Told(replace(spec, observation=told)), SessionConfig())
    seen = {"state": STATE, "instruction": ["fold the towel"]}
    assert tell(session, SAMPLE | {"observation": seen})["kind"] == "reply"
    answer = tell(session, SAMPLE | {"observation": seen | {"instruction": words}})
    assert (answer["kind"], answer["type"]) == ("error", kind)
    assert match in answer["message"]


def test_two_conversations_share_nothing(policy: Policy) -> None:
    one, other = (Session(policy, SessionConfig()) for _ in range(2))
    tell(one, ENCODE)
    assert tell(other, NOISE)["type"] == "ForgottenError"


def test_an_answer_beyond_the_limit_is_an_error(policy: Policy) -> None:
    session = Session(policy, SessionConfig(max_bytes=1000))
    assert "the limit is 1000" in tell(session, SAMPLE | {"samples": 20})["message"]


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        ("text", "a binary frame, got text"),
        (encode({"id": 1}), "speaks protocol None"),
        (encode(SAMPLE | {"version": 2}), "speaks protocol 2, this one 1"),
        (encode(SAMPLE | {"id": -1}), "id must lie in"),
        (encode(SAMPLE | {"id": 1.0}), "id must be int, got float"),
        (
            encode(SAMPLE | {"kind": "reset"}),
            "unknown kind 'reset'; allowed are sample, encode, noise, velocity",
        ),
        (encode(SAMPLE | {"patience_s": float("nan")}), "patience_s must be finite"),
        (encode({k: v for k, v in SAMPLE.items() if k != "kind"}), "kind must be str, got NoneType"),
    ],
)
def test_what_is_no_request_is_refused(frame: bytes | str, match: str) -> None:
    with pytest.raises(TransportError, match=match):
        read_request(frame)


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_rows must be at least 1, got 0"):
        SessionConfig(max_rows=0)
