"""Saved compositions: what is opened draws what was saved, and members that moved or changed are noticed."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sensorimotor
from sensorimotor.composition.composed import compose
from sensorimotor.composition.critic_cost import guide_by_critic
from sensorimotor.composition.guided import guide
from sensorimotor.composition.ito import ReverseSDE
from sensorimotor.composition.meeting import Part
from sensorimotor.composition.reranked import rerank
from sensorimotor.composition.saved import FILE, load, save
from sensorimotor.composition.superposed import superpose
from sensorimotor.composition.weights import Observed, PerDimension, Schedule
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.diffusion import DiffusionConfig
from sensorimotor.policies.factory import describe, make_policy
from sensorimotor.policies.factory import load as load_checkpoint
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.remote.connection import ConnectionConfig
from sensorimotor.policies.remote.remote import RemoteGenerativePolicy, connect
from sensorimotor.policies.sampling import DDIM, FlowEuler
from sensorimotor.real.server import PolicyServer, ServerConfig
from sensorimotor.rl.cal_ql import CalQLConfig
from sensorimotor.rl.critic import Critic
from sensorimotor.rl.factory import describe_critic, load_critic, make_critic
from sensorimotor.training.checkpoint import save_checkpoint, save_weights

CHUNK = ChunkConfig(horizon=4, execute=2)
TRUNK = MLPConfig(width=8, depth=1)
SEEN = {"state": torch.tensor([[[0.3, -1.0], [0.4, -0.8]]])}


def recorded() -> Episodes:
    generator = np.random.default_rng(0)
    spec = Spec(observation={"state": Field(shape=(2,))}, action=Field(shape=(2,)), control_hz=10)
    observation = {"state": generator.normal(size=(30, 2)).astype(np.float32)}
    action = generator.normal(size=(30, 2)).astype(np.float32)
    return Episodes(spec=spec, observation=observation, action=action, ends=np.array([14, 30]))


def written(model: Any, describe_it: Callable[[Any, Path], None], folder: Path) -> None:
    save_checkpoint(
        folder / "checkpoints" / "last",
        partial(describe_it, model),
        lambda place: save_weights(model, place / "model.safetensors"),
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of a flow policy, a diffusion policy and a critic."""
    folder, episodes = tmp_path / "runs", recorded()
    flow = make_policy(FlowConfig(chunk=CHUNK, trunk=TRUNK), episodes, seed=1)
    diffusion = make_policy(DiffusionConfig(chunk=CHUNK, trunk=TRUNK), episodes, seed=2)
    critic_chunk = ChunkConfig(observation_steps=1, horizon=2, execute=1)
    critic = make_critic(CalQLConfig(chunk=critic_chunk, hidden=(8,)), episodes, seed=3)
    written(flow, describe, folder / "flow")
    written(diffusion, describe, folder / "diffusion")
    written(critic, describe_critic, folder / "critic")
    return folder


def member(runs: Path, name: str) -> GenerativePolicy:
    policy = load(runs / name)
    assert isinstance(policy, GenerativePolicy)
    return policy


def both(runs: Path) -> dict[str, Policy]:
    return {"first": member(runs, "flow"), "second": member(runs, "diffusion")}


def critic_of(runs: Path) -> Critic:
    return load_critic(runs / "critic")


