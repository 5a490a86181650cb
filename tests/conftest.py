"""Fixtures shared by every room's tests, among them policies whose every answer is known in closed form."""

import contextlib
import importlib
import io
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorimotor.data.normalizer import Normalizer
from sensorimotor.data.spec import Field, Spec
from sensorimotor.policies.policy import GenerativePolicy
from sensorimotor.policies.sampling import FlowEuler

os.environ.setdefault("MUJOCO_GL", "egl")  # before anything imports mujoco


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; tests that need it skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SENSORIMOTOR_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set SENSORIMOTOR_SHARED to the folder that holds them")
    return folder


class StandIn(types.ModuleType):
    """A module of empty classes by any name."""

    __path__: list[str] = []  # noqa: RUF012 - read as a package's

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_ins() -> dict[str, types.ModuleType]:
    """What robomimic imports and networks over vectors never use: torchvision, and a decorator of six."""
    names = (
        "torchvision",
        "torchvision.models",
        "torchvision.transforms",
        "torchvision.transforms.functional",
    )
    found: dict[str, types.ModuleType] = {name: StandIn(name) for name in names}
    for name in names[1:]:
        package, _, leaf = name.rpartition(".")
        setattr(found[package], leaf, found[name])
    six: Any = types.ModuleType("six")
    six.add_metaclass = lambda meta: (
        lambda made: meta(
            made.__name__,
            made.__bases__,
            {k: v for k, v in vars(made).items() if k not in ("__dict__", "__weakref__")},
        )
    )
    return found | {"six": six}


def forget_since(before: dict[str, Any]) -> None:
    """Drop what was imported of the two packages, so that the next import sees them as they are installed."""
    for name in [
        n for n in sys.modules if n.split(".")[0] in ("robomimic", "torchvision") and n not in before
    ]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def algorithms() -> Iterator[None]:
    """robomimic's algorithms can be imported, imported beside stand-ins where torchvision does not fit torch."""
    reason = "robomimic is not installed: pip install --no-deps robomimic==0.3.0, then termcolor and tqdm"
    pytest.importorskip("robomimic", reason=reason, exc_type=ImportError)
    before = dict(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            importlib.import_module("robomimic.algo")
        except (ImportError, RuntimeError):
            forget_since(before)
            with pytest.MonkeyPatch.context() as patch:
                for name, module in stand_ins().items():
                    patch.setitem(sys.modules, name, module)
                importlib.import_module("robomimic.algo")
    yield
    forget_since(before)


@dataclass(frozen=True)
class Rows:
    """A condition that knows only what was observed."""

    values: Tensor

    def repeat(self, samples: int) -> "Rows":
        return Rows(self.values.repeat_interleave(samples, dim=0))


class Gaussian(GenerativePolicy):
    """The exact policy for independent actions that are N(mean, variance), whatever is observed.

    A variance of 0 is one point. Means are one number or (H, A), in physical units, of which the policy makes its own by
    `(a - offset) / scale`.
    """

    def __init__(
        self,
        mean: float | Tensor,
        variance: float,
        *,
        horizon: int = 1,
        width: int = 1,
        offset: float = 0.0,
        scale: float = 1.0,
        key: str = "state",
        observation_steps: int = 1,
        start: int = 0,
        control_hz: float = 10,
    ) -> None:
        spec = Spec(
            observation={key: Field(shape=(1,))},
            action=Field(shape=(width,)),
            control_hz=control_hz,
            horizon=horizon,
            observation_steps=observation_steps,
            start=start,
        )
        super().__init__(spec)
        self.normalizer = Normalizer({"action": (torch.full((width,), offset), torch.full((width,), scale))})
        self.sampler = FlowEuler()
        self.mean, self.variance = (mean - offset) / scale, variance / scale**2
        self.key, self.encoded, self.asked = key, 0, 0

    def encode(self, observation: Mapping[str, Tensor]) -> Rows:
        self.encoded += 1
        return Rows(observation[self.key])

    def _clean_and_noise(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += 1
        s = s.double() if s.ndim == 0 else s.double().view(-1, 1, 1)
        offset = x - (1 - s) * self.mean
        variance = (1 - s) ** 2 * self.variance + s**2
        return self.mean + (1 - s) * self.variance * offset / variance, s * offset / variance

    def predict_noise(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        return self._clean_and_noise(x, s)[1].to(x)

    def predict_velocity(self, x: Tensor, s: Tensor, condition: Any) -> Tensor:
        action, noise = self._clean_and_noise(x, s)
        return (noise - action).to(x)


@pytest.fixture(scope="session")
def gaussian() -> Callable[..., Gaussian]:
    return Gaussian
