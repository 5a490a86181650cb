"""The laws of the training loop within one process."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_training import ToyBatch, ToyData, ToyModel, stop_at, toy_config, toy_train

from sensorimotor.data.episodes import Episodes
from sensorimotor.data.errors import CheckpointError, ConfigError, TrainingError
from sensorimotor.data.spec import Field, Spec
from sensorimotor.data.windows import Batch, Windows
from sensorimotor.training.checkpoint import read_checkpoint
from sensorimotor.training.config import EmaConfig
from sensorimotor.training.ema import Ema
from sensorimotor.training.metrics import read_metrics
from sensorimotor.training.noise import Noise
from sensorimotor.training.optimizer import make_optimizer
from sensorimotor.training.order import Order
from sensorimotor.training.schedule import learning_rate
from sensorimotor.training.workers import Workers

TIMES = ("seconds", "updates_per_second")


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(folder)]


def tensors(folder: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    found = read_checkpoint(folder / "checkpoints" / checkpoint)
    names = [name for name in found.files if name.endswith(".safetensors")]
    return {f"{name}:{key}": value for name in names for key, value in found.tensors(name).items()}


def assert_same_run(one: Path, other: Path) -> None:
    for checkpoint in ("last", "best"):
        first, second = tensors(one, checkpoint), tensors(other, checkpoint)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert timeless(one) == timeless(other)


@pytest.mark.parametrize(
    ("threads", "accumulate", "stopped_at"),
    [(1, 1, 3), (1, 1, 7), (1, 4, 3), (1, 4, 7), (2, 1, 7), (2, 4, 3)],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(
    tmp_path: Path, threads: int, accumulate: int, stopped_at: int
) -> None:
    def model(seed: int = 0) -> ToyModel:
        return ToyModel(seed=seed, width=16 if threads == 1 else 6000)  # torch splits only large arrays

    config = toy_config(threads=threads, accumulate=accumulate, log_every=2)
    whole, _ = toy_train(tmp_path / "whole", config, model=model())
    halted, _ = toy_train(tmp_path / "parts", config, model=model(), stop=stop_at(stopped_at))
    resumed, _ = toy_train(tmp_path / "parts", config, resume=True, model=model(seed=99))
    assert (halted.stopped, halted.steps) == (True, stopped_at)
    assert (resumed.stopped, resumed.steps) == (False, 12)
    assert (resumed.loss, resumed.best_held_out) == (whole.loss, whole.best_held_out)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_crash_between_checkpoints_costs_time_but_changes_nothing(tmp_path: Path) -> None:
    class PowerCutError(Exception):
        pass

    def cut_at(step: int) -> Any:
        calls = count(1)

        def stop() -> bool:
            if next(calls) == step:
                raise PowerCutError
            return False

        return stop

    toy_train(tmp_path / "whole")
    with pytest.raises(PowerCutError):
        toy_train(tmp_path / "cut", stop=cut_at(9))  # rows of 6 and 9 and the evaluation of 8 are past it
    assert [row["step"] for row in read_metrics(tmp_path / "cut")][-1] == 9
    toy_train(tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_more_steps_can_be_added_to_a_finished_run(tmp_path: Path) -> None:
    config = toy_config(schedule="constant")
    toy_train(tmp_path / "once", config)
    toy_train(tmp_path / "twice", replace(config, steps=6))
    outcome, _ = toy_train(tmp_path / "twice", config, resume=True)
    assert outcome.steps == 12
    first, second = tensors(tmp_path / "once"), tensors(tmp_path / "twice")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resuming_a_finished_run_does_nothing(tmp_path: Path) -> None:
    finished, _ = toy_train(tmp_path)
    before = (tmp_path / "checkpoints" / "last" / "manifest.json").stat().st_mtime_ns
    again, _ = toy_train(tmp_path, resume=True)
    assert (again.steps, again.loss, again.stopped) == (12, finished.loss, False)
    assert (tmp_path / "checkpoints" / "last" / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loop_is_the_textbook_loop(tmp_path: Path, accumulate: int) -> None:
    config = toy_config(accumulate=accumulate, clip_norm=0.5, ema=EmaConfig(power=0.6))
    outcome, _ = toy_train(tmp_path, config)
    model, data, order = ToyModel(), ToyData(), Order(40, 8, accumulate, config.seed)
    optimizer, ema, noise = (
        make_optimizer(model, config),
        Ema(model, EmaConfig(power=0.6)),
        Noise(torch.device("cpu")),
    )
    losses = []
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        optimizer.zero_grad()
        total = 0.0
        for i in range(accumulate):
            piece = order.slice(step, i)
            noise.seed(piece)
            loss = model(data.batch(piece.index), noise.generator) / accumulate
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        ema.update()
        losses.append(total)
    found = read_checkpoint(tmp_path / "checkpoints" / "last")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.tensors("model.safetensors")[name], value)
    with ema.swapped():
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found.tensors("ema.safetensors")[name], value)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert [row["loss"] for row in rows] == pytest.approx(np.reshape(losses, (4, 3)).mean(1), rel=1e-5)
    assert [row["learning_rate"] for row in rows] == [learning_rate(k, config) for k in (2, 5, 8, 11)]
    assert outcome.loss == rows[-1]["loss"]


def test_accumulation_alone_changes_nothing_but_rounding(tmp_path: Path) -> None:
    for accumulate in (1, 2):
        model = ToyModel(dropout=0.0, noise=0.0)
        toy_train(tmp_path / str(accumulate), toy_config(accumulate=accumulate), model=model)
    one, two = tensors(tmp_path / "1"), tensors(tmp_path / "2")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-6)


def test_training_solves_a_linear_problem(tmp_path: Path) -> None:
    config = toy_config(steps=400, log_every=20, evaluate_every=100, checkpoint_every=400)
    outcome, _ = toy_train(tmp_path, config, model=ToyModel(dropout=0.0, noise=0.0, width=64))
    first = read_metrics(tmp_path)[0]["loss"]
    assert outcome.loss < 0.02 * first
    assert outcome.best_held_out is not None
    assert outcome.best_held_out < 0.1 * first


@pytest.mark.parametrize("ema", [None, EmaConfig()])
def test_best_is_the_lowest_held_out_loss_of_the_weights_in_use(
    tmp_path: Path, ema: EmaConfig | None
) -> None:
    config = toy_config(ema=ema, evaluate_every=1, learning_rate=0.3, evaluate_batches=100)
    outcome, _ = toy_train(tmp_path, config, model=ToyModel(noise=0.0))
    rows = [row for row in read_metrics(tmp_path) if "held_out_loss" in row]
    best = min(rows, key=lambda row: row["held_out_loss"])
    found = read_checkpoint(tmp_path / "checkpoints" / "best")
    assert found.json("training/state.json")["step"] == best["step"]
    assert outcome.best_held_out == best["held_out_loss"]
    assert found.weights == ("ema.safetensors" if ema else "model.safetensors")
    model, held_out = ToyModel(noise=0.0).eval(), ToyData(20, seed=1)
    model.load_state_dict(found.tensors(found.weights))
    with torch.no_grad():
        loss = model(ToyBatch(held_out.x, held_out.y), torch.Generator())
    assert float(loss) == pytest.approx(best["held_out_loss"], rel=1e-5)


def test_bf16_computes_in_half_and_keeps_full_weights(tmp_path: Path) -> None:
    seen = []

    class Watched(ToyModel):
        def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
            seen.append(self.network(batch.x).dtype)
            return super().forward(batch, generator)

    half, model = toy_train(tmp_path / "half", toy_config(precision="bf16"), model=Watched())
    full, _ = toy_train(tmp_path / "full", model=Watched())
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert half.loss == pytest.approx(full.loss, rel=0.1)
    assert half.loss != full.loss


def test_the_clipped_step_does_not_grow_with_the_loss(tmp_path: Path) -> None:
    class Steep(ToyModel):
        def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
            return 1e6 * super().forward(batch, generator)

    _, model = toy_train(tmp_path / "steep", toy_config(epsilon=1e3, clip_norm=1.0, steps=1), model=Steep())
    moved = torch.cat(
        [
            (a.detach() - b.detach()).flatten()
            for a, b in zip(model.parameters(), ToyModel().parameters(), strict=True)
        ]
    )
    assert float(moved.norm()) <= 1.01 * 1e-2 / 1e3  # learning rate x unit gradient / epsilon


def ticks(seconds: float) -> Iterator[float]:
    return count(0.0, seconds)


def test_a_spent_budget_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    time = ticks(20.0)  # every look at the clock is 20 s later
    outcome, _ = toy_train(tmp_path, toy_config(minutes=1.5), clock=lambda: next(time))
    assert (outcome.stopped, outcome.steps) == (True, 5)  # 100 s after the first look
    assert outcome.updates_per_second == pytest.approx(5 / 120)
    assert read_checkpoint(tmp_path / "checkpoints" / "last").json("training/state.json")["step"] == 5


def test_numbered_copies_are_kept(tmp_path: Path) -> None:
    toy_train(tmp_path, toy_config(checkpoint_every=3, keep=2))
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["best", "last", "step_000000009", "step_000000012"]
    assert read_checkpoint(tmp_path / "checkpoints" / names[2]).json("training/state.json")["step"] == 9


def test_describe_completes_every_checkpoint(tmp_path: Path) -> None:
    toy_train(tmp_path, describe=lambda folder: (folder / "spec.json").write_text("{}") and None)
    for name in ("last", "best"):
        assert "spec.json" in read_checkpoint(tmp_path / "checkpoints" / name).files


class TurnsBad(ToyData):
    """Sound until update `at`, whose second slice holds a NaN; made for batches of two slices of 4."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.bad = ToyData(bad=(int(Order(40, 8, 2, 0).slice(at, 1).index[0]),))
        self.sound_batches = 2 * at
        self.served = 0

    def batch(self, index: NDArray[np.int64]) -> ToyBatch:
        self.served += 1
        return super().batch(index) if self.served <= self.sound_batches else self.bad.batch(index)


