import pytest
import torch

from sensorimotor.policies.vla.tokens import (
    openvla_actions,
    openvla_token_begin,
    openvla_tokens,
    state_bins,
    state_prompt,
)


@pytest.mark.parametrize(
    ("value", "bin"),
    [(-1.0, 0), (-0.5, 64), (0.0, 128), (0.25, 160), (1.0, 255), (1.3, 255), (-1.2, 0)],
)
def test_states_fall_into_the_published_bins_after_clipping(value: float, bin: int) -> None:
    assert int(state_bins(torch.tensor([value]))) == bin


def test_bins_count_the_edges_below() -> None:
    edges = -1 + torch.arange(256, dtype=torch.float64) / 128
    values = torch.cat([edges, edges + 1e-3, torch.linspace(-1, 1, 999, dtype=torch.float64)])
    counted = (edges <= values[:, None]).sum(dim=1) - 1
    assert torch.equal(state_bins(values), counted)


def test_the_prompt_names_task_and_state() -> None:
    assert (
        state_prompt(" pick_up the\ncup ", torch.tensor([0, 128]))
        == "Task: pick up the cup, State: 0 128;\nAction: "
    )


@pytest.mark.parametrize(
    ("action", "token", "back"),
    [
        (-1.0, 31999, -0.996078),
        (0.0, 31872, 0.0),
        (0.1, 31859, 0.101961),
        (1.0, 31744, 0.996078),
        (2.0, 31744, 0.996078),
    ],
)
def test_actions_become_the_published_tokens(action: float, token: int, back: float) -> None:
    tokens = openvla_tokens(torch.tensor([action]), 32000)
    assert int(tokens) == token
    assert float(openvla_actions(tokens, 32000)) == pytest.approx(back, abs=1e-6)


def test_no_action_comes_back_further_than_half_an_interval() -> None:
    actions = torch.linspace(-1, 1, 5001)
    tokens = openvla_tokens(actions, 32000)
    assert float((openvla_actions(tokens, 32000) - actions).abs().max()) == pytest.approx(1 / 255, abs=1e-6)
    assert int(tokens.min()) > openvla_token_begin(32000) == 31743
