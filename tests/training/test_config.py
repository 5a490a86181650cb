"""A configuration is checked at birth and survives a file."""

from typing import Any

import pytest

from sensorimotor.data.errors import ConfigError
from sensorimotor.data.schema import from_mapping, to_mapping
from sensorimotor.training.config import EmaConfig, TrainingConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("seed", -1),
        ("learning_rate", float("nan")),
        ("learning_rate", 0.0),
        ("betas", (0.9, 1.0)),
        ("weight_decay", -1e-3),
        ("warmup_steps", -1),
        ("schedule", "cosin"),
        ("minimum_ratio", 1.5),
        ("clip_norm", 0.0),
        ("accumulate", 0),
        ("precision", "fp16"),
        ("log_every", 0),
        ("evaluate_every", 0),
        ("checkpoint_every", 0),
        ("keep", -1),
        ("threads", 0),
        ("minutes", float("inf")),
        ("device", "tpu"),
    ],
)
def test_an_impossible_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        TrainingConfig(**{name: value})
    shown = value if isinstance(value, str) else repr(value)
    assert shown in str(caught.value)


def test_microbatches_must_be_equal() -> None:
    with pytest.raises(ConfigError, match=r"10 and 4"):
        TrainingConfig(batch_size=10, accumulate=4)


@pytest.mark.parametrize("values", [{"power": 0.0}, {"max_decay": 1.0}, {"power": float("nan")}])
def test_an_impossible_average_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        EmaConfig(**values)


@pytest.mark.parametrize("ema", [None, EmaConfig(power=0.6)])
def test_a_configuration_survives_a_file(ema: EmaConfig | None) -> None:
    config = TrainingConfig(steps=7, betas=(0.9, 0.99), ema=ema, clip_norm=None, minutes=2.0)
    assert from_mapping(TrainingConfig, to_mapping(config)) == config
