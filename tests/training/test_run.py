"""The run folder says what was run."""

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml

from sensorimotor.data.errors import TrainingError
from sensorimotor.training.run import git_revision, make_folder, write_config, write_environment


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_configuration_reads_back(tmp_path: Path) -> None:
    config = {"kind": "Run", "steps": 3, "betas": [0.9, 0.99], "nested": {"ema": None, "name": "on: off"}}
    write_config(tmp_path, config)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config


def test_the_environment_names_versions_and_machine(tmp_path: Path) -> None:
    write_environment(tmp_path, torch.device("cpu"))
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["device"] == "cpu"
    assert found["gpu"] is None
    assert found["threads"] == torch.get_num_threads()


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cannot make the run folder .*file.run.*choose another"):
        make_folder(tmp_path / "file" / "run")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_says_whether_files_were_changed(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_revision(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(tmp_path) == commit
    (tmp_path / "untracked").write_text("1")
    assert git_revision(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == commit + "+changes"
