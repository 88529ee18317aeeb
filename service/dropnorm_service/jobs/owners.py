"""Whose things are whose: who sees a job, a data set or a registered model, and who changes it."""

from __future__ import annotations

from typing import Protocol

from dropnorm_service.jobs.callers import Caller, Role
from dropnorm_service.jobs.errors import NotOwner


class Owned(Protocol):
    """Something that belongs to a user."""

    @property
    def name(self) -> str:
        """Resource name."""

    @property
    def owner(self) -> str:
        """Who made it."""

    @property
    def shared(self) -> bool:
        """Whether all users see and use it."""


def sees(caller: Caller, thing: Owned) -> bool:
    """Whether a caller may know that a thing is there, read it and use it; to whom may not, it is not there."""
    return thing.shared or changes(caller, thing)


def changes(caller: Caller, thing: Owned) -> bool:
    """Whether a thing is a caller's to change."""
    return caller.role is Role.ADMIN or thing.owner == caller.user


def check_changes(caller: Caller, thing: Owned) -> None:
    """Refuse a change of a thing that the caller sees.

    Raises:
        NotOwner: it is shared, not the caller's.
    """
    if not changes(caller, thing):
        raise NotOwner(thing.name, thing.owner)
