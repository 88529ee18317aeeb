"""One service per data folder."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from dropnorm_service.lock import FolderInUse, Removals, copying, exclusive


def test_a_second_service_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    held = exclusive(tmp_path / "data")
    second = exclusive(tmp_path / "data")
    with held, pytest.raises(FolderInUse, match=f"process {os.getpid()}"), second:
        pass


def test_the_folder_is_free_again_after_its_holder_was_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\n"
            "from dropnorm_service.lock import exclusive\n"
            "with exclusive(pathlib.Path(sys.argv[1])):\n"
            "    print('held', flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(FolderInUse), exclusive(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with exclusive(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_removals_that_overlap_are_in_nobodys_way_but_a_copys(tmp_path: Path) -> None:
    removals = Removals(tmp_path)
    copied = Event()

    def copy() -> None:
        with copying(tmp_path):
            copied.set()

    copier = Thread(target=copy)
    with removals.begin() as first:
        with removals.begin() as second:
            copier.start()
        assert first
        assert second
        assert not copied.wait(0.3), "the first is still under way"
    copier.join(timeout=30)
    assert copied.is_set()


def test_nothing_is_removed_within_a_copy(tmp_path: Path) -> None:
    removals = Removals(tmp_path)
    with copying(tmp_path), removals.begin() as first, removals.begin() as second:
        assert not first
        assert not second
    with removals.begin() as allowed:
        assert allowed