MAKERS: dict[str, Callable[[Path], Policy]] = {
    "weights": lambda runs: compose(both(runs), (0.3, 0.7), sampler=DDIM(steps=4), execute=1),
    "any sum": lambda runs: compose(both(runs), (1.2, 0.4), total="any", fallback="others"),
    "one alone": lambda runs: compose(both(runs), (0.0, 1.0)),
    "schedule": lambda runs: compose(both(runs), Schedule((0.2, 0.8), ((1.0, 0.0), (0.5, 0.5)))),
    "per dimension": lambda runs: compose(both(runs), PerDimension(((1.0, 0.25), (0.0, 0.75)))),
    "columns": lambda runs: compose(
        [Part(member(runs, "flow"), "a"), Part(member(runs, "diffusion"), "b", columns=(0, 1))]
    ),
    "or": lambda runs: superpose(
        both(runs), "or", prior=(0.2, 0.8), temperature=2.0, sampler=ReverseSDE(steps=100)
    ),
    "and": lambda runs: superpose(both(runs), "and", sampler=ReverseSDE(steps=100)),
    "reranked": lambda runs: rerank(member(runs, "flow"), critic_of(runs), samples=4, temperature=0.5),
    "guided": lambda runs: guide_by_critic(member(runs, "flow"), critic_of(runs), strength=0.3),
    "guided reverse diffusion": lambda runs: guide_by_critic(
        superpose(both(runs), "or", sampler=ReverseSDE(steps=100)), critic_of(runs), strength=0.1
    ),
    "nested": lambda runs: rerank(
        compose({"pair": compose(both(runs), (0.4, 0.6)), "flow": member(runs, "flow")}, (0.5, 0.5)),
        critic_of(runs),
        samples=3,
        fallback="first",
    ),
}


