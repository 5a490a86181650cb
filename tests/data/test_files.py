"""Files and folders appear whole or not at all: after an error, on a full disk, and after kill -9."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sensorimotor.data.errors import DataError
from sensorimotor.data.files import atomic_file, atomic_folder, check_replaceable, recover_folder, write_json


class StoppedError(Exception):
    pass


def fill_folder(target: Path, size: int, *, stop: bool = False) -> None:
    with atomic_folder(target) as temporary:
        (temporary / "new").write_bytes(bytes(size))
        if stop:
            raise StoppedError


def fill_file(target: Path, size: int, *, stop: bool = False) -> None:
    with atomic_file(target) as temporary:
        temporary.write_bytes(bytes(size))
        assert temporary.suffix == target.suffix  # some writers go by it
        if stop:
            raise StoppedError


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize("before", [True, False])
def test_an_error_inside_leaves_the_folder_as_it_was(tmp_path: Path, before: bool) -> None:
    target = tmp_path / "set"
    if before:
        target.mkdir()
        (target / "old").write_text("old")
    state = contents(tmp_path)
    with pytest.raises(StoppedError):
        fill_folder(target, 3, stop=True)
    assert contents(tmp_path) == state
    assert target.exists() == before


def test_a_finished_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "set"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / name).write_text(name)
            assert not (target / "sub" / name).exists()
    assert contents(tmp_path) == {"deep/set/sub/second": b"second"}


def test_a_new_folder_is_as_readable_as_any(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_inside_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(StoppedError):
        fill_file(target, 3, stop=True)
    assert contents(tmp_path) == {"file.txt": b"old"}
    fill_file(target, 3)
    assert contents(tmp_path) == {"file.txt": bytes(3)}


def test_a_write_that_finds_no_space_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        fill_folder(tmp_path / "set", 9)
    with pytest.raises(OSError, match="No space left"):
        fill_file(tmp_path / "file", 9)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_folder_and_no_litter(small_disk: Path) -> None:
    target = small_disk / "set"
    fill_folder(target, 50_000)
    state = contents(small_disk)
    with pytest.raises(OSError, match="No space left"):
        fill_folder(target, 400_000)
    with pytest.raises(OSError, match="No space left"):
        fill_file(small_disk / "file", 400_000)
    assert contents(small_disk) == state


KILLED = """
import sys, time
from pathlib import Path
from sensorimotor.data.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as temporary:
    (temporary / "new").write_text("half")
    print("inside", flush=True)
    time.sleep(60)
"""


def test_kill_9_in_the_middle_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with atomic_folder(target) as temporary:
        (temporary / "old").write_text("old")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "inside\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert contents(target) == {"old": b"old"}
    with atomic_folder(target) as temporary:  # what the dead writer left does not stand in the way
        (temporary / "next").write_text("next")
    assert contents(target) == {"next": b"next"}


def test_recovery_puts_back_only_what_is_missing(tmp_path: Path) -> None:
    target, aside = tmp_path / "set", tmp_path / ".set.previous"
    aside.mkdir()
    (aside / "old").write_text("old")
    recover_folder(target)
    assert contents(tmp_path) == {"set/old": b"old"}
    aside.mkdir()
    (aside / "older").write_text("older")
    recover_folder(target)
    assert contents(target) == {"old": b"old"}


def test_only_an_empty_folder_or_one_of_ours_may_be_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "absent", "mark")
    check_replaceable(tmp_path, "mark")
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(DataError, match="has no mark"):
        check_replaceable(tmp_path, "mark")
    (tmp_path / "mark").write_text("")
    check_replaceable(tmp_path, "mark")


def test_json_on_disk_is_strict(tmp_path: Path) -> None:
    values = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": (2, "x", True, None)}}
    write_json(tmp_path / "x.json", values)
    again = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert again == {"a": None, "b": [1.0, None], "c": {"d": [2, "x", True, None]}}
