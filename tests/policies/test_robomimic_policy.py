"""robomimic's baselines behind our interface; where its networks cannot be imported, the message that says why."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError, SpecError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Windows
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import describe, load, make_policy
from sensorimotor.policies.policy import Policy
from sensorimotor.policies.presets import PRESETS
from sensorimotor.policies.robomimic_checkpoint import read_robomimic_checkpoint
from sensorimotor.policies.robomimic_policy import Part, RobomimicConfig, RobomimicPolicy
from sensorimotor.training.checkpoint import MODEL, save_checkpoint, save_weights

THREE = ChunkConfig(observation_steps=3, horizon=3, execute=1, start=-2)
SMALL = {
    "bc": RobomimicConfig(settings='{"actor_layer_dims": [16]}'),
    "bc_rnn_gmm": RobomimicConfig(
        algorithm="bc_rnn_gmm", chunk=THREE, settings='{"rnn": {"hidden_dim": 8, "num_layers": 1}}'
    ),
    "bc_transformer": RobomimicConfig(
        algorithm="bc_transformer",
        chunk=THREE,
        settings='{"transformer": {"embed_dim": 8, "num_layers": 1, "num_heads": 2}}',
    ),
}


@pytest.fixture
def episodes() -> Episodes:
    generator = np.random.default_rng(0)
    observation = {"state": generator.normal(size=(40, 5)), "environment": generator.normal(size=(40, 4))}
    fields = {key: Field(shape=array.shape[1:]) for key, array in observation.items()}
    return Episodes(
        spec=Spec(observation=fields, action=Field(shape=(2,)), control_hz=20),
        observation={key: array.astype(np.float32) for key, array in observation.items()},
        action=generator.uniform(-1, 1, (40, 2)).astype(np.float32),
        ends=np.array([25, 40]),
    )


@pytest.fixture(params=list(SMALL))
def policy(request: pytest.FixtureRequest, algorithms: None, episodes: Episodes) -> RobomimicPolicy:
    made = make_policy(SMALL[request.param], episodes)
    assert isinstance(made, RobomimicPolicy)
    return made


def observed(episodes: Episodes, policy: Policy, rows: list[int]) -> dict[str, torch.Tensor]:
    return dict(Windows(episodes, policy.spec).batch(np.array(rows)).observation)


def test_it_learns(policy: RobomimicPolicy, episodes: Episodes) -> None:
    """Enough updates on one small batch halve the distance to its actions."""
    batch = Windows(episodes, policy.spec).batch(np.arange(8))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(150):
        loss = policy(batch, generator)
        assert loss.ndim == 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    policy.eval()
    assert losses[-1] < losses[0] - 0.1
    now = policy.sample(batch.observation, samples=1)[:, 0, -1]
    error = (now - batch.action[:, -1]).abs().mean()
    assert error < 0.5 * batch.action[:, -1].abs().mean()


def test_a_generator_is_the_only_source_of_randomness(policy: RobomimicPolicy, episodes: Episodes) -> None:
    policy.eval()
    seen = observed(episodes, policy, [0, 9, 30])
    draw = lambda seed: policy.sample(seen, samples=4, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    torch.manual_seed(0)
    first = draw(1)
    torch.manual_seed(5)
    assert torch.equal(first, draw(1))
    assert first.shape == (3, 4, policy.spec.horizon, 2)
    if policy.config.algorithm != "bc":
        assert not torch.equal(first, draw(2))
    prefix = torch.zeros(3, 1, 2)
    assert (policy.sample(seen, samples=2, prefix=prefix)[:, :, 0] == 0).all()


def test_what_was_saved_answers_the_same(policy: RobomimicPolicy, episodes: Episodes, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, lambda f: describe(policy, f), lambda f: save_weights(policy, f / MODEL))
    seen = observed(episodes, policy, [3, 4])
    assert torch.equal(load(folder).sample(seen, samples=3), policy.eval().sample(seen, samples=3))


def test_its_answer_is_robomimics(policy: RobomimicPolicy, episodes: Episodes) -> None:
    """robomimic steps its networks one observation at a time; the last of its answers is ours, up to its 1e-4 noise."""
    policy.eval()
    seen = observed(episodes, policy, [5, 12])
    algorithm: Any = policy._algorithm
    with torch.no_grad():
        if policy.config.algorithm == "bc_transformer":  # it draws one of the modes for each observation
            mixture = algorithm.nets["policy"].forward_train(obs_dict=policy._inputs(seen), goal_dict=None)
            modes = mixture.component_distribution.base_dist.loc[:, -1]  # (B, M, A)
        else:
            algorithm.set_eval()
            steps = range(policy.spec.observation_steps)
            if policy.config.algorithm == "bc":
                answer = algorithm.get_action({k: x[:, -1] for k, x in seen.items()})
                modes = answer[:, None]
            else:
                state, distribution = None, None
                for t in steps:
                    one = {k: x[:, t] for k, x in seen.items()}
                    distribution, state = algorithm.nets["policy"].forward_train_step(one, rnn_state=state)
                assert distribution is not None
                modes = distribution.component_distribution.base_dist.loc
    modes = policy.normalizer.unnormalize("action", modes)
    drawn = policy.sample(seen, samples=20)[:, :, -1]
    distance = (drawn[:, :, None] - modes[:, None]).norm(dim=-1).min(dim=2).values
    assert distance.max() < 3e-3


def saved_by_robomimic(policy: RobomimicPolicy, path: Path, **changes: Any) -> Path:
    """What robomimic's `save_model` writes of the algorithm inside a policy."""
    algorithm: Any = policy._algorithm
    held = {
        "model": algorithm.serialize(),
        "config": algorithm.global_config.dump(),
        "algo_name": "bc",
        "env_metadata": {
            "env_name": "Lift",
            "env_version": "1.5.2",
            "type": 1,
            "env_kwargs": {"control_freq": 20},
        },
        "shape_metadata": {
            "ac_dim": 2,
            "all_shapes": algorithm.obs_shapes,
            "all_obs_keys": list(algorithm.obs_shapes),
            "use_images": False,
        },
    }
    torch.save(held | changes, path)
    return path


