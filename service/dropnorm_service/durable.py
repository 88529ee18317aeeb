"""Bytes on the disk: made to last, and known by their checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

_BLOCK = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def no_room(error: OSError) -> bool:
    """Whether a file could not be written because the disk, or a quota on it, is full."""
    return error.errno in _NO_ROOM


def is_full(folder: Path) -> bool:
    """Whether there is no room for a file of a MiB in a folder, found out by writing one.

    Libraries that write files in languages of their own tell of a full disk in words of their own.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, _BLOCK)
    except OSError as error:
        if not no_room(error):
            raise
        return True
    return False


def draft_of(path: Path) -> Path:
    """Where a folder is filled, or a file written, before it takes its place; what is left there is of no use."""
    return path.with_name(f".{path.name}")


def sync(path: Path) -> None:
    """Wait until what a file holds, or which names a folder has, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
