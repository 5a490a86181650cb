"""The command as a whole: exit codes, messages, help, start-up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sensorimotor.commands.help import VERBS


def test_help_is_no_failure_and_no_words_are_wrong_usage(command) -> None:
    assert command("--help").code == 0
    assert command("help").code == 0
    assert command().code == 2
    assert all(verb in command("--help").out for verb in VERBS)


def test_the_version_is_that_of_the_package(command) -> None:
    import sensorimotor

    assert command("--version").out.strip() == f"sensorimotor {sensorimotor.__version__}"


@pytest.mark.parametrize(("typo", "meant"), [("tran", "train"), ("evla", "eval"), ("inspct", "inspect")])
def test_an_unknown_verb_names_the_nearest(command, typo: str, meant: str) -> None:
    done = command(typo)
    assert done.code == 2
    assert f"did you mean '{meant}'" in done.err
    assert done.out == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples_of_itself(command, verb: str) -> None:
    for words in ((verb, "--help"), ("help", verb), (verb, "seed=3", "-h")):
        done = command(*words)
        assert done.code == 0
        assert done.out.count(f"  sensorimotor {verb}") >= 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("train", "policy=flwo"), "'flow'"),
        (("train", "experiment=push_tt"), "'push_t'"),
        (("train", "trainig.steps=3"), "'training.steps'"),
        (("train", "steps=3"), "'training.steps'"),
        (("train", "policy.trunk=mpl"), "'mlp'"),
        (("train", "policy.sampler=flow_eular"), "'flow_euler'"),
        (("eval", "chekpoint=x"), "'checkpoint'"),
        (("eval", "checkpoint=x", "task=push"), "'push_t'"),
        (("convert", "sorce=a", "target=b"), "'source'"),
        (("inspect", "demos.hdf5"), "path=demos.hdf5"),
        (("report", "rnu=a"), "'run'"),
    ],
)
def test_a_typo_is_wrong_usage_and_the_nearest_valid_word_is_named(command, words, meant: str) -> None:
    done = command(*words)
    assert done.code == 2
    assert meant in done.err
    assert f"sensorimotor {words[0]} --help" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("training.steps=many", "training.steps must be a whole number, got 'many'"),
        ("training.steps=0", "training: steps must be at least 1, got 0"),
        ("training.schedule=linear", "one of cosine, constant, got 'linear'"),
        ("resume=perhaps", "resume must be true or false, got 'perhaps'"),
        ("evaluation.baselines=[best]", "got 'best'"),
        ("policy.chunk.execute=99", "policy.chunk: executing 99"),
    ],
)
def test_a_bad_value_names_the_key_the_value_and_what_is_allowed(command, word: str, told: str) -> None:
    done = command("train", word)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    "word", ["_target_=os.system", "policy._target_=os.system", "+policy._target_=os.system"]
)
def test_a_target_is_never_taken(command, word: str) -> None:
    assert command("train", word).code == 2


def test_what_is_required_is_said(command) -> None:
    done = command("eval")
    assert done.code == 2
    assert "checkpoint is required" in done.err


def test_a_failure_is_one_line_unless_debugging(command, tmp_path: Path, monkeypatch) -> None:
    word = f"path={tmp_path / 'absent.hdf5'}"
    done = command("inspect", word)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    monkeypatch.setenv("SENSORIMOTOR_DEBUG", "1")
    with pytest.raises(ValueError, match="absent"):
        command("inspect", word)


def test_config_shows_every_key_and_runs_nothing(command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("train", "--config", "policy=diffusion", "training.steps=7")
    assert done.code == 0
    assert "steps: 7" in done.out
    assert "kind: DiffusionConfig" in done.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("tran",)])
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    script = (
        "import sys; from sensorimotor.__main__ import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'mujoco', 'hydra', 'rich', 'matplotlib', 'numpy'} & set(sys.modules); "
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_module_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "sensorimotor", "evl"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'eval'" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_reason_for_a_traceback(unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sensorimotor", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
