"""Members behind a real socket: what they draw, and what happens when their server dies, hangs or comes back."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.composition.composed import compose
from sensorimotor.composition.fault import MemberError
from sensorimotor.composition.guided import guide
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.reranked import rerank
from sensorimotor.composition.superposed import superpose
from sensorimotor.data.errors import ConfigError, RemoteError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.policies.remote.backoff import BackoffConfig
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.policies.remote.remote import RemotePolicy, connect
from sensorimotor.real.server import PolicyServer, ServerConfig
from sensorimotor.rl.critic import Critic

SPEC = Spec(
    observation={"state": Field(shape=(3,), unit="m")},
    action=Field(shape=(2,), unit="m"),
    control_hz=10,
    horizon=4,
    execute=2,
)
SEEN = {"state": torch.tensor([[[0.1, -0.4, 0.7]], [[0.3, 0.2, -0.5]]])}
CALL = 4  # the answer, of ten, before which something happens
PATIENCE = 1.0  # seconds that a call may take where servers fail


def flow(seed: int, *, spec: Spec = SPEC, scale: float = 2.0) -> GenerativePolicy:
    normalizer = Normalizer(
        {"state": (torch.zeros(3), torch.ones(3)), "action": (torch.zeros(2), torch.full((2,), scale))}
    )
    # Of different widths: two of one shape would be asked in one go where both are here, and round differently.
    config = FlowConfig(trunk=MLPConfig(width=16 + 8 * seed, depth=1), relative=None)
    policy = build_policy(config, spec, normalizer, seed=seed).eval()
    assert isinstance(policy, GenerativePolicy)
    return policy


def before_answer(policy: GenerativePolicy, happens: Callable[[], Any], number: int = CALL) -> None:
    """Make something happen once, just before a policy answers for the n-th time."""
    inner, count = policy.predict_velocity, [0]

    def answer(x: Tensor, s: Tensor, condition: Any) -> Tensor:
        count[0] += 1
        if count[0] == number:
            happens()
        return inner(x, s, condition)

    policy.predict_velocity = answer


class Afar:
    """A policy and the server that holds it."""

    def __init__(self, policy: Policy, config: ServerConfig) -> None:
        self.server = PolicyServer(policy, config).start()

    def reach(self, deadline_s: float = 20.0) -> RemotePolicy:
        pauses = BackoffConfig(first_s=0.01, longest_s=0.05)
        return connect(ConnectionConfig(url=self.server.url, deadline_s=deadline_s, backoff=pauses))

    def comes_back_as(self, policy: Policy) -> None:
        config = replace(self.server.config, port=self.server.port)
        self.server.stop()
        self.server = PolicyServer(policy, config).start()


@pytest.fixture
def serve() -> Iterator[Callable[[Policy], Afar]]:
    running: list[Afar] = []

    def start(policy: Policy) -> Afar:
        running.append(Afar(policy, ServerConfig(port=0, finish_s=2.0)))
        return running[-1]

    yield start
    for afar in running:
        afar.server.stop()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(policy: Policy) -> Tensor:
    return policy.sample(SEEN, samples=3, generator=seeded(5))


@pytest.mark.parametrize("make", [compose, lambda members: superpose(members, "or")])
def test_a_composition_cannot_tell_a_served_member_from_its_own(serve, make: Callable[..., Policy]) -> None:
    with serve(flow(1)).reach() as remote:
        assert torch.equal(drawn(make([flow(0), remote])), drawn(make([flow(0), flow(1)])))
        assert torch.equal(drawn(make([remote, flow(0)])), drawn(make([flow(1), flow(0)])))


class Leftmost(Critic):
    """Values small first numbers."""

    def value(self, observation: Any, actions: Tensor) -> Tensor:
        return -actions[:, :, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_served_policy_is_reranked_as_if_it_were_here(serve, temperature: float) -> None:
    critic = Leftmost(replace(SPEC, horizon=1, execute=1))
    with serve(flow(1)).reach() as remote:
        here, there = (rerank(p, critic, samples=6, temperature=temperature) for p in (flow(1), remote))
        assert torch.equal(drawn(here), drawn(there))
        assert there.ledger.entries["policy", "sample"].calls == 1  # one round trip for all candidates


def test_a_served_policy_that_only_samples_is_reranked(serve) -> None:
    unit = (torch.zeros(3), torch.ones(3)), (torch.zeros(2), torch.ones(2))
    regressor = build_policy(
        RegressorConfig(trunk=MLPConfig(width=16, depth=1), relative=None),
        SPEC,
        Normalizer(dict(zip(("state", "action"), unit, strict=True))),
    ).eval()
    with serve(regressor).reach() as remote:
        assert not isinstance(remote, GenerativePolicy)
        reranked = rerank(remote, Leftmost(replace(SPEC, horizon=1, execute=1)), samples=4)
        assert torch.equal(drawn(reranked), drawn(regressor))
        assert "reranking cannot help" in reranked.spread().verdict()  # it repeats one chunk


def test_a_reranked_policy_is_served(serve) -> None:
    reranked = rerank(flow(1), Leftmost(replace(SPEC, horizon=1, execute=1)), samples=4, temperature=1.0)
    with serve(reranked).reach() as remote:
        assert torch.equal(drawn(remote), drawn(reranked))


def dies(afar: Afar) -> None:
    afar.server.stop()


def grows(afar: Afar) -> None:
    afar.comes_back_as(flow(1, spec=replace(SPEC, horizon=8)))


def rescales(afar: Afar) -> None:
    afar.comes_back_as(flow(1, scale=3.0))


FAULTS = [
    (dies, r"gave no answer within 1 s; \d+ attempts failed, is it running\?"),
    (grows, "came back with another policy: horizon was 4 and is 8"),
    (rescales, "came back with another normaliser"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_a_server_that_fails_in_the_middle_of_a_chunk_is_named(
    serve, fault: Callable[[Afar], None], message: str
) -> None:
    afar, here = serve(flow(1)), flow(0)
    before_answer(here, lambda: fault(afar))
    with (
        afar.reach(deadline_s=PATIENCE) as remote,
        pytest.raises(
            MemberError,
            match=rf"member 'there' .RemoteGenerativePolicy. failed to predict the velocity: .*{message}",
        ) as caught,
    ):
        drawn(compose({"here": here, "there": remote}))
    assert caught.value.member == "there"


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_the_others_draw_the_chunk_as_if_that_server_had_never_been(
    serve, fault: Callable[[Afar], None], message: str
) -> None:
    afar, here, expected = serve(flow(1)), flow(0), drawn(flow(0))
    before_answer(here, lambda: fault(afar))
    with afar.reach(deadline_s=PATIENCE) as remote:
        policy = compose({"here": here, "there": remote}, fallback="others")
        with pytest.warns(UserWarning, match="member 'there' failed and the others went on without it"):
            assert torch.equal(drawn(policy), expected)
        assert policy.faults == {"there": 1}
        assert torch.equal(drawn(policy), expected)  # it cannot even look at the next observation
        assert policy.faults == {"there": 2}


def test_a_server_that_hangs_is_left_out_until_it_answers_again(serve) -> None:
    served, over = flow(1), threading.Event()
    both = drawn(compose([flow(0), flow(1)]))
    before_answer(served, lambda: over.wait(20))
    with serve(served).reach(deadline_s=PATIENCE) as remote:
        policy = compose({"here": flow(0), "there": remote}, fallback="others")
        try:
            with pytest.warns(UserWarning, match="'there' failed"):
                assert torch.equal(drawn(policy), drawn(flow(0)))
        finally:
            over.set()
        assert torch.equal(drawn(policy), both)
        assert policy.faults == {"there": 1}


def test_a_server_that_hangs_is_named(serve) -> None:
    served, over = flow(1), threading.Event()
    before_answer(served, lambda: over.wait(20))
    with serve(served).reach(deadline_s=PATIENCE) as remote:
        try:
            with pytest.raises(
                MemberError, match=r"member 'there' .* ws://[\d.:]+ gave no answer within 1 s"
            ):
                drawn(compose({"here": flow(0), "there": remote}))
        finally:
            over.set()


def test_a_server_that_comes_back_as_it_was_is_no_fault(serve) -> None:
    afar, here = serve(flow(1)), flow(0)
    both = drawn(compose([flow(0), flow(1)]))
    before_answer(here, lambda: afar.comes_back_as(flow(1)))
    with afar.reach() as remote:
        policy = compose({"here": here, "there": remote})
        assert torch.equal(drawn(policy), both)
        assert policy.faults == {}


def test_a_superposition_goes_on_without_a_server_too(serve) -> None:
    afar, here = serve(flow(1)), flow(0)
    inner, count = here.predict_noise, [0]

    def answer(x: Tensor, s: Tensor, condition: Any) -> Tensor:
        count[0] += 1
        if count[0] == 50:
            afar.server.stop()
        return inner(x, s, condition)

    expected = drawn(superpose([flow(0)], "and"))
    here.predict_noise = answer
    with afar.reach(deadline_s=PATIENCE) as remote:
        policy = superpose({"here": here, "there": remote}, "and", fallback="others")
        with pytest.warns(UserWarning, match="'there' failed"):
            torch.testing.assert_close(drawn(policy), expected)
        assert policy.faults == {"there": 1}


def test_numbers_that_are_not_finite_are_the_members_fault(serve) -> None:
    served, inner = flow(1), flow(1).predict_velocity
    served.predict_velocity = lambda x, s, condition: inner(x, s, condition) / 0.0
    with (
        serve(served).reach() as remote,
        pytest.raises(MemberError, match=r"member 'there' .* not finite"),
    ):
        drawn(compose({"here": flow(0), "there": remote}))


def test_a_served_policy_cannot_be_steered_by_a_cost(serve) -> None:
    with (
        serve(flow(1)).reach() as remote,
        pytest.raises(ConfigError, match=r"'there' answers from another process, .* rerank its candidates"),
    ):
        guide(Part(remote, "there"), lambda chunks, seen: chunks.sum(dim=(2, 3)))


def test_a_served_policy_that_is_gone_says_so_when_it_is_reranked(serve) -> None:
    afar = serve(flow(1))
    with afar.reach(deadline_s=PATIENCE) as remote:
        policy = rerank(remote, Leftmost(replace(SPEC, horizon=1, execute=1)), samples=4, fallback="first")
        afar.server.stop()
        with pytest.raises(RemoteError, match=r"ws://[\d.:]+ gave no answer within 1 s"):
            drawn(policy)
