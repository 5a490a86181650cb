"""A served policy is the policy: same numbers, same errors, and nothing that hangs."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import sensorimotor
from sensorimotor.data.errors import ConfigError, RemoteError, SpecError
from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.asynchronous import Asynchronous
from sensorimotor.policies.delivery import SimulatedDelay
from sensorimotor.policies.execution import RecedingHorizon
from sensorimotor.policies.factory import build_policy
from sensorimotor.policies.guidance import ChunkGuide
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.policies.remote.message import generator_state, restore_generator
from sensorimotor.policies.remote.openpi import OpenPiConfig, OpenPiPolicy
from sensorimotor.policies.remote.remote import RemoteGenerativePolicy, RemotePolicy, connect
from sensorimotor.policies.sampling import DDIM, FlowEuler, OwnSampler, Trace
from sensorimotor.policies.scheduling import RealTimeChunking
from sensorimotor.policies.vla.config import VLAConfig


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observe(batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    return {"state": torch.randn(batch, 2, 3, generator=seeded(seed))}


class Plain(Policy):
    """Samples only; does what the test wants."""

    def __init__(self, spec: Spec, answer: Callable[..., Tensor]) -> None:
        super().__init__(spec)
        self.answer = answer

    def sample(self, observation: Mapping[str, Tensor], *, samples: int = 1, **rest: Any) -> Tensor:
        return self.answer(observation, samples)


def meet(config: ConnectionConfig) -> RemoteGenerativePolicy:
    """A served policy that answers at any noise level."""
    remote = connect(config)
    assert isinstance(remote, RemoteGenerativePolicy)
    return remote


def constant(value: float) -> Callable[..., Tensor]:
    return lambda observation, samples: torch.full((len(observation["state"]), samples, 8, 2), value)


def test_the_same_generator_gives_the_same_chunks_and_moves_on_alike(policy, serve, reach) -> None:
    with connect(reach(serve(policy).url)) as remote:
        here, there = seeded(5), seeded(5)
        for samples in (1, 3, 2):
            local = policy.sample(observe(), samples=samples, generator=here)
            assert torch.equal(local, remote.sample(observe(), samples=samples, generator=there))
        assert torch.equal(here.get_state(), there.get_state())
        assert torch.equal(policy.sample(observe()), remote.sample(observe()))


def test_prefix_noise_sampler_and_trace_travel(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        prefix = torch.randn(2, 3, 2, generator=seeded(1))
        noise = torch.randn(2, 4, 8, 2, generator=seeded(2))
        mine, theirs = Trace(), Trace()
        options = {"samples": 4, "prefix": prefix, "noise": noise, "sampler": DDIM(steps=3)}
        assert torch.equal(
            policy.sample(observe(), trace=mine, **options), remote.sample(observe(), trace=theirs, **options)
        )
        assert mine.evaluations is not None
        assert theirs.evaluations is not None
        assert torch.equal(mine.evaluations, theirs.evaluations)
        assert theirs.energy is None


@pytest.mark.parametrize("jacobian", ["vjp", "identity"])
@pytest.mark.parametrize("delay", [2, torch.tensor([1, 3])])
def test_a_guide_travels(policy, serve, reach, jacobian: Any, delay: int | Tensor) -> None:
    previous = torch.randn(2, 8, 2, generator=seeded(1))
    guide = ChunkGuide(previous=previous, delay=delay, end=6, beta=7, schedule="linear", jacobian=jacobian)
    with meet(reach(serve(policy).url)) as remote:
        mine, theirs = (p.sample(observe(), samples=2, guide=guide) for p in (policy, remote))
        assert torch.equal(mine, theirs)
        assert not torch.equal(mine, policy.sample(observe(), samples=2))


def test_real_time_chunking_runs_on_a_served_policy(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        runners = [
            Asynchronous(p, RealTimeChunking(), SimulatedDelay(2), generator=seeded(0))
            for p in (policy, remote)
        ]
        for step in range(12):
            now = {"state": torch.randn(2, 3, generator=seeded(step))}
            assert torch.equal(runners[0].act(now), runners[1].act(now))


def test_a_sampler_set_on_the_client_is_used(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        assert remote.sampler == policy.sampler
        remote.sampler = FlowEuler(steps=2)
        assert torch.equal(policy.sample(observe(), sampler=FlowEuler(steps=2)), remote.sample(observe()))
        with pytest.raises(ConfigError, match="OwnSampler belongs to one family"):
            remote.sample(observe(), sampler=OwnSampler())


def test_a_sampler_of_the_served_family_stays_on_the_server(policy, serve, reach) -> None:
    class Descent(OwnSampler):
        """Known to the server only."""

    drawn = []
    policy.draw_normalized = lambda condition, shape, sampler, **rest: (
        drawn.append(sampler),
        torch.zeros(shape),
    )[1]
    policy.sampler = Descent()
    with meet(reach(serve(policy).url)) as remote:
        remote.sample(observe())
        assert [type(sampler) for sampler in drawn] == [Descent]
        remote.sample(observe(), sampler=FlowEuler(steps=2))
        assert drawn[1] == FlowEuler(steps=2)
        with pytest.raises(ConfigError, match="ServedSampler, which belongs to another"):
            GenerativePolicy.sample(remote, observe())


def test_a_member_that_sees_and_is_told_is_the_same_from_afar(serve, reach) -> None:
    fields = {
        "state": Field(shape=(2,)),
        "image.top": Field(shape=(32, 32, 3), dtype="uint8"),
        "instruction": Field(shape=(), dtype="str"),
    }
    spec = Spec(observation=fields, action=Field(shape=(2,)), control_hz=10, horizon=8, execute=4)
    unit = (torch.zeros(2), torch.ones(2))
    policy = build_policy(VLAConfig(relative="state"), spec, Normalizer({"state": unit, "action": unit}))
    assert isinstance(policy, GenerativePolicy)
    seen = {
        "state": torch.randn(2, 1, 2, generator=seeded(1)),
        "image.top": torch.randint(256, (2, 1, 32, 32, 3), generator=seeded(2), dtype=torch.uint8),
        "instruction": ["to the left", "to the right"],
    }
    with meet(reach(serve(policy.eval()).url)) as remote, torch.no_grad():
        mine, theirs = (p.sample(seen, samples=3, generator=seeded(3)) for p in (policy, remote))
        assert torch.equal(mine, theirs)
        x, s = torch.randn(6, 8, 2, generator=seeded(4)), torch.tensor(0.5)
        here, there = policy.encode(seen).repeat(3), remote.encode(seen).repeat(3)
        assert torch.equal(policy.predict_noise(x, s, here), remote.predict_noise(x, s, there))
        assert torch.equal(policy.unnormalize_action(x, here), remote.unnormalize_action(x, there))


@pytest.mark.parametrize("relative", ["state", None])
def test_a_remote_member_answers_at_any_noise_level(make_flow, serve, reach, relative: str | None) -> None:
    policy = make_flow(relative=relative)
    with meet(reach(serve(policy).url)) as remote:
        here, there = policy.encode(observe()).repeat(3), remote.encode(observe()).repeat(3)
        x = torch.randn(6, 8, 2, generator=seeded(1))
        for s in (torch.tensor(0.3), torch.linspace(0.1, 1, 6)):
            assert torch.equal(policy.predict_noise(x, s, here), remote.predict_noise(x, s, there))
            assert torch.equal(policy.predict_velocity(x, s, here), remote.predict_velocity(x, s, there))
        assert torch.equal(policy.unnormalize_action(x, here), remote.unnormalize_action(x, there))
        assert torch.equal(policy.normalize_action(x[:, :5], here), remote.normalize_action(x[:, :5], there))


def test_sampling_here_with_a_remote_network_equals_sampling_there(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        there = GenerativePolicy.sample(remote, observe(), samples=2, generator=seeded(1))
        assert torch.equal(there, policy.sample(observe(), samples=2, generator=seeded(1)))


def test_a_runner_cannot_tell_the_difference(policy, serve, reach) -> None:
    with connect(reach(serve(policy).url)) as remote:
        runners = [RecedingHorizon(p, generator=seeded(0), samples=2) for p in (policy, remote)]
        for step in range(9):
            now = {"state": torch.randn(2, 3, generator=seeded(step))}
            assert torch.equal(runners[0].act(now), runners[1].act(now))


def test_a_condition_the_server_forgot_is_encoded_again(policy, serve, reach) -> None:
    server = serve(policy)
    with meet(reach(server.url)) as remote:
        first = remote.encode(observe(seed=0))
        for seed in range(1, 40):  # more than the server keeps
            remote.encode(observe(seed=seed))
        x, s = torch.randn(2, 8, 2, generator=seeded(1)), torch.tensor(0.5)
        wanted = policy.predict_noise(x, s, policy.encode(observe(seed=0)))
        assert torch.equal(remote.predict_noise(x, s, first), wanted)


def test_a_server_that_comes_back_never_mixes_conditions_up(policy, serve, reach) -> None:
    server = serve(policy)
    with meet(reach(server.url)) as remote:
        first = remote.encode(observe(seed=0))
        server.stop()
        serve(policy, port=int(server.url.rsplit(":", 1)[1]))
        second = remote.encode(observe(seed=1))
        x, s = torch.randn(2, 8, 2, generator=seeded(1)), torch.tensor(0.5)
        for seed, condition in ((0, first), (1, second)):
            wanted = policy.predict_noise(x, s, policy.encode(observe(seed=seed)))
            assert torch.equal(remote.predict_noise(x, s, condition), wanted)
        assert remote.service.connection.connects == 2


def test_gradients_are_refused_rather_than_lost(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        condition, x = remote.encode(observe()), torch.zeros(2, 8, 2, requires_grad=True)
        with pytest.raises(SpecError, match="gives no gradients"):
            remote.predict_noise(x, torch.tensor(0.5), condition)
        with torch.no_grad():
            assert remote.predict_noise(x, torch.tensor(0.5), condition).shape == x.shape


def test_load_takes_an_address_and_a_token(policy, serve, monkeypatch) -> None:
    server = serve(policy, token="open sesame")
    with pytest.raises(RemoteError, match="401: the token is missing or wrong"):
        sensorimotor.load(server.url)
    with pytest.raises(RemoteError, match="401: the token is missing or wrong"):
        sensorimotor.load(server.url, token="open barley")
    given = sensorimotor.load(server.url, token="open sesame")
    monkeypatch.setenv("SENSORIMOTOR_TOKEN", "open sesame")
    found = sensorimotor.load(server.url)
    for remote in (given, found):
        assert isinstance(remote, RemotePolicy)
        assert remote.name == "flow mlp"
        assert remote.spec == policy.spec
        remote.close()


def test_a_token_that_would_travel_in_the_clear_is_warned_about() -> None:
    far = ConnectionConfig(
        url="ws://192.0.2.1:8000", deadline_s=0.05
    )  # an address for documentation: nobody is there
    with pytest.warns(UserWarning, match="unencrypted; use wss://"), pytest.raises(RemoteError):
        connect(far, token="secret")
    spec = Spec(observation={"state": Field(shape=(3,))}, action=Field(shape=(2,)), control_hz=10)
    with pytest.warns(UserWarning, match="unencrypted; use wss://"), pytest.raises(RemoteError):
        OpenPiPolicy(OpenPiConfig(connection=far), spec, api_key="secret")


@pytest.mark.parametrize("token", [" secret", "secret\n", "sec\rret"])
def test_a_token_that_would_arrive_changed_is_refused_without_repeating_it(token: str, monkeypatch) -> None:
    monkeypatch.setenv("SENSORIMOTOR_TOKEN", token)
    for given in (token, None):
        with pytest.raises(ConfigError, match="begins or ends with blanks") as caught:
            connect("ws://127.0.0.1:1", token=given)
        assert "secret" not in str(caught.value)


def test_states_of_generators_travel_at_any_point() -> None:
    generator, other = seeded(1), seeded(2)
    for count in (0, 1, 7, 623, 624, 625, 1000):
        torch.rand(count, generator=generator)
        restore_generator(other, generator_state(generator))
        assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=other))


def test_what_the_spec_does_not_name_stays_here(policy, serve, reach) -> None:
    more = observe() | {"ids": [1, 2], "force": torch.zeros(1)}
    with connect(reach(serve(policy).url)) as remote:
        assert torch.equal(remote.sample(more), policy.sample(more))


def test_another_robots_spec_is_refused_before_anything_moves(policy, serve, reach) -> None:
    url = serve(policy).url
    wide = Spec(observation=policy.spec.observation, action=Field(shape=(7,), unit="m"), control_hz=10)
    with pytest.raises(SpecError, match=r"action shape differs: policy at ws://[\d.:]+ \(2,\), task \(7,\)"):
        connect(reach(url), spec=wide)
    fast = Spec(observation=policy.spec.observation, action=policy.spec.action, control_hz=50)
    with pytest.raises(SpecError, match=r"control_hz differs: policy at .* 10.*, task 50"):
        connect(reach(url), spec=fast)


def test_a_server_that_comes_back_with_another_policy_is_refused(make_flow, policy, serve, reach) -> None:
    server = serve(policy)
    with connect(reach(server.url)) as remote:
        server.stop()
        longer = policy.spec.chunked(observation_steps=2, horizon=16, execute=4)
        other = serve(make_flow(spec=longer), port=int(server.url.rsplit(":", 1)[1]))
        with pytest.raises(SpecError, match="came back with another policy: horizon was 8 and is 16"):
            remote.sample(observe())
        other.stop()


def test_another_protocol_is_refused(policy, serve, reach, monkeypatch) -> None:
    monkeypatch.setattr("sensorimotor.policies.remote.message.PROTOCOL", 2)
    server = serve(policy)
    monkeypatch.undo()
    with pytest.raises(RemoteError, match="speaks protocol 2, this one 1; run the same version"):
        connect(reach(server.url))


def test_wrong_observations_are_refused_here_and_there(policy, serve, reach) -> None:
    with meet(reach(serve(policy).url)) as remote:
        with pytest.raises(SpecError, match="'state' is missing"):
            remote.sample({})
        with pytest.raises(SpecError, match=r"shape \(2, 2, 4\)"):
            remote.sample({"state": torch.zeros(2, 2, 4)})
        with pytest.raises(SpecError, match="prefix has shape"):
            remote.sample(observe(), prefix=torch.zeros(2, 9, 2))
        with pytest.raises(SpecError, match=r"ws://.*1000000 samples of 2 observations"):
            remote.sample(observe(), samples=1_000_000)
        with pytest.raises(ConfigError, match=r"sampler.steps must be an integer in 1..1000"):
            remote.sample(observe(), sampler=FlowEuler(steps=100_000))
        assert remote.sample(observe()).shape == (2, 1, 8, 2)
        assert remote.service.connection.connects == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_actions_that_are_not_finite_never_arrive(policy, serve, reach, bad: float) -> None:
    server = serve(Plain(policy.spec, constant(bad)))
    with connect(reach(server.url)) as remote, pytest.raises(SpecError, match="actions are not finite"):
        remote.sample(observe())


def test_a_policy_of_the_wrong_width_is_found_out_by_the_client(policy, serve, reach) -> None:
    server = serve(Plain(policy.spec, lambda observation, samples: torch.zeros(2, 1, 8, 3)))
    with (
        connect(reach(server.url)) as remote,
        pytest.raises(RemoteError, match=r"shape \(2, 1, 8, 3\); .* shape \(2, 1, 8, 2\) were due"),
    ):
        remote.sample(observe())


def test_a_policy_that_breaks_is_told_in_one_line_and_served_on(policy, serve, reach) -> None:
    def answer(observation: Mapping[str, Tensor], samples: int) -> Tensor:
        if observation["state"][0, 0, 0] == 0:
            raise RuntimeError("a secret path")
        return torch.zeros(1, samples, 8, 2)

    with connect(reach(serve(Plain(policy.spec, answer)).url)) as remote:
        assert type(remote) is RemotePolicy
        with pytest.raises(RemoteError, match=r"InferenceError: inference failed: RuntimeError$") as caught:
            remote.sample({"state": torch.zeros(1, 2, 3)})
        assert "secret" not in str(caught.value)
        assert remote.sample({"state": torch.ones(1, 2, 3)}).shape == (1, 1, 8, 2)


def test_a_slow_policy_ends_at_the_deadline_and_the_generator_stays(policy, serve, reach) -> None:
    go = threading.Event()

    def answer(observation: Mapping[str, Tensor], samples: int) -> Tensor:
        go.wait(10)
        return torch.zeros(2, samples, 8, 2)

    with connect(reach(serve(Plain(policy.spec, answer)).url)) as remote:
        generator = seeded(3)
        before = generator.get_state()
        with pytest.raises(RemoteError, match="no answer within"):
            remote.sample(observe(), generator=generator, deadline_s=0.2)
        assert torch.equal(generator.get_state(), before)
        go.set()
        assert remote.sample(observe(), generator=generator).shape == (2, 1, 8, 2)


def test_several_clients_get_their_own_answers(policy, serve, reach) -> None:
    url = serve(policy).url

    def client(number: int) -> bool:
        here, there = seeded(number), seeded(number)
        with connect(reach(url)) as remote:
            return all(
                torch.equal(
                    remote.sample(observe(seed=100 * number + i), generator=there),
                    policy.sample(observe(seed=100 * number + i), generator=here),
                )
                for i in range(10)
            )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(client, range(6)))


def test_a_generator_elsewhere_is_refused(policy, serve, reach) -> None:
    class Elsewhere(torch.Generator):
        device = torch.device("cuda")  # pyright: ignore[reportAssignmentType]

    with connect(reach(serve(policy).url)) as remote, pytest.raises(SpecError, match="need one on the CPU"):
        remote.sample(observe(), generator=Elsewhere())
