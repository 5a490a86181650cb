"""The one training loop of the project.

It knows a model whose call is its loss, data by number, and a configuration. Everything random is a function of
(seed, update, slice), so the same run on one process or several, interrupted or not, makes the same updates.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.errors import ConfigError, TrainingError
from .checkpoint import keep_copy, read_checkpoint, save_checkpoint, sweep
from .config import TrainingConfig
from .ema import Ema
from .fault import dump_batch, fault_error
from .held_out import held_out_loss
from .metrics import Metrics
from .noise import Noise, borrowed_globals
from .offers import after_update, health
from .optimizer import make_optimizer
from .order import Order
from .progress import NoProgress, Progress, make_progress
from .run import make_folder, write_environment
from .schedule import learning_rate
from .signals import stop_on_signal
from .source import BatchSource, Movable, Trainable
from .state import State
from .workers import Workers, join_workers


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        steps: updates made since the start of the run, over all calls.
        seconds: time this call took, from its first update to its last checkpoint.
        stopped: whether it ended before the last update, because it was asked to or its time was up.
        loss: mean training loss of the newest row of metrics, or of all updates if there is no row yet.
        best_held_out: lowest held-out loss of the run, if one was measured.
        updates_per_second: of this call.
    """

    steps: int
    seconds: float
    stopped: bool
    loss: float
    best_held_out: float | None
    updates_per_second: float


