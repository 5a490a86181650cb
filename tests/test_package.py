"""The package as a user meets it: the wheel, its modules, its import time budget."""

import ast
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "training", "policies", "real", "sim", "configs", "commands")


def test_the_wheel_holds_every_module_and_imports(tmp_path: Path) -> None:
    """Build, install into an empty environment that borrows this one's dependencies, import everything."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            ROOT,
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("sensorimotor-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    modules = sorted(
        ".".join(("sensorimotor", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    )
    script = (
        "import importlib, sys, sensorimotor\n"
        f"assert sensorimotor.__file__.startswith({str(site)!r}), sensorimotor.__file__\n"
        f"sys.path += {borrowed!r}\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from importlib.resources import files\n"
        "assets = {p.name for p in files('sensorimotor.sim').joinpath('assets').iterdir()}\n"
        "assert {'push_t.xml', 'push_t_demos.hdf5'} <= assets, assets\n"
    )
    done = subprocess.run(
        [environment / "bin" / "python", "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "diffusers", "mujoco", "matplotlib", "h5py", "accelerate", "msgpack", "websockets"}
    script = f"import sys, sensorimotor; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_needs_an_extra_to_be_imported() -> None:
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                assert not {name.split(".")[0] for name in names} & {"msgpack", "websockets"}, file


def test_an_unknown_attribute_names_what_there_is() -> None:
    import sensorimotor

    with pytest.raises(AttributeError, match="evaluate"):
        _ = sensorimotor.evaluat


def test_every_public_name_resolves() -> None:
    import sensorimotor

    for name in sensorimotor.__all__:
        assert getattr(sensorimotor, name) is not None
