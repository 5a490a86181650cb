"""Every example runs, from start to end, on small numbers."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_train_and_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_and_evaluate.py", "5", "2", str(tmp_path / "run")])
    runpy.run_path(str(EXAMPLES / "train_and_evaluate.py"), run_name="__main__")
    assert "success" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoints" / "last" / "manifest.json").exists()
