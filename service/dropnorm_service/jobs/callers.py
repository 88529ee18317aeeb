"""Who calls, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a caller may do; each role may do all that the ones below it may."""

    VIEWER = 1
    """Looks, and changes nothing."""
    USER = 2
    """Makes jobs, data sets and models, and steers their own."""
    ADMIN = 3
    """Sees and steers those of everybody."""

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Caller:
    """Whom a request comes from."""

    user: str
    role: Role


LOCAL = Caller(user="local", role=Role.ADMIN)
"""Everybody, where the service asks nobody who they are."""