def train(
    model: nn.Module,
    data: BatchSource,
    config: TrainingConfig,
    folder: Path | str,
    *,
    held_out: BatchSource | None = None,
    describe: Callable[[Path], None] | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a model, in this process or in as many as `torchrun` started.

    The first SIGTERM or SIGINT ends training after the present update with a checkpoint; a second acts at once.

    Args:
        model: its call, `model(batch, generator)`, returns the scalar training loss; see `offers` for what else it may say.
        data: what to train on, e.g. `data.windows.Windows`.
        config: how to train.
        folder: the run folder; gets `checkpoints/last`, `checkpoints/best`, `metrics.jsonl`, `environment.json`.
        held_out: data for the held-out loss, which decides what is `best`.
        describe: writes the files that make a checkpoint loadable (configuration, spec, normaliser) into a folder.
        resume: continue from `checkpoints/last`, exactly as if there had been no interruption.
        clock: seconds; only differences count.
        progress: where rows are shown; a bar or plain lines on standard error if not given.
        stop: asked after every update (with several processes, every `log_every`); True ends training.

    Raises:
        ConfigError: for a configuration that does not fit the model, the data or the run to resume.
        TrainingError: when a loss or gradient is not finite, or the folder holds another run.
        CheckpointError: when a checkpoint cannot be written, or `resume` finds none that is whole.
    """
    with contextlib.ExitStack() as stack:
        workers, network = stack.enter_context(join_workers(config.device, model))
        stack.enter_context(borrowed_globals(config.threads, workers.device))
        signalled = stack.enter_context(stop_on_signal())
        loop = _Loop(
            model, network, data, config, Path(folder), workers, held_out=held_out, describe=describe
        )
        loop.prepare(resume)
        if workers.main:
            write_environment(loop.folder, workers.device)
            loop.metrics = Metrics(loop.folder, step=loop.state.step, tensorboard=config.tensorboard)
            stack.callback(loop.metrics.close)
            loop.progress = progress or make_progress(config.steps)
            stack.callback(loop.progress.close)
        return loop.run(lambda: signalled() or (stop is not None and stop()), clock)


class _Loop:
    """One call of `train`."""

    metrics: Metrics | None = None  # process 0 only
    progress: Progress = NoProgress()

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        data: BatchSource,
        config: TrainingConfig,
        folder: Path,
        workers: Workers,
        *,
        held_out: BatchSource | None,
        describe: Callable[[Path], None] | None,
    ) -> None:
        self.network, self.data, self.config, self.folder = network, data, config, folder
        self.workers, self.held_out, self.describe = workers, held_out, describe
        self.forward: Trainable = network
        self.order = Order(len(data), config.batch_size, workers.count * config.accumulate, config.seed)
        if held_out is not None and len(held_out) == 0:
            raise ConfigError("held_out holds no windows; hold out more episodes, or give None")
        self.noise = Noise(workers.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.state = State(
            model=model,
            optimizer=make_optimizer(model, config),
            ema=None if config.ema is None else Ema(model, config.ema),
            identity={"seed": config.seed, "batch_size": config.batch_size, "windows": len(data)},
        )
        self.last, self.best = folder / "checkpoints" / "last", folder / "checkpoints" / "best"
        self.saved_step: int | None = None

    def prepare(self, resume: bool) -> None:
        """Load the last checkpoint, or make sure that there is none to overwrite."""
        if self.workers.main:
            make_folder(self.folder)
            sweep(self.last)
            sweep(self.best)
        self.workers.wait()
        if resume:
            self.state.read(read_checkpoint(self.last))
            self.saved_step = self.state.step
        elif self.last.exists():
            raise TrainingError(f"{self.folder} already holds a run; resume it, or choose another folder")
        self.workers.wait()
        self.network.train()

    def run(self, stop: Callable[[], bool], clock: Callable[[], float]) -> Outcome:
        """Make the updates that are left, and what is due after each."""
        config, state = self.config, self.state
        first, started, before = state.step, clock(), state.seconds
        row_step, row_time, stopped = first, started, False
        while state.step < config.steps and not stopped:
            self.update()
            now = clock()
            state.seconds = before + now - started
            if self.due(config.log_every):
                self.log((state.step - row_step) / max(now - row_time, 1e-9))
                row_step, row_time = state.step, now
            if self.held_out is not None and self.due(config.evaluate_every):
                self.evaluate(self.held_out)
            if self.due(config.checkpoint_every):
                self.save(self.last)
                if self.workers.main:
                    keep_copy(self.last, state.step, config.keep)
            out_of_time = config.minutes is not None and now - started > 60 * config.minutes
            stopped = state.step < config.steps and self.agree(out_of_time or stop())
        if self.saved_step != state.step:
            self.save(self.last)
        self.workers.wait()
        seconds = clock() - started
        return self.outcome(stopped, seconds, (state.step - first) / max(seconds, 1e-9))

    def update(self) -> None:
        """One update of the weights."""
        config, state = self.config, self.state
        loss = self.accumulate_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm or math.inf)
        state.meter.add(state.step, loss, norm)
        if self.workers.reads_at_once:
            self.check()
        rate = learning_rate(state.step, config)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        state.optimizer.step()
        state.optimizer.zero_grad()
        after_update(state.model)
        if state.ema is not None:
            state.ema.update()
        state.step += 1

    def accumulate_gradients(self) -> Tensor:
        """Add up the gradients of this process's microbatches; return their mean loss."""
        count, workers = self.config.accumulate, self.workers
        losses = []
        for i in range(count):
            piece = self.order.slice(self.state.step, i * workers.count + workers.rank)
            batch = self.to_device(self.data.batch(piece.index))
            self.noise.seed(piece)
            with contextlib.nullcontext() if i == count - 1 else workers.local(self.network):
                with self.autocast():
                    loss = self.forward(batch, self.noise.generator)
                if loss.ndim or not loss.requires_grad:
                    raise TrainingError(
                        f"the model's call must return a scalar loss with a gradient, got shape {tuple(loss.shape)}, "
                        f"requires_grad {loss.requires_grad}"
                    )
                (loss / count if count > 1 else loss).backward()
            losses.append(loss.detach())
        return losses[0] if count == 1 else torch.stack(losses).mean()

    def log(self, rate: float) -> None:
        """Write a row over the updates since the last one."""
        self.check()
        state = self.state
        state.loss, norm = state.meter.means()
        row = {
            "step": state.step,
            "epoch": self.order.epoch(state.step),
            "loss": state.loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate(state.step - 1, self.config),
            "updates_per_second": rate,
            "seconds": state.seconds,
        }
        self.show(row | health(state.model))

    def evaluate(self, held_out: BatchSource) -> None:
        """Measure the held-out loss of the averaged weights; keep the best."""
        self.check()
        config, state = self.config, self.state
        with state.averaged():
            loss = held_out_loss(
                state.model,
                held_out,
                self.workers,
                limit=config.evaluate_batches * config.batch_size,
                size=config.batch_size // self.order.slices,
                seed=config.seed,
                autocast=self.autocast,
            )
        self.show({"step": state.step, "held_out_loss": loss})
        if loss < (math.inf if state.best is None else state.best):  # False for NaN
            state.best = loss
            self.save(self.best)

    def save(self, target: Path) -> None:
        """Save a checkpoint, once it is certain that the weights are sound."""
        self.check()
        if self.workers.main:
            save_checkpoint(target, *([self.describe] if self.describe else []), self.state.write)
        if target == self.last:
            self.saved_step = self.state.step

    def check(self) -> None:
        """Read the losses that are waiting; stop if one is not finite."""
        fault = self.state.meter.read(self.workers.mean)
        if fault is None:
            return
        dump, problem = self.folder / "nan_batch", None
        if self.workers.main:
            slices = [self.order.slice(fault.step, i) for i in range(self.order.slices)]
            problem = dump_batch(dump, fault, slices, self.data)
        raise fault_error(fault, problem or dump, self.last, self.saved_step)

    def show(self, row: dict[str, float]) -> None:
        """Send a row to the metrics and to whoever watches."""
        if self.metrics is not None:
            self.metrics.write(row)
        self.progress.update(row)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many updates, and at the end, happens now."""
        return self.state.step % every == 0 or self.state.step == self.config.steps

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop; several ask each other only when a row is due."""
        if self.workers.count > 1 and not self.due(self.config.log_every):
            return False
        return self.workers.any(stop)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The precision of a forward pass."""
        if self.config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.workers.device.type, dtype=torch.bfloat16)

    def to_device(self, batch: Movable) -> Movable:
        """Copy a batch to the device, without waiting where it can be pinned."""
        if self.workers.device.type != "cpu" and hasattr(batch, "pin_memory"):
            batch = batch.pin_memory()  # pyright: ignore[reportAttributeAccessIssue]
        return batch.to(self.workers.device)

    def outcome(self, stopped: bool, seconds: float, rate: float) -> Outcome:
        """What to tell the caller."""
        state = self.state
        loss = state.meter.means()[0] if state.loss is None else state.loss
        return Outcome(
            steps=state.step,
            seconds=seconds,
            stopped=stopped,
            loss=loss,
            best_held_out=state.best,
            updates_per_second=rate,
        )