def test_robomimics_checkpoints_become_ours(
    policy: RobomimicPolicy, episodes: Episodes, tmp_path: Path
) -> None:
    """The actions of these episodes are scaled by their range, those of a robomimic file are not; hence the identity."""
    path = saved_by_robomimic(policy, tmp_path / "model.pth")
    read = read_robomimic_checkpoint(path, groups={})
    assert read.spec.control_hz == 20
    seen = observed(episodes, policy, [3, 30])
    given = policy.eval().sample(seen, samples=3)
    expected = policy.normalizer.normalize("action", given)
    torch.testing.assert_close(read.sample(seen, samples=3), expected, atol=1e-5, rtol=1e-4)
    folder = tmp_path / "ours"
    save_checkpoint(folder, lambda f: describe(read, f), lambda f: save_weights(read, f / MODEL))
    assert torch.equal(load(folder).sample(seen), read.sample(seen))


def test_robomimics_names_are_found_within_ours(algorithms: None, episodes: Episodes, tmp_path: Path) -> None:
    parts = (
        Part(name="object", key="environment", begin=0, end=4),
        Part(name="eef_pos", key="state", begin=0, end=3),
        Part(name="eef_rest", key="state", begin=3, end=5),
    )
    named = make_policy(replace(SMALL["bc"], parts=parts), episodes)
    assert isinstance(named, RobomimicPolicy)
    stats = {
        part.name: {"mean": [[1.0] * (part.end - part.begin)], "std": [[2.0] * (part.end - part.begin)]}
        for part in parts
    }
    path = saved_by_robomimic(named, tmp_path / "model.pth", obs_normalization_stats=stats)
    groups = {"state": ("eef_pos", "eef_rest"), "environment": ("object",)}
    read = read_robomimic_checkpoint(path, groups=groups)
    assert {key: f.shape for key, f in read.spec.observation.items()} == {"environment": (4,), "state": (5,)}
    seen = observed(episodes, named, [1, 2])
    scaled = {key: (value - 1) / 2 for key, value in seen.items()}
    expected = named.normalizer.normalize("action", named.eval().sample(scaled))
    torch.testing.assert_close(read.sample(seen), expected)


