"""The two streams, against one attention over all tokens at once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.errors import ConfigError
from sensorimotor.policies.vla.attention import rotate, rotation, self_attention
from sensorimotor.policies.vla.mask import (
    attention_mask,
    prefix_flags,
    suffix_flags,
    token_positions,
)
from sensorimotor.policies.vla.policy import VLAPolicy
from sensorimotor.policies.vla.streams import Streams, StreamsConfig

Make = Callable[..., VLAPolicy]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention written out, heads one by one; rows that see nothing give zeros."""
    out = torch.zeros_like(q)
    for head in range(q.shape[2]):
        group = head // (q.shape[2] // k.shape[2])
        scores = q[:, :, head] @ k[:, :, group].transpose(1, 2) / q.shape[-1] ** 0.5
        weight = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).nan_to_num()
        out[:, :, head] = weight @ v[:, :, group]
    return out.flatten(2)


def jointly(
    streams: Streams,
    prefix: Tensor,
    suffix: Tensor,
    mask: Tensor,
    positions: Tensor,
    condition: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Hidden states of both streams when every layer attends over all tokens together."""
    n, width = prefix.shape[1], streams.config.head_width
    turn = rotation(positions, width)
    for i in range(streams.config.layers):
        seeing, acting = streams.layer(i)
        a, _ = seeing.norm_attention(prefix)
        b, gate = acting.norm_attention(suffix, condition)
        q, (k, v) = seeing.queries(a), seeing.keys_values(a, a)
        start = positions[:, n:] - positions[:, n : n + 1]
        if streams.is_joint(i):
            own, (own_k, own_v) = acting.queries(b), acting.keys_values(b, b)
            q, k, v = torch.cat([q, own], 1), torch.cat([k, own_k], 1), torch.cat([v, own_v], 1)
            found = attend(rotate(q, turn), rotate(k, turn), v, mask)
            here, there = found[:, :n], found[:, n:]
        else:
            before = (turn[0][:, :n], turn[1][:, :n])
            k = rotate(k, before)
            here = attend(rotate(q, before), k, v, mask[:, :n, :n])
            k, v = acting.keys_values(k.flatten(2), v.flatten(2))
            there = attend(rotate(acting.queries(b), rotation(start, width)), k, v, mask[:, n:, :n])
        prefix = seeing.finish(prefix, here, None, None)
        suffix = acting.finish(suffix, there, gate, condition)
    return prefix, streams.norm(suffix, condition)[0]


@pytest.mark.parametrize("kind", ["pi0", "pi05", "smolvla"])
def test_the_cached_prefix_gives_what_one_attention_over_all_tokens_gives(kind: str, vla: Make) -> None:
    policy = vla(kind)
    streams, config = policy.streams, policy.config
    generator = torch.Generator().manual_seed(1)
    inside, after, horizon = int(config.state == "prefix"), int(config.state == "suffix"), 6
    prefix = torch.randn(2, 5 + inside, config.streams.prefix_width, generator=generator)
    suffix = torch.randn(2, after + horizon, config.streams.expert_width, generator=generator)
    condition = torch.randn(2, config.streams.expert_width, generator=generator) if kind == "pi05" else None
    valid = torch.ones(2, prefix.shape[1] + suffix.shape[1], dtype=torch.bool)
    valid[0, 4], valid[1, 2:5] = False, False
    flags = torch.cat([prefix_flags(5, inside), suffix_flags(config.mask, after, horizon)])
    mask, positions, n = attention_mask(flags, valid), token_positions(valid), prefix.shape[1]
    with torch.no_grad():
        hidden, expected = jointly(streams, prefix, suffix, mask, positions, condition)
        other, _ = jointly(streams, prefix, 5 - suffix, mask, positions, condition)
        cache = streams.encode(prefix, mask[:, :n, :n], positions[:, :n])
        out = streams.decode(suffix, cache, streams.place(mask[:, n:], positions[:, n:]), condition)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[valid[:, :n]], other[valid[:, :n]], atol=0, rtol=0)
    padded = torch.where(valid[:, :n, None], prefix, 3 - prefix)
    with torch.no_grad():
        cache = streams.encode(padded, mask[:, :n, :n], positions[:, :n])
        again = streams.decode(suffix, cache, streams.place(mask[:, n:], positions[:, n:]), condition)
    torch.testing.assert_close(again, out, atol=0, rtol=0)


def test_samples_share_a_prefix_as_if_each_had_its_own(vla: Make, vla_observation: Any) -> None:
    policy, observation = vla("pi0"), vla_observation(3)
    x = torch.randn(12, 8, 2, generator=torch.Generator().manual_seed(0))
    s = torch.rand(12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shared = policy.encode(observation).repeat(2).repeat(2)
        together = policy.predict_velocity(x, s, shared)
        copied = {k: v.repeat_interleave(4, 0) for k, v in observation.items() if k != "instruction"}
        copied["instruction"] = [text for text in observation["instruction"] for _ in range(4)]
        alone = policy.predict_velocity(x, s, policy.encode(copied))
    assert shared.cache[0][0].shape[0] == 3
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_where_tokens_stand_is_found_out_once_for_all_steps_and_samples(
    vla: Make, vla_observation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = vla("smolvla")
    asked: list[torch.Size] = []
    inner = policy.streams.place
    monkeypatch.setattr(
        policy.streams, "place", lambda mask, at: (asked.append(mask.shape), inner(mask, at))[1]
    )
    policy.sample(vla_observation(2), samples=3)
    seen = 16 + 7 + 1  # patches, words of the longer text, state
    assert asked == [(2, 8, seen + 8)]


def test_rotary_positions_matter_only_by_their_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)

    def score(i: int, j: int) -> float:
        at = lambda x, p: rotate(x, rotation(torch.tensor([[p]]), 8))  # noqa: E731
        return float((at(q, i) * at(k, j)).sum())

    assert score(3, 1) == pytest.approx(score(12, 10), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def test_rotation_turns_pairs_of_halves_by_the_position() -> None:
    turned = rotate(torch.tensor([1.0, 1, 0, 0]).view(1, 1, 1, 4), rotation(torch.tensor([[2]]), 4))
    expected = torch.tensor([2.0, 0.02]).cos().tolist() + torch.tensor([2.0, 0.02]).sin().tolist()
    assert turned.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_token_that_sees_nothing_is_no_reason_for_nan() -> None:
    x = torch.randn(1, 4, 2, 8)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, 2], mask[:, :, 2] = False, False
    assert self_attention(x, x, x, mask).isfinite().all()


def test_adaptive_blocks_change_nothing_at_the_start_but_learn(vla: Make) -> None:
    policy = vla("pi05", shake=0.0)
    streams, width = policy.streams, policy.config.streams.expert_width
    suffix, condition = torch.randn(1, 4, width), torch.randn(1, width)
    prefix = torch.randn(1, 3, policy.config.streams.prefix_width)
    cache = streams.encode(prefix, torch.ones(1, 3, 3, dtype=torch.bool), torch.arange(3)[None])
    mask = torch.ones(1, 4, 7, dtype=torch.bool)
    out = streams.decode(suffix, cache, streams.place(mask, torch.arange(3, 7)[None]), condition)
    unit = suffix / suffix.square().mean(-1, keepdim=True).add(1e-6).sqrt()
    torch.testing.assert_close(out, unit)
    out.square().sum().backward()
    gates = [p.grad for n, p in streams.named_parameters() if "modulation.weight" in n and "expert" in n]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gates)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 4, "groups": 3}, "groups must divide"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"head_width": 7}, "even"),
        ({"activation": "relu"}, "gelu or silu"),
        ({"expert_width": 2}, "at least 4"),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamsConfig(**wrong)
