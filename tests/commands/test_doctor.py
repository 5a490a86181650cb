"""The doctor's checks on machines that are not this one."""

from pathlib import Path

import pytest

from sensorimotor.commands import checks, doctor

REQUIRED = [
    "torch>=2.4",
    "mujoco!=4.0.0,>=3.3.3",
    'zarr>=3; extra == "formats"',
    'pyarrow>=15; extra == "formats"',
    'ruff; extra == "dev"',
]


def machine(**versions: str):
    """A stand-in for the installed packages."""
    return lambda name: versions.get(name.replace("-", "_"))


def test_core_packages_are_present_absent_or_out_of_range() -> None:
    def status(**versions: str) -> list[str]:
        return [finding.status for finding in checks.check_packages(REQUIRED, machine(**versions))]

    assert status(torch="2.13.0+cpu", mujoco="3.7.0") == ["ok", "ok"]
    assert status(torch="2.3", mujoco="4.0.0") == ["fail", "fail"]
    assert status(mujoco="3.7.0") == ["fail", "ok"]


def test_a_failed_package_comes_with_the_command_that_repairs_it() -> None:
    (finding, _) = checks.check_packages(REQUIRED, machine(mujoco="3.7.0"))
    assert finding.advice == "pip install 'torch>=2.4'"


def test_an_incomplete_extra_is_a_note_with_its_command() -> None:
    (finding,) = checks.check_extras(REQUIRED, machine(zarr="3.1.6"))
    assert (finding.what, finding.status) == ("extra formats", "note")
    assert finding.found == "without pyarrow"
    assert finding.advice == "pip install 'sensorimotor[formats]'"
    (finding,) = checks.check_extras(REQUIRED, machine(zarr="3.1.6", pyarrow="26"))
    assert finding.status == "ok"


@pytest.mark.parametrize(
    ("versions", "count"),
    [
        ({"mujoco": "3.7.0"}, 0),
        ({"mujoco": "4.0.0"}, 1),
        ({"mujoco": "3.8.1", "robosuite": "1.5.2"}, 1),
        ({"mujoco": "3.7.0", "robosuite": "1.5.2"}, 0),
        ({"gym_pusht": "0.1.8", "pymunk": "7.0.0"}, 1),
        ({"gym_pusht": "0.1.8", "pymunk": "6.11.1"}, 0),
        ({"gym_pusht": "0.1.8"}, 0),
    ],
)
def test_versions_known_to_clash_are_named(versions: dict[str, str], count: int) -> None:
    found = checks.check_clashes(installed=machine(**versions))
    assert [finding.status for finding in found] == ["warn"] * count


@pytest.mark.parametrize(
    ("working", "current", "status", "advice"),
    [
        ({None}, None, "ok", ""),
        ({"egl"}, "egl", "ok", ""),
        ({"egl"}, None, "warn", "export MUJOCO_GL=egl"),
        ({"osmesa"}, "egl", "warn", "export MUJOCO_GL=osmesa"),
        (set(), "egl", "fail", "apt-get install libegl1"),
    ],
)
def test_rendering_works_or_the_way_to_make_it_work_is_said(
    working, current, status: str, advice: str
) -> None:
    finding = checks.check_rendering(
        lambda backend: "" if backend in working else "no display", {"MUJOCO_GL": current} if current else {}
    )
    assert finding.status == status
    assert advice in finding.advice


def test_a_backend_that_does_not_exist_is_an_answer_and_no_crash() -> None:
    assert "MUJOCO_GL" in checks.render_frame("no_such_library")


def test_old_pythons_fail() -> None:
    assert checks.check_python((3, 10, 9)).status == "fail"
    assert checks.check_python((3, 11, 0)).status == "ok"


def test_a_folder_that_does_not_exist_yet_is_judged_by_where_it_will_stand(tmp_path: Path) -> None:
    disk, writing = checks.check_folder(tmp_path / "a" / "b", needed_gib=0.0)
    assert (disk.status, writing.status) == ("ok", "ok")
    assert checks.check_folder(tmp_path, needed_gib=1e9)[0].status == "warn"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("warn", 0), ("fail", 1)])
def test_only_what_must_be_repaired_fails_the_command(command, monkeypatch, status, code: int) -> None:
    finding = checks.Finding("rendering", status, "found [this]", "pip install 'sensorimotor[pusht]'")
    monkeypatch.setattr(doctor, "examine", lambda folder: [finding])
    done = command("doctor")
    assert done.code == code
    assert "found [this]" in done.out
    assert "'sensorimotor[pusht]'" in done.out
