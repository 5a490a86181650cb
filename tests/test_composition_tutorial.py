"""The tutorial's code runs as it stands, in order, with smaller trainings and fewer episodes."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from sensorimotor.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "composition.md").read_text()
SMALLER = {  # what the page says, and what is run here
    'sm.make_task("push_t", worlds=50)': "sm.make_task(PushTConfig(max_steps=12), worlds=4)",
    "Seeds(selection=50, reporting=100)": "Seeds(selection=4, reporting=4)",
    "simplex_grid(2), seeds)": "simplex_grid(2, 2), seeds)",
    "episodes=50, first_seed": "episodes=4, first_seed",
    "import torch\n": "import torch\nfrom sensorimotor.sim.push_t import PushTConfig\n",
}
TINY = (
    "training.steps=150",  # enough for the probe: an untrained policy is refused
    "training.batch_size=64",
    "training.warmup_steps=10",
    "training.tensorboard=false",
    "training.threads=1",
    "evaluation.episodes=0",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: the runs that the page's first commands make, smaller."""
    place = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        small = ("policy.trunk.width=32", "policy.trunk.depth=1")
        for line in blocks("bash")[0].splitlines():
            words = line.split()[1:]
            own = small if "policy=" in line else ("critic.hidden=[16]",)
            assert main([*words, *own, *TINY]) == 0
    return place


def test_every_python_block_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\n".join(blocks("python"))
    for said, smaller in SMALLER.items():
        assert code.count(said) == 1, said
        code = code.replace(said, smaller)
    script = folder / "tutorial.py"
    script.write_text(code)
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    runpy.run_path(str(script))
    told = capsys.readouterr().out
    assert "composition, drawn by" in told
    assert "chosen (" in told
    assert "the best of 20 candidates" in told
    for picture in ("candidates.png", "weight_curve.png"):
        assert (folder / picture).stat().st_size > 10_000
    assert (folder / "runs" / "best" / "composition.json").exists()


def test_every_command_on_the_page_is_one(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(lines) == 5
    for line in lines:
        program, verb, *words = line.split()
        assert program == "sensorimotor"
        assert main([verb, *words, "--config"]) == 0, line


def test_every_picture_and_page_it_names_is_there() -> None:
    for name in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name
