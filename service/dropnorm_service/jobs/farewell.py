"""The last event of a service that stops, for those who watch jobs of which there is nothing else to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from dropnorm.results import LogLine, TrainingJob
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.journal import Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.ports import Clock

log = logging.getLogger(__name__)


async def bid_farewell(journal: Journal, before: Mapping[str, int], clock: Clock) -> None:
    """Tell the end in the journal of each watched job that has waited all the while, and so had no event of it.

    Args:
        journal: the jobs.
        before: number of the newest event, when the end began, of each job that was watched then; clocks are set.
        clock: the time.
    """

    def decide(job: TrainingJob) -> Sequence[Entry]:
        if job.state.terminal or job.last_sequence > before.get(job.id, job.last_sequence):
            return []
        text = f"The service is stopping; the job stays {job.state.name} while it is away."
        return [Entry(clock(), LogLine(message=text), job.attempt)]

    async def tell(live: LiveJob) -> None:
        try:
            await journal.change(live, decide)
        except StoreUnavailable as error:
            log.error("who watches %s is not told of the end: %s", live.job.name, error)

    await asyncio.gather(*(tell(live) for live in journal.watched()))
