"""From trained runs to a saved composition: searched, reported, opened again; and a critic on top."""

import json
from pathlib import Path

import pytest

import sensorimotor
from sensorimotor.__main__ import main
from sensorimotor.data.episodes import Episodes
from sensorimotor.data.files import write_json
from sensorimotor.data.formats import save_dataset


@pytest.fixture(scope="module")
def data(recordings: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations in a file."""
    path = tmp_path_factory.mktemp("data") / "demos.hdf5"
    save_dataset(recordings, path)
    return path


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory, tiny) -> tuple[Path, Path]:
    """Two small runs of one task; the other seed holds other episodes out, so the second takes the first one's scales."""
    folder = tmp_path_factory.mktemp("runs")
    folders = folder / "one", folder / "two"
    own = ((), ("seed=1", f"policy.normalizer.like={folders[0]}"))
    for run, words in zip(folders, own, strict=True):
        assert main(["train", f"data.path={data}", f"run={run}", *words, *tiny, "evaluation.episodes=0"]) == 0
    return folders


def members(runs: tuple[Path, Path]) -> str:
    return f"members=[{runs[0]},{runs[1]}]"


SMALL = ("selection=4", "episodes=3", "parts=2", "video=0", "worlds=4", "value=score")


def test_weights_are_searched_reported_and_saved(command, runs, tmp_path: Path) -> None:
    out = tmp_path / "made"
    done = command("compose", members(runs), f"out={out}", "search=grid", *SMALL)
    assert done.code == 0, done.err
    assert {
        "composition.json",
        "config.yaml",
        "trials.jsonl",
        "selection.json",
        "weight_curve.png",
        "evaluation.json",
    } <= {path.name for path in out.iterdir()}
    told = json.loads((out / "selection.json").read_text())
    assert told["members"] == ["one", "two"]
    assert told["spent"] == [12, 6] or told["spent"] == [12, 3]
    assert len(told["curve"]) == 3
    evaluation = json.loads((out / "evaluation.json").read_text())
    seeds = [row["seed"] for row in evaluation["policy"]["per_episode"]]
    assert seeds == [100_000, 100_001, 100_002]
    assert [row["policy"] for row in evaluation["baselines"]] == ["one", "two"]
    assert "difference" in done.out
    assert "the best of a selection looks about" in done.out
    assert done.out.rstrip().endswith(f"next: sensorimotor serve checkpoint={out}")
    chosen = told["choice"]["weights"]
    opened = sensorimotor.load(out)
    assert [float(w) for w in opened.weights.values] == [w for w in chosen if w > 0]  # pyright: ignore
    assert command("report", f"run={out}").code == 0
    page = (out / "report.html").read_text()
    assert "made: composition of 2 policies" in page
    assert "the best of a selection looks about" in page
    assert "<img alt='weight_curve' src='data:image/png;base64," in page


def test_a_search_goes_on_and_is_never_overwritten(command, runs, tmp_path: Path) -> None:
    words = (members(runs), f"out={tmp_path / 'made'}", "search=grid", *SMALL)
    assert command("compose", *words).code == 0
    again = command("compose", *words)
    assert again.code == 1
    assert "already holds a search; go on with resume=true" in again.err
    resumed = command("compose", *words, "resume=true")
    assert resumed.code == 0
    assert "score" not in resumed.err  # nothing is played again in the search
    other = command("compose", *words, "resume=true", "sampler=flow_euler")
    assert other.code == 1
    assert "holds episodes of another search: sampler was {" in other.err


def test_known_weights_need_no_search_and_eval_takes_the_folder(command, runs, tmp_path: Path) -> None:
    out = tmp_path / "made"
    done = command("compose", members(runs), "weights=[0.3,0.7]", "names=[left,right]", f"out={out}", *SMALL)
    assert done.code == 0, done.err
    assert not (out / "selection.json").exists()
    assert "0.3" in done.out
    assert "left" in done.out
    write_json(out / "evaluation.json", {})
    judged = command("eval", f"checkpoint={out}", "episodes=2", "video=0", "baselines=[]")
    assert judged.code == 0, judged.err
    assert "composition" in judged.out
    assert len(json.loads((out / "evaluation.json").read_text())["policy"]["per_episode"]) == 2


def test_members_are_probed_on_demonstrations(command, runs, data: Path, tmp_path: Path) -> None:
    own = (f"data.path={data}", "data.held_out=0.2")
    words = (members(runs), "data=push_t", *own, f"out={tmp_path / 'made'}", *SMALL)
    done = command("compose", *words, "weights=[0.5,0.5]")
    assert "probe" in done.out + done.err


@pytest.mark.parametrize("operator", ["or", "and"])
def test_or_and_and_are_made(command, runs, tmp_path: Path, operator: str) -> None:
    words = (members(runs), f"operator={operator}", "sampler=reverse_sde", "sampler.steps=10")
    done = command("compose", *words, f"out={tmp_path / 'made'}", *SMALL)
    assert done.code == 0, done.err
    assert f"superposition, {operator.upper()}" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("weights=[0.5,0.6]",), "weights must sum to 1, got 1.1"),
        (("weights=[1.0]",), "1 weights for 2 members"),
        (("operator=or", "sampler=ddim"), "only sampler=reverse_sde does"),
        (("names=[a]",), "1 names for 2 members"),
        (("names=[a,a]",), "two members are called 'a'"),
        (("search=grids",), "search must be"),
    ],
)
def test_what_does_not_fit_is_refused(command, runs, tmp_path: Path, words, said: str) -> None:
    done = command("compose", members(runs), f"out={tmp_path / 'made'}", *words)
    assert done.code in (1, 2)
    assert said in done.err
    assert not (tmp_path / "made" / "composition.json").exists()


def test_a_critic_picks_among_the_candidates_of_a_run(
    command, runs, data: Path, tmp_path: Path, tiny
) -> None:
    critic, out = tmp_path / "critic", tmp_path / "made"
    trained = command(
        "train",
        "critic=cal_ql",
        f"data.path={data}",
        f"run={critic}",
        *(word for word in tiny if word.startswith(("training.", "data.", "task."))),
    )
    assert trained.code == 0, trained.err
    done = command(
        "rerank", f"policy={runs[0]}", f"critic={critic}", "samples=3", "episodes=3", "video=0", f"out={out}"
    )
    assert done.code == 0, done.err
    assert "best of 3" in done.out
    assert "policy alone" in done.out
    assert "times the policy alone" in done.out
    assert "candidates differ by" in done.out or "reranking cannot help" in done.out
    assert "the best of 3 candidates" in str(sensorimotor.load(out))
    assert command("report", f"run={out}").code == 0
    assert "made: best of 3 candidates" in (out / "report.html").read_text()
    wrong = command("rerank", f"policy={runs[0]}", f"critic={runs[1]}")
    assert wrong.code == 1
    assert "holds a policy" in wrong.err
