"""A file that somebody sends, and how it is called while it comes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple


class Upload(NamedTuple):
    """A file that a user sends, or has sent."""

    owner: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What the file is called as long as it is not finished."""
        return f"{self.sha256}.{tag_of(self.owner)}"


def tag_of(owner: str) -> str:
    """A user in the name of a file, whatever characters the user's name has."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def size_of(path: Path) -> int | None:
    """Bytes of a file; None: there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
