"""Accounts: calls, rows and seconds, of what fails and of what is shared too."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.ledger import Ledger
from sensorimotor.policies.sampling import DDIM, FlowHeun


def ticking(step: float) -> Callable[[], float]:
    """A clock that moves by so much whenever it is read."""

    def times() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += step

    return times().__next__


def test_a_stage_adds_one_call_its_rows_and_its_time() -> None:
    ledger = Ledger(clock=ticking(0.25))
    for rows in (3, 5):
        with ledger.stage("a", "noise", rows=rows):
            pass
    with ledger.stage("a", "encode"):
        pass
    assert ledger.rows() == [
        {"member": "a", "stage": "noise", "calls": 2, "rows": 8, "ms_per_call": 250.0, "ms": 500.0},
        {"member": "a", "stage": "encode", "calls": 1, "rows": 0, "ms_per_call": 250.0, "ms": 250.0},
    ]


def test_encoding_is_no_answer() -> None:
    ledger = Ledger()
    for member, stage in (("a", "encode"), ("a", "noise"), ("a", "velocity"), ("b", "noise")):
        ledger.add(ledger.clock(), member, stage=stage, rows=1)
    assert (ledger.calls("a"), ledger.calls("b"), ledger.calls("c")) == (2, 1, 0)


def test_time_that_was_shared_is_counted_once() -> None:
    ledger = Ledger(clock=ticking(3.0))
    ledger.add(ledger.clock(), "a", "b", "c", stage="noise", rows=7)
    entries = [ledger.entries[name, "noise"] for name in "abc"]
    assert [(entry.calls, entry.rows, entry.seconds) for entry in entries] == [(1, 7, 1.0)] * 3


def test_what_fails_has_cost_something_too() -> None:
    ledger = Ledger(clock=ticking(1.0))
    with pytest.raises(ZeroDivisionError), ledger.stage("a", "noise", rows=2):
        raise ZeroDivisionError
    assert (ledger.calls("a"), ledger.entries["a", "noise"].seconds) == (1, 1.0)


def test_a_ledger_may_begin_again() -> None:
    ledger = Ledger()
    ledger.add(0.0, "a", stage="noise", rows=1)
    ledger.reset()
    assert (ledger.rows(), ledger.calls("a")) == ([], 0)


def test_a_composition_keeps_accounts_by_question(pair: list[Any]) -> None:
    policy = compose({"a": pair[0], "b": pair[1]}, (0.4, 0.6))
    seen = {"state": torch.zeros(2, 1, 1)}
    policy.sample(seen, samples=3, sampler=DDIM(clip=None))
    policy.sample(seen, samples=1, sampler=FlowHeun(steps=3))
    found = {(row["member"], row["stage"]): (row["calls"], row["rows"]) for row in policy.ledger.rows()}
    for name in ("a", "b"):
        assert found[name, "encode"] == (2, 0)
        assert found[name, "noise"] == (10, 60)
        assert found[name, "velocity"] == (5, 10)  # the last step is not corrected


def test_a_member_inside_keeps_its_own_accounts(
    gaussian: Callable, pair: list[Any], seen: dict[str, Tensor]
) -> None:
    inner = compose({"a": pair[0], "b": pair[1]})
    outer = compose({"inner": inner, "a": gaussian(0.0, 1.0)})
    outer.sample(seen, sampler=DDIM(clip=None))
    assert [outer.ledger.calls(name) for name in ("inner", "a", "b")] == [10, 10, 0]
    assert [inner.ledger.calls(name) for name in ("a", "b")] == [10, 10]
    assert (inner.evaluations, outer.evaluations) == (20, 30)
