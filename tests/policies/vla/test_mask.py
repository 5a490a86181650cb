import pytest
import torch

from sensorimotor.policies.vla.mask import (
    MaskRule,
    attention_mask,
    prefix_flags,
    suffix_flags,
    token_positions,
)

# Two image tokens and three of text, the last of them padding.
SEEN = torch.tensor([True, True, True, True, False])


def layout(rule: MaskRule, place: str, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
    inside, after = int(place == "prefix"), int(place == "suffix")
    flags = torch.cat([prefix_flags(5, inside), suffix_flags(rule, after, horizon)])
    valid = torch.cat([SEEN, torch.ones(len(flags) - 5, dtype=torch.bool)])[None]
    return attention_mask(flags, valid)[0], token_positions(valid)[0]


@pytest.mark.parametrize(
    ("rule", "place", "count"), [("pi0", "suffix", 45), ("pi0", "text", 37), ("smolvla", "prefix", 42)]
)
def test_as_many_pairs_see_each_other_as_published(rule: MaskRule, place: str, count: int) -> None:
    mask, _ = layout(rule, place, 3)
    assert int(mask.sum()) == count


@pytest.mark.parametrize("h", [1, 2, 7, 50])
def test_the_counts_follow_their_formulas(h: int) -> None:
    v = 4
    counts = {
        ("pi0", "suffix"): v**2 + (v + 1) + h * (v + 1 + h),
        ("pi0", "text"): v**2 + h * (v + h),
        ("smolvla", "prefix"): v**2 + (h + 1) * v + (h + 1) * (h + 2) // 2,
    }
    for (rule, place), count in counts.items():
        mask, _ = layout(rule, place, h)  # pyright: ignore[reportArgumentType]
        assert int(mask.sum()) == count


def test_padding_takes_no_position_and_neither_sees_nor_is_seen() -> None:
    mask, positions = layout("pi0", "suffix", 3)
    assert positions.tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert not mask[4].any()
    assert not mask[:, 4].any()


def test_the_state_is_blind_to_actions_and_actions_see_it() -> None:
    for rule, place in (("pi0", "suffix"), ("smolvla", "prefix")):
        mask, _ = layout(rule, place, 3)  # pyright: ignore[reportArgumentType]
        assert not mask[5, 6:].any()
        assert mask[6:, 5].all()
        assert not mask[:5, 5:].any()


def test_actions_see_all_or_only_earlier_ones() -> None:
    everyone, _ = layout("pi0", "suffix", 4)
    earlier, _ = layout("smolvla", "prefix", 4)
    assert everyone[6:, 6:].all()
    assert torch.equal(earlier[6:, 6:], torch.ones(4, 4).tril().bool())
