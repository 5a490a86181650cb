"""Scales of actions taken over from another policy, so that the two can be composed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorimotor.composition.composed import compose
from sensorimotor.data.errors import NormalizerError
from sensorimotor.data.normalizer import NormalizerConfig
from sensorimotor.policies.chunk import ChunkConfig
from sensorimotor.policies.factory import describe, make_policy
from sensorimotor.policies.flow import FlowConfig
from sensorimotor.policies.mlp import MLPConfig
from sensorimotor.policies.policy import GenerativePolicy, Policy
from sensorimotor.policies.regression import RegressorConfig
from sensorimotor.training.checkpoint import save_checkpoint, save_weights

CHUNK = ChunkConfig(horizon=8, execute=4, start=-1)


def flow(
    *, like: Path | None = None, chunk: ChunkConfig = CHUNK, relative: str | None = "state"
) -> FlowConfig:
    kept = None if like is None else str(like)
    return FlowConfig(
        chunk=chunk,
        trunk=MLPConfig(width=8, depth=1),
        relative=relative,
        normalizer=NormalizerConfig(like=kept),
    )


def saved(policy: Policy, folder: Path) -> Path:
    save_checkpoint(
        folder, partial(describe, policy), lambda place: save_weights(policy, place / "model.safetensors")
    )
    return folder


@pytest.fixture
def run(tmp_path: Path, make_episodes: Callable) -> Path:
    """A policy of other data than the tests'."""
    return saved(make_policy(flow(), make_episodes(seed=7)), tmp_path / "first")


def actions_of(policy: Policy) -> tuple[Any, Any]:
    assert isinstance(policy, GenerativePolicy)
    return policy.normalizer.affine("action")


def test_policies_of_other_data_compose_once_one_takes_the_others_scales(
    run: Path, make_episodes: Callable
) -> None:
    other = make_policy(flow(), make_episodes(seed=7))
    with pytest.raises(NormalizerError, match=r"policy\.normalizer\.like"):
        compose([other, make_policy(flow(), make_episodes(seed=1))])
    alike = make_policy(flow(like=run), make_episodes(seed=1))
    assert all(torch.equal(a, b) for a, b in zip(actions_of(alike), actions_of(other), strict=True))
    assert isinstance(alike, GenerativePolicy)
    fresh = make_policy(flow(), make_episodes(seed=1))
    assert isinstance(fresh, GenerativePolicy)
    for mine, own in zip(
        alike.normalizer.affine("environment"), fresh.normalizer.affine("environment"), strict=True
    ):
        assert torch.equal(mine, own)  # observations keep this data's
    compose([other, alike])


def test_a_shorter_chunk_takes_the_rows_of_its_own_actions(run: Path, make_episodes: Callable) -> None:
    short = make_policy(flow(like=run, chunk=ChunkConfig(horizon=4, execute=2)), make_episodes())
    offset, scale = actions_of(make_policy(flow(), make_episodes(seed=7)))
    assert torch.equal(actions_of(short)[0], offset[1:5])
    assert torch.equal(actions_of(short)[1], scale[1:5])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"relative": None}, "relative to None here and to 'state' there"),
        ({"chunk": ChunkConfig(horizon=12, execute=4)}, "scales for -1 to 6"),
    ],
)
def test_scales_of_other_actions_are_refused(
    run: Path, make_episodes: Callable, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(NormalizerError, match=said):
        make_policy(flow(like=run, **wrong), make_episodes())


def test_a_policy_without_a_path_has_no_scales_to_give(tmp_path: Path, make_episodes: Callable) -> None:
    regressor = make_policy(RegressorConfig(chunk=CHUNK, trunk=MLPConfig(width=8, depth=1)), make_episodes())
    with pytest.raises(NormalizerError, match="RegressionPolicy, which scales actions in a way of its own"):
        make_policy(flow(like=saved(regressor, tmp_path / "regressor")), make_episodes())
