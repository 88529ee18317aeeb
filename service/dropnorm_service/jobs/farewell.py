"""The last event of a service that stops, for those who watch jobs of which there is nothing else to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from dropnorm.results import LogLine, TrainingJob
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.journal import Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import Clock

log = logging.getLogger(__name__)


async def bid_farewell(journal: Journal, since: datetime, clock: Clock) -> None:
    """Tell the end in the journal of each watched job that has waited since a time, and so had no event of it."""

    def decide(job: TrainingJob) -> Sequence[Entry]:
        if job.state.terminal or job.update_time >= since:
            return []
        text = f"The service is stopping; the job stays {job.state.name} while it is away."
        return [Entry(clock(), LogLine(message=text), job.attempt)]

    async def tell(live: LiveJob) -> None:
        try:
            await journal.change(live, decide)
        except StoreUnavailable as error:
            log.error("who watches %s is not told of the end: %s", live.job.name, error)

    await asyncio.gather(*(tell(live) for live in journal.watched()))
