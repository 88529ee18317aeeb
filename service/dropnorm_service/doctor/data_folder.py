"""The data folder: whether it can be written, made durable, and has room."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.durable import no_room
from dropnorm_service.settings import Settings

_LEAST_FREE = 2 * 2**30
_TRIAL_BYTES = 2**20
_GIB = 2**30


def look(settings: Settings) -> Findings:
    """Write what nobody will see, and look at the room that is left."""
    folder = settings.data_dir
    if not folder.exists():
        folder = _nearest(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            yield failure(
                "data folder",
                f"{settings.data_dir} is not there and cannot be made in {folder}.",
                "Make it for the service's user, or choose another --data-dir.",
            )
            return
    try:
        _write_and_sync(folder)
    except OSError as error:
        yield failure("data folder", f"{folder} cannot be written: {error.strerror}.", _cure(error))
        return
    yield ok("data folder", f"{folder} can be written, and what is written can be synced.")
    if folder == settings.data_dir and folder.stat().st_mode & stat.S_IXOTH:
        yield warning(
            "data folder",
            f"Every user of this machine can enter {folder}, and read what is in it.",
            f"Unless that is meant: chmod 700 {folder}.",
        )
    yield from _room(folder)
    if holder := running(settings):
        yield ok("data folder", f"A service (process {holder}) runs on it now.")


def running(settings: Settings) -> str:
    """The process that holds the data folder, as its lock names it; empty: none does."""
    try:
        with (settings.data_dir / "lock").open(encoding="ascii", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except OSError:
        pass  # there is none, or it is not ours to read, which the other checks say
    return ""


def _nearest(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(each for each in folder.parents if each.is_dir())


def _write_and_sync(folder: Path) -> None:
    """Write to a file without a name, that leaves nothing behind however this ends."""
    try:
        handle = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        handle, name = tempfile.mkstemp(dir=folder)  # a file system without such files
        os.unlink(name)
    try:
        os.posix_fallocate(handle, 0, _TRIAL_BYTES)
        os.pwrite(handle, b"\0" * _TRIAL_BYTES, 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _cure(error: OSError) -> str:
    if no_room(error):
        return "Make room: delete jobs, exports and data sets that nobody needs, or give a larger disk."
    if error.errno == errno.EROFS:
        return "The file system is read-only: mount a writable volume there, or choose another --data-dir."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Let the service's user write there (it is user {os.getuid()}), or choose another --data-dir."
    return "See to the disk, or choose another --data-dir."


def _room(folder: Path) -> Findings:
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB are free on its disk."
    if usage.free < _LEAST_FREE:
        yield warning(
            "disk",
            text,
            "Make room before it is full: checkpoints, models and the store grow with every job.",
        )
    else:
        yield ok("disk", text)
