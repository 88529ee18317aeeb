"""One service per data folder."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from dropnorm_service.lock import (
    FolderInUse,
    FolderOfAnotherStore,
    FolderUnusable,
    Removals,
    bind,
    copying,
    exclusive,
)


def test_a_second_service_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    held = exclusive(tmp_path / "data")
    second = exclusive(tmp_path / "data")
    with held, pytest.raises(FolderInUse, match=f"process {os.getpid()}"), second:
        pass


def test_a_folder_is_made_for_its_owner_alone_and_one_that_is_there_stays(tmp_path: Path) -> None:
    made, there = tmp_path / "above" / "data", tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    before = os.umask(0o022)
    try:
        with exclusive(made), exclusive(there):
            assert [stat.S_IMODE(each.stat().st_mode) for each in (made, there)] == [0o700, 0o755]
    finally:
        os.umask(before)


def test_the_folder_is_free_again_after_its_holder_was_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        _python("with lock.exclusive(folder): print('held', flush=True); time.sleep(60)", tmp_path),
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


def test_a_folder_belongs_to_one_store(tmp_path: Path) -> None:
    assert not bind(tmp_path, "one")
    assert bind(tmp_path, "one")
    with pytest.raises(FolderOfAnotherStore, match="of another store"):
        bind(tmp_path, "another")


def test_a_kill_while_a_folder_is_bound_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    done = subprocess.run(
        _python(
            "sys.addaudithook(lambda name, _: name == 'os.rename' and os.kill(os.getpid(), 9))\n"
            "lock.bind(folder, 'one')",
            tmp_path,
        )
    )
    assert done.returncode == -signal.SIGKILL
    assert not bind(tmp_path, "another")
    (tmp_path / "store").write_text("")  # as versions left it that wrote it in its place
    assert not bind(tmp_path, "another")
    assert bind(tmp_path, "another")


def test_a_folder_that_cannot_be_bound_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(FolderUnusable, match=r"data_dir: .*cannot be made or written"):
        bind(tmp_path, "one")


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


def _python(code: str, folder: Path) -> list[str]:
    """A command that does something to a data folder, in a process of its own."""
    begin = "import os, pathlib, sys, time\nfrom dropnorm_service import lock\n"
    return [sys.executable, "-c", f"{begin}folder = pathlib.Path(sys.argv[1])\n{code}", str(folder)]
