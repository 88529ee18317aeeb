"""One service per data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderInUse(Exception):
    """Another service works in the data folder."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder, made when missing, until the block ends or the process does.

    Raises:
        FolderInUse: another process holds it; the message names that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderInUse(
                f"another service (process {file.read().strip() or 'unknown'}) uses the data folder {folder}; "
                "connect to that one, stop it, or give this one another --data-dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
