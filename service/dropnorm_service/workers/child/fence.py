"""One attempt at a time in a job's folder, whatever is left of servers that were killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_POLL_SECONDS = 0.02
# Longer than an attempt whose server is gone is let live by its fork server.
_PATIENCE = 10.0
_PROCESSES = Path("/proc")


@contextmanager
def sole_attempt(folder: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the job's folder.

    The attempt before this one may still write its last checkpoint there, when its server was killed
    or took it for dead. The lock ends with the process that has it. One that does not end, as it is stopped or in a
    step of minutes, is killed: no server knows of it any more, for a server launches an attempt only when it has seen
    the end of the one before.

    Args:
        folder: made when it is missing.
        while_waiting: called again and again; what it raises ends the wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patience = time.monotonic() + _PATIENCE
    with (folder / "lock").open("a+", encoding="ascii") as file:
        while not _locked(file):
            while_waiting()
            if time.monotonic() > patience:
                _shoot_holder(file)
                patience = time.monotonic() + _PATIENCE
            time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shoot_holder(file: TextIO) -> None:
    """Kill the process that the lock file names, if it has that file open: its number may mean another by now."""
    file.seek(0)
    pid = file.read().strip()
    if not pid.isdigit():
        return
    lock = os.fstat(file.fileno())
    with contextlib.suppress(OSError):  # it has ended meanwhile, or is not ours to see
        for descriptor in (_PROCESSES / pid / "fd").iterdir():
            opened = descriptor.stat()
            if (opened.st_dev, opened.st_ino) == (lock.st_dev, lock.st_ino):
                os.kill(int(pid), signal.SIGKILL)
                return
