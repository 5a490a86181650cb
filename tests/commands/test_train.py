"""From recordings to a page: train, evaluate, report, and what can go wrong on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import sensorimotor


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def test_a_run_folder_holds_everything_and_the_next_command_is_said(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    done = command("train", f"data.path={dataset}", f"run={run}", "evaluation.baselines=[]", *tiny)
    assert done.code == 0, done.err
    names = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "evaluation.json",
        "outcome.json",
        "checkpoints",
    }
    assert names <= {path.name for path in run.iterdir()}
    assert done.out.rstrip().endswith(f"next: sensorimotor report run={run}")
    assert "flow mlp" in done.out
    assert "\x1b" not in done.out + done.err
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["data"] == {"episodes": 5, "steps": 100, "recorded": 6, "held_out": 1}


def test_mirror_images_are_learned_from_and_never_held_out(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    words = (f"data.path={dataset}", f"run={run}", *tiny, "data.mirror=true", "evaluation.episodes=0")
    assert command("train", *words).code == 0
    outcome = json.loads((run / "outcome.json").read_text())
    assert outcome["data"] == {"episodes": 10, "steps": 200, "recorded": 6, "held_out": 1}


def test_the_stored_configuration_is_the_whole_of_it(trained: Path, dataset: Path) -> None:
    stored = yaml.safe_load((trained / "config.yaml").read_text())
    assert stored["data"]["path"] == str(dataset)
    assert stored["policy"]["trunk"] == {"kind": "MLPConfig", "width": 16, "depth": 1} | {
        key: stored["policy"]["trunk"][key]
        for key in stored["policy"]["trunk"]
        if key not in ("kind", "width", "depth")
    }
    assert stored["training"]["steps"] == 4


def test_train_eval_report(command, trained: Path) -> None:
    done = command(
        "eval", f"checkpoint={trained}", "episodes=2", "video=0", "baselines=hold_still", "seed=100003"
    )
    assert done.code == 0, done.err
    written = json.loads((trained / "evaluation.json").read_text())
    assert [episode["seed"] for episode in written["policy"]["per_episode"]] == [100_003, 100_004]
    assert written["task"]["max_steps"] == 5  # the task of the run, not the default one
    assert [baseline["policy"] for baseline in written["baselines"]] == ["hold still"]
    assert done.out.rstrip().endswith(f"next: sensorimotor report run={trained}")
    assert command("report", f"run={trained}").code == 0
    page = (trained / "report.html").read_text()
    assert "hold still" in page
    assert "<svg" in page


def test_evaluating_again_gives_the_same_numbers(command, trained: Path) -> None:
    scores = []
    for _ in range(2):
        assert command("eval", f"checkpoint={trained}", "episodes=2", "video=0").code == 0
        written = json.loads((trained / "evaluation.json").read_text())
        scores.append(
            [e["score"] for r in (written["policy"], *written["baselines"]) for e in r["per_episode"]]
        )
    assert scores[0] == scores[1]


def test_the_baselines_of_the_run_are_evaluated_again_unless_others_are_named(command, trained: Path) -> None:
    assert command("eval", f"checkpoint={trained}", "episodes=1", "video=0").code == 0
    written = json.loads((trained / "evaluation.json").read_text())
    assert [baseline["policy"] for baseline in written["baselines"]] == ["hold still", "random actions"]
    done = command("eval", f"checkpoint={trained}", "episodes=1", "video=0", "baselines=regressor")
    assert done.code == 1
    assert "evaluation.baselines=regressor" in done.err


def test_a_checkpoint_can_be_judged_under_another_sampler_task_and_folder(
    command, trained: Path, tmp_path
) -> None:
    out = tmp_path / "elsewhere"
    before = (trained / "evaluation.json").read_bytes()
    done = command(
        "eval",
        f"checkpoint={trained / 'checkpoints' / 'last'}",
        f"out={out}",
        "episodes=1",
        "video=0",
        "sampler=flow_heun",
        "sampler.steps=1",
        "task=push_t",
        "task.max_steps=3",
        "execution=temporal_ensemble",
    )
    assert done.code == 0, done.err
    written = json.loads((out / "evaluation.json").read_text())
    assert written["sampler"]["kind"] == "FlowHeun"
    assert (written["task"]["max_steps"], written["execution"]["kind"], written["execute"]) == (
        3,
        "TemporalEnsembleConfig",
        1,
    )
    assert (trained / "evaluation.json").read_bytes() == before


def test_a_checkpoint_can_be_judged_under_a_delay(command, trained: Path, tmp_path) -> None:
    words = (
        f"checkpoint={trained}",
        f"out={tmp_path / 'late'}",
        "episodes=1",
        "video=0",
        "task=push_t",
        "task.max_steps=8",
        "execution=real_time_chunking",
        "execution.every=3",
        "execution.guidance.jacobian=identity",
    )
    assert command("eval", *words, "delay=2").code == 0
    written = json.loads((tmp_path / "late" / "evaluation.json").read_text())
    assert (written["delay"], written["execute"], written["execution"]["kind"]) == (2, 3, "RealTimeChunking")
    assert written["execution"]["guidance"]["jacobian"] == "identity"
    done = command("eval", *words, "delay=4")
    assert done.code != 0
    assert "needed is 4 <= 3" in done.err
    done = command("eval", f"checkpoint={trained}", "delay=4")
    assert "delay 4 needs an execution that knows of it" in done.err


def test_baselines_that_learn_are_fitted_on_the_training_episodes(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    words = (f"data.path={dataset}", f"run={run}", "evaluation.baselines=nearest,regressor", *tiny)
    assert command("train", *words).code == 0
    written = json.loads((run / "evaluation.json").read_text())
    assert [baseline["policy"] for baseline in written["baselines"]] == ["nearest neighbour", "regressor"]
    assert type(sensorimotor.load(run / "baselines" / "regressor")).__name__ == "RegressionPolicy"
    assert (
        command("eval", f"checkpoint={run}", "episodes=1", "video=0", "baselines=nearest,regressor").code == 0
    )


def test_a_policy_without_training_is_saved_and_judged(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    keep = [word for word in tiny if not word.startswith("policy.")]
    done = command(
        "train", "policy=nearest", f"data.path={dataset}", f"run={run}", "evaluation.baselines=nearest", *keep
    )
    assert done.code == 0, done.err
    assert json.loads((run / "evaluation.json").read_text())["baselines"] == []  # not compared with itself
    assert len(sensorimotor.load(run).get_buffer("chunks")) == 100


def test_data_without_a_task_is_trained_and_not_judged(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    keep = [word for word in tiny if not word.startswith("task.")]
    assert command("train", "experiment=recordings", f"data.path={dataset}", f"run={run}", *keep).code == 0
    assert not (run / "evaluation.json").exists()
    assert command("eval", f"checkpoint={run}").code == 1


def test_a_run_is_not_overwritten(command, trained: Path, dataset: Path, tiny) -> None:
    before = weights(trained)
    done = command("train", f"data.path={dataset}", f"run={trained}", *tiny, "seed=1")
    assert done.code == 1
    assert "resume=true" in done.err
    assert all(torch.equal(before[key], after) for key, after in weights(trained).items())


def test_resuming_needs_only_the_run_and_equals_training_in_one_go(command, dataset, tmp_path, tiny) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = (f"data.path={dataset}", "evaluation.episodes=0", "training.schedule=constant", *tiny[:-2])
    assert command("train", f"run={whole}", *common).code == 0
    assert command("train", f"run={parts}", *common, "training.steps=2").code == 0
    done = command("train", f"run={parts}", "resume=true", "training.steps=4")
    assert done.code == 0, done.err
    assert all(torch.equal(a, weights(parts)[key]) for key, a in weights(whole).items())


def test_resuming_what_was_never_begun_begins_it(command, dataset, tmp_path, tiny) -> None:
    run = tmp_path / "run"
    words = (f"data.path={dataset}", f"run={run}", "resume=true", "evaluation.episodes=0", *tiny[:-2])
    assert command("train", *words).code == 0
    before = weights(run)
    assert command("train", *words).code == 0  # finished already: nothing to do
    assert all(torch.equal(before[key], after) for key, after in weights(run).items())


@pytest.mark.parametrize(
    ("word", "told"),
    [("policy=diffusion", "another policy"), ("experiment=recordings", "another experiment")],
)
def test_resuming_as_something_else_is_refused(command, trained: Path, word: str, told: str) -> None:
    done = command("train", f"run={trained}", "resume=true", word, "data.path=x")
    assert done.code == 2
    assert told in done.err


def test_resume_without_a_run_is_wrong_usage(command) -> None:
    done = command("train", "resume=true")
    assert done.code == 2
    assert "run=" in done.err


def test_actions_that_are_not_finite_stop_it_before_anything_is_trained(
    command, spoilt, tmp_path, tiny
) -> None:
    run = tmp_path / "run"
    done = command("train", f"data.path={spoilt}", f"run={run}", *tiny)
    assert done.code == 1
    assert "action is not finite at episode 2, step 5" in done.err
    assert done.err.count("\n") == 1
    assert not run.exists()


def test_a_dataset_that_does_not_fit_the_task_stops_it_before_training(command, tmp_path, tiny) -> None:
    path = tmp_path / "other.npz"
    zeros = np.zeros((40, 3), dtype=np.float32)
    np.savez(path, state=zeros, action=zeros, episode_ends=[20, 40])
    run = tmp_path / "run"
    done = command("train", f"data.path={path}", "data.control_hz=10", f"run={run}", *tiny)
    assert done.code == 1
    assert "state" in done.err
    assert not (run / "checkpoints").exists()


def test_the_bundled_demonstrations_belong_to_their_task(command) -> None:
    done = command("train", "data.path=bundled", "experiment=push_t_human")
    assert done.code == 1
    assert "task=push_t" in done.err


def test_a_signal_saves_and_the_run_can_go_on(dataset, tmp_path, tiny, command) -> None:
    run = tmp_path / "run"
    words = [
        f"data.path={dataset}",
        f"run={run}",
        "evaluation.episodes=0",
        *tiny[:-2],
        "training.steps=1000000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "sensorimotor", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").stat().st_size == 0:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"go on: sensorimotor train run={run} resume=true" in out
    state = json.loads((run / "checkpoints" / "last" / "training" / "state.json").read_text())
    steps = state["step"]
    assert command("train", f"run={run}", "resume=true", f"training.steps={steps + 2}").code == 0


def test_push_t_is_learned_from_pixels_that_the_data_does_not_hold(
    command, dataset, tmp_path, tiny, graphics
) -> None:
    run = tmp_path / "run"
    small = ("task.image_size=32", "policy.vision.encoder.width=4", "evaluation.baselines=nearest,regressor")
    words = ("train", "experiment=push_t_pixels", f"data.path={dataset}", f"run={run}", *tiny, *small)
    done = command(*words, "data.mirror=true")
    assert done.code == 0, done.err
    assert "the data holds no camera frames; drawing 120 of 32 px into" in done.err
    frames = sensorimotor.load_dataset(run / "frames.hdf5", lazy_images=True)
    assert frames.observation["image.top"].shape == (120, 32, 32, 3)
    assert sensorimotor.load(run).spec.observation["image.top"].shape == (32, 32, 3)
    written = json.loads((run / "evaluation.json").read_text())
    assert [baseline["policy"] for baseline in written["baselines"]] == ["nearest neighbour", "regressor"]
    again = command("train", f"run={run}", "resume=true", "training.steps=5")
    assert again.code == 0, again.err
    assert "drawing" not in again.err  # the run's own file is used
