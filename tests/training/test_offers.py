"""What a model may say besides its loss is heard, and once."""

from pathlib import Path

import pytest
import torch
from toy_training import ToyModel, toy_config, toy_train

from sensorimotor.data.errors import ConfigError
from sensorimotor.training.metrics import read_metrics
from sensorimotor.training.offers import rate_factor
from sensorimotor.training.optimizer import make_optimizer


class Talkative(ToyModel):
    """Counts its updates, and learns fast at its outlet."""

    updates = 0

    def after_update(self) -> None:
        self.updates += 1

    def health(self) -> dict[str, float]:
        return {"updates": float(self.updates)}

    def rate_factors(self) -> dict[str, float]:
        return {"network.3.": 10.0}


def test_a_model_hears_of_every_update_once_and_its_health_joins_the_rows(tmp_path: Path) -> None:
    _, model = toy_train(tmp_path, toy_config(accumulate=2), model=Talkative())
    assert model.updates == 12  # pyright: ignore[reportAttributeAccessIssue]
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [(row["step"], row["updates"]) for row in rows] == [(3, 3), (6, 6), (9, 9), (12, 12)]


def test_a_part_learns_at_its_own_rate() -> None:
    config = toy_config(weight_decay=0.0, learning_rate=1e-3)
    model, plain = Talkative(), ToyModel()
    for each in (model, plain):
        optimizer = make_optimizer(each, config)
        for p in each.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    fresh = ToyModel()
    for (name, p), q, start in zip(
        model.named_parameters(), plain.parameters(), fresh.parameters(), strict=True
    ):
        wanted = 10 if name.startswith("network.3.") else 1
        torch.testing.assert_close(p - start, wanted * (q - start))


def test_a_parameter_is_named_once() -> None:
    class Twice(ToyModel):
        def rate_factors(self) -> dict[str, float]:
            return {"network.": 2.0, "network.3.": 10.0}

    with pytest.raises(ConfigError, match=r"'network\.3\.weight' has 2 learning rate factors"):
        rate_factor(Twice(), "network.3.weight")
    assert rate_factor(Twice(), "network.0.weight") == 2.0
    assert rate_factor(ToyModel(), "network.0.weight") == 1.0
