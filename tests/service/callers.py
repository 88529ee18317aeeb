"""Who calls, in tests: a few users, and services as one of them meets them."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from dropnorm_service.jobs.callers import LOCAL, Caller, Role

ADA = Caller("ada", Role.USER)
BOB = Caller("bob", Role.USER)
EVE = Caller("eve", Role.VIEWER)
ROOT = Caller("root", Role.ADMIN)


class AsCaller:
    """A service whose methods that ask for a caller have got one."""

    def __init__(self, service: object, caller: Caller = LOCAL) -> None:
        self._service = service
        self._caller = caller

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._service, name)
        asked = callable(member) and "caller" in inspect.signature(member).parameters
        return partial(member, self._caller) if asked else member
