"""Fixtures shared by every room's tests."""

import contextlib
import importlib
import io
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
