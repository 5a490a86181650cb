"""When can reranking help? What candidates and their values looked like."""

import pytest
import torch

from sensorimotor.composition.spread import SpreadMeter
from sensorimotor.data.spec import Field

ACTION = Field(shape=(2,), names=("x", "y"))


def metered(among: float, between: float, worth: float, *, decisions: int = 400, k: int = 20) -> SpreadMeter:
    """Candidates that scatter by `among` about decisions that scatter by `between`, worth `worth` per x."""
    generator = torch.Generator().manual_seed(0)
    centre = between * torch.randn(decisions, 1, 1, 2, generator=generator)
    scored = centre + among * torch.randn(decisions, k, 1, 2, generator=generator)
    values = worth * (scored - centre)[:, :, 0, 0] + 3.0 * torch.randn(decisions, 1, generator=generator)
    meter = SpreadMeter()
    for part in range(4):  # in pieces, as calls come
        rows = slice(part * decisions // 4, (part + 1) * decisions // 4)
        meter.add(scored[rows], values[rows], values[rows].argmax(dim=1))
    return meter


def test_the_spread_of_known_candidates() -> None:
    found = metered(0.5, 2.0, 4.0).spread(ACTION)
    assert found.decisions == 400
    assert found.apart == pytest.approx((0.5, 0.5), rel=0.05)
    assert found.share == pytest.approx(0.5 / (0.5**2 + 2.0**2) ** 0.5, rel=0.06)
    assert found.value_apart == pytest.approx(2.0, rel=0.06)
    assert found.value_share == pytest.approx(2.0 / (2.0**2 + 3.0**2) ** 0.5, rel=0.06)
    assert found.gain == pytest.approx(1.867 * 2.0, rel=0.06)  # the largest of 20 normal numbers
    assert found.changed == pytest.approx(0.95, abs=0.03)
    assert found.verdict().startswith("candidates differ by 23 % of how actions vary")


def test_candidates_that_are_all_alike_are_said() -> None:
    assert "reranking cannot help: candidates differ by" in metered(0.01, 2.0, 100.0).spread(ACTION).verdict()


def test_values_that_are_all_alike_are_said() -> None:
    assert "tells states apart and not actions" in metered(0.5, 2.0, 0.01).spread(ACTION).verdict()


def test_nothing_noted_is_said() -> None:
    assert SpreadMeter().spread(ACTION).verdict() == "no decision has been made yet"


def test_candidates_without_a_value_do_not_count() -> None:
    meter = SpreadMeter()
    values = torch.tensor([[1.0, -torch.inf, 3.0], [-torch.inf] * 3])
    meter.add(torch.zeros(2, 3, 1, 2), values, torch.tensor([2, 0]))
    found = meter.spread(ACTION)
    assert found.value_apart == pytest.approx(0.5)  # 1 in one decision, nothing in the other
    assert found.gain == pytest.approx(0.5)
    assert found.changed == 0.5