def drawn(policy: Policy) -> Tensor:
    return policy.sample(SEEN, samples=2, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_opened_draws_what_was_saved(runs: Path, make: Callable[[Path], Policy]) -> None:
    policy = make(runs)
    file = save(policy, runs / "made")
    assert file == runs / "made" / FILE
    for path in (file, file.parent):
        opened = load(path)
        assert torch.equal(drawn(opened), drawn(policy))
        assert opened.spec == policy.spec
    assert str(opened).splitlines()[0] == str(policy).splitlines()[0]


def test_the_packages_own_load_opens_everything(runs: Path) -> None:
    save(compose(both(runs)), runs / "made")
    assert type(sensorimotor.load(runs / "made")).__name__ == "ComposedPolicy"
    assert type(sensorimotor.load(runs / "flow")).__name__ == "FlowPolicy"


def test_a_members_own_sampler_is_kept(runs: Path) -> None:
    base = member(runs, "flow")
    base.sampler = FlowEuler(steps=3, temperature=0.5)
    file = save(rerank(base, critic_of(runs), samples=2), runs / "made")
    opened: Any = load(file)
    assert opened.policy.sampler == base.sampler


def test_a_folder_of_runs_may_be_moved_as_a_whole(runs: Path, tmp_path: Path) -> None:
    policy = compose(both(runs), (0.3, 0.7))
    save(policy, runs / "made")
    expected = drawn(policy)
    runs.rename(tmp_path / "elsewhere")
    assert torch.equal(drawn(load(tmp_path / "elsewhere" / "made")), expected)


def test_a_member_that_was_renamed_is_found_by_its_checksum(runs: Path) -> None:
    policy = compose(both(runs), (0.3, 0.7))
    save(policy, runs / "made")
    (runs / "flow").rename(runs / "renamed")
    assert torch.equal(drawn(load(runs / "made")), drawn(policy))


def test_a_member_that_was_moved_away_is_found_where_it_is_said_to_be(runs: Path, tmp_path: Path) -> None:
    policy = rerank(member(runs, "flow"), critic_of(runs), samples=4)
    save(policy, runs / "made")
    place = tmp_path / "far" / "away" / "here"
    place.mkdir(parents=True)
    (runs / "flow").rename(place / "anything")
    (runs / "critic" / "checkpoints" / "last").rename(place / "a_critic")  # not even a run any more
    with pytest.raises(CheckpointError, match=r"name the folder that holds it: load\(\.\.\., look_in"):
        load(runs / "made")
    assert torch.equal(drawn(load(runs / "made", look_in=[place])), drawn(policy))


def test_a_copy_of_what_a_member_was_stands_in_for_what_it_became(runs: Path) -> None:
    policy = compose(both(runs))
    save(policy, runs / "made")
    last = runs / "flow" / "checkpoints" / "last"
    last.rename(last.with_name("step_000001000"))
    written(make_policy(FlowConfig(chunk=CHUNK, trunk=TRUNK), recorded(), seed=9), describe, runs / "flow")
    assert torch.equal(drawn(load(runs / "made")), drawn(policy))


def test_a_member_whose_files_were_altered_is_refused(runs: Path) -> None:
    save(compose(both(runs)), runs / "made")
    weights = runs / "flow" / "checkpoints" / "last" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for trust in (False, True):
        with pytest.raises(CheckpointError, match=r"model.safetensors does not match its SHA-256"):
            load(runs / "made", trust=trust)


def test_weights_that_changed_after_loading_are_not_saved_as_what_they_were(runs: Path) -> None:
    changed = member(runs, "flow")
    with torch.no_grad():
        next(changed.parameters()).add_(1e-3)
    with pytest.raises(ConfigError, match=r"of the FlowPolicy loaded from .*flow.* has changed since"):
        save(compose([changed, member(runs, "diffusion")]), runs / "made")
    critic = critic_of(runs)
    with torch.no_grad():
        next(critic.parameters()).add_(1e-3)
    with pytest.raises(ConfigError, match=r"of the CalQLCritic loaded from .*critic.* has changed since"):
        save(rerank(member(runs, "flow"), critic, samples=2), runs / "made")


def test_members_that_are_no_longer_there_are_not_saved(runs: Path) -> None:
    policy = compose(both(runs))
    shutil.rmtree(runs / "flow")
    with pytest.raises(ConfigError, match=r"flow.* is gone since it was loaded"):
        save(policy, runs / "made")


def test_what_was_opened_can_be_saved_elsewhere(runs: Path, tmp_path: Path) -> None:
    policy = compose(both(runs), (0.3, 0.7))
    save(policy, runs / "made")
    save(load(runs / "made"), tmp_path / "again" / "mine.json")
    assert torch.equal(drawn(load(tmp_path / "again" / "mine.json")), drawn(policy))


def test_the_loader_of_checkpoints_says_who_opens_compositions(runs: Path) -> None:
    file = save(compose(both(runs)), runs / "made")
    for path in (file, file.parent):
        with pytest.raises(
            CheckpointError, match=r"is a saved composition of policies; open it with sensorimotor.load"
        ):
            load_checkpoint(path)


@pytest.fixture
def serve() -> Iterator[Callable[..., PolicyServer]]:
    running: list[PolicyServer] = []

    def start(policy: Policy, port: int = 0) -> PolicyServer:
        running.append(PolicyServer(policy, ServerConfig(port=port)).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


def test_served_members_are_named_by_address_and_what_they_are(runs: Path, serve) -> None:
    server = serve(member(runs, "diffusion"))
    connection = ConnectionConfig(url=server.url, deadline_s=7.0)
    with connect(connection, token="secret") as remote:
        assert isinstance(remote, RemoteGenerativePolicy)
        made = {
            "mixed": compose({"here": member(runs, "flow"), "there": remote}, (0.3, 0.7)),
            "reranked": rerank(remote, critic_of(runs), samples=3),
        }
        for name, policy in made.items():
            file = save(policy, runs / name)
            assert "secret" not in file.read_text()
            opened: Any = load(file)
            assert torch.equal(drawn(opened), drawn(policy))
        assert opened.policy.config == connection
        remote.sampler = FlowEuler(steps=2)  # not the one that is served
        opened = load(save(rerank(remote, critic_of(runs), samples=3), runs / "resampled"))
        assert opened.policy.sampler == FlowEuler(steps=2)


def test_a_server_that_serves_something_else_is_refused_unless_trusted(runs: Path, serve) -> None:
    server = serve(member(runs, "diffusion"))
    with connect(server.url) as remote:
        save(rerank(remote, critic_of(runs), samples=3), runs / "made")
    server.stop()
    longer = FlowConfig(chunk=ChunkConfig(horizon=8, execute=2), trunk=TRUNK)
    serve(make_policy(longer, recorded()), port=int(server.url.rsplit(":", 1)[1]))
    with pytest.raises(
        CheckpointError,
        match=r"not the one this composition was saved with: the fingerprint .* is \w{12}, not \w{12}",
    ):
        load(runs / "made")
    assert load(runs / "made", trust=True).spec.horizon == 8


def test_a_strangers_file_is_not_shown_the_token_of_the_environment(
    runs: Path, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(serve(member(runs, "diffusion")).url) as remote:
        file = save(rerank(remote, critic_of(runs), samples=3), runs / "made")
        monkeypatch.setenv("SENSORIMOTOR_TOKEN", "secret")
        load(file)  # this machine's own
        file.write_text(file.read_text().replace(remote.config.url, "wss://198.51.100.7:8000"))
        with pytest.raises(ConfigError, match=r"a policy server at wss://198\.51\.100\.7:8000.*pass token="):
            load(file)


def test_a_composition_is_served_and_drawn_from_afar(runs: Path, serve) -> None:
    policy = MAKERS["nested"](runs)
    save(policy, runs / "made")
    with connect(serve(load(runs / "made")).url) as remote:
        assert torch.equal(drawn(remote), drawn(policy))


def test_a_member_that_is_gone_is_named(runs: Path) -> None:
    save(compose(both(runs)), runs / "made")
    shutil.rmtree(runs / "flow")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*flow.*none with checksum"):
        load(runs / "made")


def test_a_member_that_was_trained_on_is_refused_unless_trusted(runs: Path) -> None:
    save(compose(both(runs)), runs / "made")
    shutil.rmtree(runs / "flow")
    changed = make_policy(FlowConfig(chunk=CHUNK, trunk=TRUNK), recorded(), seed=9)
    written(changed, describe, runs / "flow")
    with pytest.raises(CheckpointError, match=r"flow.* has changed since the composition was saved"):
        load(runs / "made")
    load(runs / "made", trust=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda runs: compose(both(runs), Observed(lambda seen: torch.full((1, 2), 0.5), 2)),
            "a function of the observation cannot be saved",
        ),
        (
            lambda runs: guide(member(runs, "flow"), lambda chunks, seen: chunks.sum(dim=(2, 3))),
            "a function of Python and cannot be saved",
        ),
        (
            lambda runs: compose([make_policy(FlowConfig(chunk=CHUNK, trunk=TRUNK), recorded())]),
            "FlowPolicy was not loaded from a checkpoint",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_reason(
    runs: Path, make: Callable[[Path], Policy], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        save(make(runs), runs / "made")
    assert not (runs / "made" / FILE).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values.update(version=2), "of version 2, and 1 is read here"),
        (lambda values: values["policy"].update(weightss=1), "did you mean 'weights'"),
        (lambda values: values["policy"].update(kind="Mixd"), "did you mean 'Mixed'"),
        (
            lambda values: values.update(policy="../flow"),
            r"policy is '../flow'; needed is Trained or Served or",
        ),
        (
            lambda values: values["policy"]["members"][1].update(policy=7),
            r"policy\.members\[1\]\.policy is 7; needed is Trained or",
        ),
        (
            lambda values: values["policy"].update(weights=[0.5, 0.5]),
            r"weights is \(0.5, 0.5\); needed is Constant",
        ),
        (lambda values: values["policy"].update(total="all"), r"total is 'all'; needed is .*'one', 'any'"),
        (lambda values: values["policy"].update(execute=True), "execute is True; needed is int"),
        (lambda values: values["policy"]["sampler"].update(steps="9"), r"policy\.sampler: '<' not supported"),
        (
            lambda values: values["policy"]["sampler"].update(steps=9.5),
            r"sampler\.steps is 9\.5; needed is int",
        ),
        (
            lambda values: values["policy"].pop("weights"),
            "missing 1 required keyword-only argument: 'weights'",
        ),
    ],
)
def test_files_from_elsewhere_are_read_strictly(
    runs: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    file = save(compose(both(runs)), runs / "made")
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=said):
        load(file)


def test_what_is_no_composition_is_refused(runs: Path) -> None:
    file = runs / "made.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"is no JSON|of version"):
        load(file)
    file.write_text("[]")
    with pytest.raises(ConfigError, match=r"is of version \[\]"):
        load(file)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        load(file)