@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_bad_number_stops_training_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, at_once: bool
) -> None:
    monkeypatch.setattr(Workers, "reads_at_once", at_once)
    config, model = toy_config(accumulate=2, checkpoint_every=3), ToyModel()
    with pytest.raises(TrainingError, match=f"update {at} is not finite: loss nan") as caught:
        toy_train(tmp_path, config, data=TurnsBad(at), model=model)
    info = json.loads((tmp_path / "nan_batch" / "info.json").read_text())
    assert info["step"] == at
    assert info["bad_inputs"] == ["slice_1/x"]
    assert torch.isnan(load_file(tmp_path / "nan_batch" / "batch.safetensors")["slice_1/x"]).any()
    assert all(torch.isfinite(p).all() for p in model.parameters()) == at_once
    if at:
        assert "of update 6 is intact: resume" in str(caught.value)
        resumed, _ = toy_train(tmp_path, config, resume=True)
        assert resumed.steps == 12
    else:
        assert not (tmp_path / "checkpoints" / "last").exists()


def test_reading_losses_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_train(tmp_path / "early")
    monkeypatch.setattr(Workers, "reads_at_once", False)
    toy_train(tmp_path / "late", stop=stop_at(7))
    toy_train(tmp_path / "late", resume=True)
    assert_same_run(tmp_path / "early", tmp_path / "late")


