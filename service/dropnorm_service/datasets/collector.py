"""Removes, now and then, what nobody needs of the uploaded data sets."""

from __future__ import annotations

import asyncio
import logging
import time

from dropnorm_service.datasets.service import DatasetService, Referred
from dropnorm_service.jobs.errors import StoreUnavailable

_LONGEST = 600.0
_SHORTEST = 1.0

log = logging.getLogger(__name__)


class Collector:
    """Deletes data sets that no job refers to any more, and what broken-off uploads left.

    Args:
        datasets: the data sets.
        referred: names of those that jobs refer to now.
        retention: seconds for which a data set is kept that none refers to; None: for ever.
    """

    def __init__(
        self, datasets: DatasetService, referred: Referred, retention: float | None
    ) -> None:
        self._datasets = datasets
        self._referred = referred
        self._retention = retention
        self._pause = max(_SHORTEST, min(_LONGEST, (retention or _LONGEST) / 4))

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self._datasets.forget_broken_uploads()
                if self._retention is not None:
                    before = time.time() - self._retention
                    await self._datasets.collect(self._referred, before)
            except (OSError, StoreUnavailable) as error:
                log.error("data sets that nobody needs stay for now: %s", error)
            await asyncio.sleep(self._pause)
