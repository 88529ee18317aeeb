"""Whether jobs can be accepted and run, found out by trying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import JobStore

_INTERVAL = 2.0
_LIMIT = 3.0

log = logging.getLogger(__name__)


class Forks(Protocol):
    """Where workers come from."""

    async def answers(self, within: float) -> bool:
        """Whether it answers within some seconds."""


class HealthWatch:
    """Probes the store and the fork server again and again, and reports.

    Healthy means that within seconds the store could be read and written and the fork server answered, and that there
    is room on the disk.
    """

    def __init__(
        self,
        store: JobStore,
        forks: Forks,
        report: Callable[[bool], None],
        no_room: Callable[[], str] = lambda: "",
    ) -> None:
        """
        Args:
            store: where jobs are accepted.
            forks: where workers come from.
            report: told after each look whether both do their work.
            no_room: what says why nothing more can be stored; empty: there is room.
        """
        self._store = store
        self._forks = forks
        self._report = report
        self._no_room = no_room
        self._check: asyncio.Task[None] | None = None
        self._obstacle = ""

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                self._note(await self._look())
                self._report(not self._obstacle)
                await asyncio.sleep(_INTERVAL)
        finally:
            if self._check is not None:
                self._check.cancel()

    async def _look(self) -> str:
        """What keeps jobs from being accepted or run; empty when nothing does."""
        store, forks = await asyncio.gather(self._store_obstacle(), self._forks.answers(_LIMIT))
        return store or ("" if forks else "the fork server does not answer") or self._no_room()

    async def _store_obstacle(self) -> str:
        # A check that is late is waited for next time, so that none pile up before a locked database.
        if self._check is None:
            self._check = asyncio.create_task(self._store.check())
        await asyncio.wait({self._check}, timeout=_LIMIT)
        if not self._check.done():
            return f"the store could not be written within {_LIMIT:g} seconds"
        check, self._check = self._check, None
        try:
            check.result()
        except StoreUnavailable as error:
            return error.message
        except Exception:
            log.exception("the store could not be checked")
            return "the store could not be checked"
        return ""

    def _note(self, obstacle: str) -> None:
        if obstacle and not self._obstacle:
            log.error("unhealthy: %s", obstacle)
        elif self._obstacle and not obstacle:
            log.info("healthy again")
        self._obstacle = obstacle