@pytest.mark.parametrize(("first", "second"), [("mean", "std"), ("offset", "scale")])
def test_scaled_actions_are_scaled_back_whatever_robomimic_calls_the_numbers(
    algorithms: None, episodes: Episodes, tmp_path: Path, first: str, second: str
) -> None:
    """Since robomimic 0.4 actions may be scaled too, part by part in the order of `action_keys`."""
    made = make_policy(SMALL["bc"], episodes)
    assert isinstance(made, RobomimicPolicy)
    config = json.loads(made._algorithm.global_config.dump())
    config["train"]["action_keys"] = ["b", "a"]
    path = saved_by_robomimic(
        made,
        tmp_path / "model.pth",
        config=json.dumps(config),
        obs_normalization_stats={"state": {first: [[0.0] * 5], second: [[2.0] * 5]}},
        action_normalization_stats={
            "a": {"offset": [[1.0]], "scale": [[4.0]]},
            "b": {"offset": [[-3.0]], "scale": [[0.5]]},
        },
    )
    seen = observed(episodes, made, [1, 2])
    scaled = {"state": seen["state"] / 2, "environment": seen["environment"]}
    asked = {key: made.normalizer.unnormalize(key, value) for key, value in scaled.items()}
    raw = made.normalizer.normalize("action", made.eval().sample(asked))
    expected = raw * torch.tensor([0.5, 4.0]) + torch.tensor([-3.0, 1.0])
    torch.testing.assert_close(read_robomimic_checkpoint(path, groups={}).sample(seen), expected)


def test_foreign_checkpoints_that_cannot_be_used_say_why(
    algorithms: None, episodes: Episodes, tmp_path: Path
) -> None:
    made = make_policy(SMALL["bc"], episodes)
    assert isinstance(made, RobomimicPolicy)
    old = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": {"control_freq": 20}}
    one = {"actions": {"offset": [0.0], "scale": [1.0]}}
    config = json.loads(made._algorithm.global_config.dump())
    config["train"] |= {"action_keys": ["actions"], "action_config": {"actions": {"format": "rot_6d"}}}
    turned = {"config": json.dumps(config), "action_normalization_stats": one}
    for change, said in (
        ({"algo_name": "bcq"}, "holds bcq; converted are bc"),
        ({"env_metadata": old}, "trained on robosuite 1.4.1"),
        ({"env_metadata": {}}, "pass control_hz"),
        ({"env_metadata": old | {"env_version": "unknown"}}, "trained on robosuite unknown"),
        ({"model": {}}, "does not fit the network"),
        ({"config": "{"}, "config is not JSON"),
        (turned, r"commands \['actions'\] as rotations of 6 numbers"),
        ({"action_normalization_stats": one}, "scales 1 numbers of an action of 2"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read_robomimic_checkpoint(saved_by_robomimic(made, tmp_path / "x.pth", **change), groups={})


class Trap:
    """A pickle that would run a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Trap()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="would run"):
        read_robomimic_checkpoint(tmp_path / "model.pth", groups={})
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(CheckpointError, match="sensorimotor convert source="):
        load(tmp_path / "model.pth")


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"is not robomimic's.*holds \['weights'\]"):
        read_robomimic_checkpoint(tmp_path / "model.pth", groups={})


def test_without_its_packages_the_message_names_them(
    episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "robomimic.algo", None)
    with pytest.raises(ConfigError, match=r"torchvision built for torch .*sensorimotor\[robomimic\]"):
        make_policy(SMALL["bc"], episodes)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"algorithm": "bc_rn"}, "unknown algorithm 'bc_rn'; did you mean 'bc_rnn_gmm'"),
        ({"chunk": ChunkConfig()}, "horizon must be 2, execute 1 and start -1, got 16, 8 and 0"),
        ({"chunk": THREE}, "bc sees one observation"),
        ({"settings": "[1]"}, "must be a JSON object"),
        ({"settings": "{"}, "must be a JSON object"),
    ],
)
def test_impossible_configurations_say_what_is_possible(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RobomimicConfig(**values)


def test_unknown_settings_and_pictures_are_refused(algorithms: None, episodes: Episodes) -> None:
    wrong = replace(SMALL["bc"], settings=json.dumps({"rnn": {"hidden_dims": 3}}))
    with pytest.raises(ConfigError, match="no setting 'hidden_dims' here; did you mean 'hidden_dim'"):
        make_policy(wrong, episodes)
    fields = {**episodes.spec.observation, "image.top": Field(shape=(4, 4, 3), dtype="uint8")}
    spec = replace(episodes.spec, observation=fields)
    with pytest.raises(SpecError, match=r"'image\.top' is no vector"):
        RobomimicPolicy(SMALL["bc"], spec, make_policy(SMALL["bc"], episodes).normalizer)  # pyright: ignore


def test_the_presets_are_these_three() -> None:
    names = {name: p.policy for name, p in PRESETS.items() if isinstance(p.policy, RobomimicConfig)}
    assert {f"robomimic_{policy.algorithm}" for policy in names.values()} == set(names)
