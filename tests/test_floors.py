"""The house rule: a room imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "data": 0,
    "training": 1,
    "policies": 2,
    "rl": 3,
    "composition": 4,
    "sim": 5,
    "real": 5,
    "configs": 6,
    "commands": 6,
}
ROOMS = sorted(FLOORS)


def imported_rooms(file: Path) -> set[str]:
    """Rooms of this house that a module imports, wherever in the file the import stands."""
    package = file.relative_to(ROOT).parts[:-1]
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            modules = [node.module] if node.module else [alias.name for alias in node.names]
            names += [".".join((*base, module)) for module in modules]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module.removeprefix("sensorimotor."))
        elif isinstance(node, ast.Import):
            names += [alias.name.removeprefix("sensorimotor.") for alias in node.names]
    return {name.split(".")[0] for name in names} & set(FLOORS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_lower_floors(room: str) -> None:
    climbs = {
        f"{file.relative_to(ROOT)} imports {other}/"
        for file in (ROOT / room).rglob("*.py")
        for other in imported_rooms(file) - {room}
        if FLOORS[other] >= FLOORS[room] and FLOORS[room] < 6
    }
    assert not climbs


def test_every_room_with_code_has_a_floor() -> None:
    rooms = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("room", [room for room in ROOMS if FLOORS[room] < 6])
def test_hydra_and_argparse_stay_on_the_top_floor(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        text = file.read_text()
        assert "import hydra" not in text, file
        assert "from hydra" not in text, file
        assert "import argparse" not in text, file


def test_the_reader_of_imports_sees_relative_and_absolute_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "data" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "from ..sim.task import Task\nimport sensorimotor.policies.policy\ndef f():\n    from .. import training\n"
    )
    assert imported_rooms(file) == {"sim", "policies", "training"}