def test_an_infinite_gradient_of_a_finite_loss_stops_training(tmp_path: Path) -> None:
    class Kinked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.zeros(1))

        def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
            return self.x.sqrt().sum()

    with pytest.raises(TrainingError, match=r"loss 0\.0, gradient norm inf"):
        toy_train(tmp_path, model=Kinked())


@pytest.mark.parametrize("loss", ["vector", "detached"])
def test_a_loss_that_cannot_be_trained_on_is_refused(tmp_path: Path, loss: str) -> None:
    class Wrong(ToyModel):
        def forward(self, batch: ToyBatch, generator: torch.Generator) -> Tensor:
            scalar = super().forward(batch, generator)
            return scalar.detach() if loss == "detached" else scalar.expand(3)

    with pytest.raises(TrainingError, match="must return a scalar loss with a gradient"):
        toy_train(tmp_path, model=Wrong())


@pytest.mark.parametrize(
    ("change", "data", "word"),
    [
        ({"seed": 1}, 40, "seed 0, this run has 1"),
        ({"batch_size": 4}, 40, "batch_size 8, this run has 4"),
        ({}, 41, "windows 40, this run has 41"),
        ({"ema": None}, 40, "with ema, this run without"),
    ],
)
def test_another_run_is_not_resumed_by_mistake(
    tmp_path: Path, change: dict[str, Any], data: int, word: str
) -> None:
    toy_train(tmp_path)
    with pytest.raises(ConfigError, match=word):
        toy_train(tmp_path, toy_config(**change), data=ToyData(data), resume=True)


def test_a_run_is_not_overwritten_and_none_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        toy_train(tmp_path, resume=True)
    toy_train(tmp_path)
    before = timeless(tmp_path)
    with pytest.raises(TrainingError, match="already holds a run; resume it"):
        toy_train(tmp_path)
    assert timeless(tmp_path) == before


def test_an_empty_held_out_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        toy_train(tmp_path, held_out=ToyData(0))


def test_torch_is_given_back_as_it_was(tmp_path: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    toy_train(tmp_path, toy_config(threads=threads + 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_whoever_watches_sees_the_rows(tmp_path: Path) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.rows: list[Any] = []
            self.closed = False

        def update(self, row: Any) -> None:
            self.rows.append(dict(row))

        def close(self) -> None:
            self.closed = True

    watcher = Watcher()
    toy_train(tmp_path, progress=watcher)
    assert watcher.rows == read_metrics(tmp_path)
    assert watcher.closed
    assert all(math.isfinite(value) for row in watcher.rows for value in row.values())
    assert json.loads((tmp_path / "environment.json").read_text())["device"] == "cpu"


def test_windows_of_episodes_are_trained_on(tmp_path: Path) -> None:
    spec = Spec(observation={"state": Field(shape=(2,))}, action=Field(shape=(1,)), control_hz=10.0)
    rng = np.random.default_rng(0)
    state = rng.standard_normal((60, 2)).astype(np.float32)
    action = state[:, :1] - 2 * state[:, 1:]
    episodes = Episodes(spec=spec, observation={"state": state}, action=action, ends=np.array([20, 60]))
    windows = Windows(episodes, spec.chunked(observation_steps=1, horizon=2, execute=1))

    class Cloning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1, bias=False)

        def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
            return (self.layer(batch.observation["state"][:, 0]) - batch.action[:, 0]).square().mean()

    config = toy_config(steps=400, learning_rate=0.05, batch_size=60, evaluate_every=400, betas=(0.9, 0.99))
    _, model = toy_train(tmp_path, config, model=Cloning(), data=windows, held_out=windows)
    torch.testing.assert_close(
        model.get_parameter("layer.weight").detach(), torch.tensor([[1.0, -2.0]]), atol=1e-3, rtol=0
    )
