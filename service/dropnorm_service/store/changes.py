"""Changes of jobs as SQL: a few statements for many changes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.jobs.errors import JobAlreadyExists
from dropnorm_service.jobs.ports import Change, RequestAccepted, RequestRecord
from dropnorm_service.store import schema
from dropnorm_service.store.rows import changing_values, event_values, fixed_values, to_request


async def write_changes(
    connection: AsyncConnection, changes: Sequence[Change]
) -> list[Exception | None]:
    """Write changes within a transaction; for each, why it was left out, or None.

    Nobody else writes, so what is free when this looks is free when it writes.
    """
    refusals = await _refusals(connection, changes)
    accepted = [
        change for change, refusal in zip(changes, refusals, strict=True) if refusal is None
    ]
    await _insert(connection, [change for change in accepted if change.insert])
    await _update(connection, [change for change in accepted if not change.insert])
    events = [event_values(change.job.id, event) for change in accepted for event in change.events]
    if events:
        await connection.execute(insert(schema.events), events)
    return refusals


async def _refusals(
    connection: AsyncConnection, changes: Sequence[Change]
) -> list[Exception | None]:
    new = [change for change in changes if change.insert]
    ids = await _taken_ids(connection, [change.job.id for change in new])
    requests = await _taken_requests(
        connection, [change.request for change in new if change.request]
    )
    refusals: list[Exception | None] = []
    for change in changes:
        request = change.request
        if not change.insert:
            refusals.append(None)
        elif request is not None and _key(request) in requests:
            refusals.append(RequestAccepted(requests[_key(request)]))
        elif change.job.id in ids:
            refusals.append(JobAlreadyExists(change.job.id))
        else:
            refusals.append(None)
            ids.add(change.job.id)
            if request is not None:
                requests[_key(request)] = request
    return refusals


def _key(request: RequestRecord) -> tuple[str, str]:
    return request.owner, request.request_id


async def _taken_ids(connection: AsyncConnection, ids: Sequence[str]) -> set[str]:
    if not ids:
        return set()
    rows = await connection.execute(select(schema.jobs.c.id).where(schema.jobs.c.id.in_(ids)))
    return {row.id for row in rows}


async def _taken_requests(
    connection: AsyncConnection, asked: Sequence[RequestRecord]
) -> dict[tuple[str, str], RequestRecord]:
    if not asked:
        return {}
    columns = schema.requests.c
    is_asked = tuple_(columns.owner, columns.request_id).in_(list(map(_key, asked)))
    rows = await connection.execute(select(schema.requests).where(is_asked))
    return {_key(record): record for record in map(to_request, rows)}


async def _insert(connection: AsyncConnection, changes: Sequence[Change]) -> None:
    if not changes:
        return
    jobs = [change.job for change in changes]
    await connection.execute(
        insert(schema.jobs), [fixed_values(job) | changing_values(job) for job in jobs]
    )
    await connection.execute(
        insert(schema.specs),
        [{"job_id": job.id, "spec": job.spec.model_dump_json()} for job in jobs],
    )
    labels = [
        {"job_id": job.id, "key": key, "value": value}
        for job in jobs
        for key, value in job.labels.items()
    ]
    if labels:
        await connection.execute(insert(schema.job_labels), labels)
    requests = [
        {
            "owner": change.request.owner,
            "request_id": change.request.request_id,
            "digest": change.request.digest,
            "job_id": change.job.id,
        }
        for change in changes
        if change.request is not None
    ]
    if requests:
        await connection.execute(insert(schema.requests), requests)


async def _update(connection: AsyncConnection, changes: Sequence[Change]) -> None:
    rows = [changing_values(change.job) | {"job_id": change.job.id} for change in changes]
    if rows:
        await connection.execute(
            update(schema.jobs).where(schema.jobs.c.id == bindparam("job_id")), rows
        )
    deleted = [change.job.id for change in changes if change.deleted]
    if deleted:
        await connection.execute(
            update(schema.jobs).where(schema.jobs.c.id.in_(deleted)).values(deleted=1)
        )
