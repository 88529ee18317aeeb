"""Jobs leave the database in portions: whoever wants to write meanwhile waits for one of them, not for all."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.store.schema import events, jobs

_EVENTS = 2_000
_JOBS = 32


async def remove_portion(connection: AsyncConnection, job_ids: Sequence[str]) -> int:
    """Remove as much of deleted jobs, in their order, as one transaction may; how many of them are gone.

    Of a job that is begun the newest events go first: who still reads its journal finds no gap in it, but its end.
    """
    left = _EVENTS
    gone: list[str] = []
    for job_id in job_ids[:_JOBS]:
        newest = (
            select(events.c.position)
            .where(events.c.job_id == job_id)
            .order_by(events.c.sequence.desc())
            .limit(left)
        )
        left -= (
            await connection.execute(delete(events).where(events.c.position.in_(newest)))
        ).rowcount
        if not left:  # there may be more of them
            break
        gone.append(job_id)
    # What else belongs to a job goes with it: the foreign keys cascade.
    await connection.execute(delete(jobs).where(jobs.c.id.in_(gone)))
    return len(gone)
