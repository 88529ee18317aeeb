"""Who works in a data folder, or with a file: one service at a time, and backups beside it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from dropnorm_service.durable import draft_of, sync


class FolderInUse(Exception):
    """Another service works in the data folder."""


class FolderOfAnotherStore(Exception):
    """What is in the data folder belongs to the jobs of another store."""


class FolderUnusable(Exception):
    """The data folder cannot be made or written."""


class Held(Exception):
    """Another process holds a file; the message is its number, or unknown."""


def hold(path: Path) -> TextIO:
    """Hold a file, made when missing, until it is closed or this process ends; it says which process that is.

    Raises:
        Held: another process holds it.
        OSError: it cannot be made or written.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "a+", encoding="ascii"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Held(file.read().strip() or "unknown") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        stack.pop_all()
    return file


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder, made for its owner alone when missing, until the block ends or the process does.

    Raises:
        FolderInUse: another process holds it; the message names that process.
        FolderUnusable: it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = hold(folder / "lock")
    except Held as holder:
        raise FolderInUse(
            f"another service (process {holder}) uses the data folder {folder}; "
            "connect to that one, stop it, or give this one another --data-dir"
        ) from None
    except OSError as error:
        raise _unusable(folder, error) from error
    with file:
        yield


def bind(folder: Path, identity: str) -> bool:
    """Make a data folder a store's own, unless it is; whether it was.

    Folders of jobs that a store does not know are removed, so a store must not be given the folder of another one.

    Raises:
        FolderOfAnotherStore: it is another store's.
        FolderUnusable: it cannot be read or written.
    """
    path = folder / "store"
    try:
        owner = path.read_text("ascii", "replace") if path.exists() else ""
        if not owner:  # a file without a word is what a full disk or a kill could leave
            _write(path, identity)
            return False
    except OSError as error:
        raise _unusable(folder, error) from error
    if owner != identity:
        raise FolderOfAnotherStore(
            f"the data folder {folder} has the models and checkpoints of another store than the one of "
            "database_url; give that one's database_url, or another --data-dir"
        )
    return True


def _write(path: Path, text: str) -> None:
    draft = draft_of(path)
    draft.write_text(text, "ascii")
    sync(draft)
    draft.rename(path)
    sync(path.parent)


def _unusable(folder: Path, error: OSError) -> FolderUnusable:
    return FolderUnusable(
        f"data_dir: the folder {folder} cannot be made or written ({error.strerror}); "
        "free some room if its disk is full, or choose another --data-dir"
    )


@contextmanager
def copying(folder: Path) -> Iterator[None]:
    """Within it no service removes anything from the data folder; what removes just now is waited for."""
    with _opened(folder) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


class Removals:
    """What one service removes from its data folder, kept apart from copies of it.

    Removals that overlap hold the lock together, from the beginning of the first to the end of the last: only
    somebody who copies is in their way, and not one in that of another. For use on one event loop.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: TextIO | None = None
        self._under_way = 0

    @contextmanager
    def begin(self) -> Iterator[bool]:
        """Whether files may be removed within the block: not while somebody copies the folder."""
        if self._lock is None:
            self._lock = self._locked()
        if self._lock is None:
            yield False
            return
        self._under_way += 1
        try:
            yield True
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._lock.close()
                self._lock = None

    def _locked(self) -> TextIO | None:
        file = _opened(self._folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file


def _opened(folder: Path) -> TextIO:
    return open(folder / "backup.lock", "a", encoding="ascii")
