"""The job store on a SQL database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Self

from sqlalchemy import case, delete, func, insert, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dropnorm.results import EpochCompleted, Event, State, TrainingJob
from dropnorm_service.jobs.ports import (
    Change,
    DeletedJob,
    JobPage,
    JobQuery,
    RequestRecord,
)
from dropnorm_service.store.commits import SERVICE, Commits, PostgresCommits, SqliteCommits
from dropnorm_service.store.engines import create_engines, parse_url
from dropnorm_service.store.errors import StoreInUse, translated
from dropnorm_service.store.files import sole_service
from dropnorm_service.store.listing import Listing
from dropnorm_service.store.migrate import is_current, refuse_newer, upgrade
from dropnorm_service.store.models import SqlModelOwners
from dropnorm_service.store.outage import Outage
from dropnorm_service.store.reader import Reader
from dropnorm_service.store.removal import remove_portion
from dropnorm_service.store.rows import from_micros, to_event, to_job, to_request
from dropnorm_service.store.schema import (
    IS_DELETED,
    IS_EVALUATION,
    commits,
    cursors,
    events,
    jobs,
    requests,
    service,
    specs,
)
from dropnorm_service.store.tenure import Tenure
from dropnorm_service.store.tokens import SqlTokenStore
from dropnorm_service.store.writer import OnCommit, Writer, ignore

_PAGE = 500
_FEED_CHARACTERS = 2**22
_PATIENCE = 10.0  # seconds in which a restart of PostgreSQL is waited out

_UNFINISHED = [state.value for state in State if not state.terminal]


class SqlJobStore:
    """Jobs and journals in a database, as `jobs.ports.JobStore` asks. Made by `open`.

    One connection writes, so that concurrent changes share transactions; others read.

    Attributes:
        models: whose the registered models are, in the same database.
    """

    def __init__(
        self,
        engines: tuple[AsyncEngine, AsyncEngine],
        resources: AsyncExitStack,
        commits: Commits,
        patience: float,
        identity: str,
        on_commit: OnCommit,
    ) -> None:
        self.identity = identity
        """Tells this store from every other, wherever it is moved to."""
        self._resources = resources
        # An outage each: a database that is full, or only a standby, goes on to be read.
        self._writer = Writer(engines[0], commits, Outage(patience), on_commit)
        self._reader = Reader(engines[1], Outage(patience))
        self.tokens = SqlTokenStore(self._writer, self._reader)
        self.models = SqlModelOwners(self._writer, self._reader)

    @classmethod
    async def open(cls, url: str, on_commit: OnCommit = ignore, *, beside: bool = False) -> Self:
        """Open a database, made or upgraded when it needs to be.

        Args:
            url: `sqlite:///path/to/file`, percent-encoded, or `postgresql://user@host:5432/database`.
            on_commit: told of every transaction that writes.
            beside: a service may have it open at the same time, and nothing is written that services keep in
                memory; jobs are.

        Raises:
            InvalidDatabaseUrl: the URL cannot be used.
            StoreInUse: another service writes it.
            StoreTooNew: a newer dropnorm has written it.
            StoreUnavailable: it cannot be opened.
        """
        if beside and not await _is_current(url):
            await _migrate(url)
        parsed = parse_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        marks = PostgresCommits(f"beside {uuid.uuid4()}" if beside else SERVICE)
        async with AsyncExitStack() as stack:
            if is_sqlite and not beside:
                stack.enter_context(sole_service(parsed))
            engines = create_engines(parsed)
            stack.push_async_callback(_dispose, engines)
            tenure = None if is_sqlite or beside else Tenure(engines[0])
            with translated():
                async with engines[0].begin() as connection:
                    if not beside:
                        await connection.run_sync(upgrade)
                        await connection.execute(
                            update(service).values(tenure=service.c.tenure + 1)
                        )
                        await connection.execute(delete(commits))
                    if tenure is not None:
                        await marks.watch_over(connection)
                    [row] = await connection.execute(select(service))
            if tenure is not None:
                tenure.begun(row.tenure)
            resources = stack.pop_all()
        if is_sqlite:
            return cls(engines, resources, SqliteCommits(), 0.0, row.id, on_commit)
        return cls(engines, resources, marks, _PATIENCE, row.id, on_commit)

    async def superseded(self) -> str:
        """Wait until this service may not write the database any more, perhaps for ever; the reason.

        Another one writes it, or it has lost what it had confirmed.
        """
        return await asyncio.shield(self._writer.lost)

    async def close(self) -> None:
        """Finish what is being written and read, and let go of the database."""
        await self._writer.close()
        await self._reader.close()
        await self._resources.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def check(self) -> None:
        """See `JobStore.check`."""

        async def look(connection: AsyncConnection) -> None:
            await connection.execute(select(1))  # within a transaction that has the right to write

        await self._writer.write(look)
        await self._reader.read(select(cursors.c.position).limit(1))

    async def commit(self, change: Change) -> None:
        """See `JobStore.commit`."""
        await self._writer.write(change)

    async def get(self, job_id: str, *, deleted: bool = False) -> TrainingJob | None:
        """See `JobStore.get`."""
        evaluated = (
            select(events.c.payload)
            .where(events.c.job_id == jobs.c.id, IS_EVALUATION)
            .order_by(events.c.sequence.desc())
            .limit(1)
            .scalar_subquery()
        )
        succeeded = jobs.c.state == State.SUCCEEDED.value
        query = (
            select(jobs, specs.c.spec, case((succeeded, evaluated)).label("evaluated"))
            .join(specs)
            .where(jobs.c.id == job_id)
        )
        if not deleted:
            query = query.where(jobs.c.deleted == 0)
        rows = await self._reader.read(query)
        return to_job(rows[0], rows[0].evaluated) if rows else None

    async def request(self, owner: str, request_id: str) -> RequestRecord | None:
        """See `JobStore.request`."""
        rows = await self._reader.read(
            select(requests).where(requests.c.owner == owner, requests.c.request_id == request_id)
        )
        return to_request(rows[0]) if rows else None

    async def list(self, query: JobQuery) -> JobPage:
        """See `JobStore.list`."""
        listing = Listing(query)
        rows = await self._reader.read(listing.select())
        shown = rows[: listing.page_size]
        token = listing.token_after(shown[-1]) if len(rows) > len(shown) else ""
        return JobPage(
            tuple(map(to_job, shown)), token, lambda index: listing.token_after(shown[index])
        )

    async def unfinished(self, dataset: str | None = None) -> AsyncGenerator[TrainingJob, None]:
        """See `JobStore.unfinished`."""
        query = (
            select(jobs, specs.c.spec)
            .join(specs)
            .where(jobs.c.state.in_(_UNFINISHED))
            .order_by(jobs.c.id)
            .limit(_PAGE)
        )
        if dataset is not None:
            query = query.where(jobs.c.dataset == dataset)
        rows = await self._reader.read(query)
        while rows:
            for row in rows:
                yield to_job(row)
            rows = await self._reader.read(query.where(jobs.c.id > rows[-1].id))

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """See `JobStore.events`."""
        rows = await self._reader.read(
            select(events)
            .where(events.c.job_id == job_id, events.c.sequence > after)
            .order_by(events.c.sequence)
            .limit(limit)
        )
        return [to_event(row) for row in rows]

    async def turns(self, job_id: str) -> Sequence[Event]:
        """See `JobStore.turns`."""
        rows = await self._reader.read(
            select(events)
            .where(events.c.job_id == job_id, events.c.kind.in_(("state", "checkpoint")))
            .order_by(events.c.sequence)
        )
        return [to_event(row) for row in rows]

    async def epochs_told(self, job_id: str) -> int:
        """See `JobStore.epochs_told`."""
        rows = await self._reader.read(
            select(events)
            .where(events.c.job_id == job_id, events.c.kind == "epoch")
            .order_by(events.c.sequence.desc())
            .limit(1)
        )
        told = [to_event(row).payload for row in rows]
        return next((each.metrics.epoch for each in told if isinstance(each, EpochCompleted)), 0)

    async def feed(self, *, after: int, limit: int) -> Sequence[tuple[int, Event]]:
        """See `JobStore.feed`."""
        found = select(events).where(events.c.position > after).order_by(events.c.position)
        some = found.limit(limit).subquery()
        size = func.length(some.c.payload)
        sized = select(some, (func.sum(size).over(order_by=some.c.position) - size).label("before"))
        few = sized.subquery()
        rows = await self._reader.read(
            select(few).where(few.c.before < _FEED_CHARACTERS).order_by(few.c.position)
        )
        return [(row.position, to_event(row)) for row in rows]

    async def newest(self) -> int:
        """Global position of the newest event; 0 when there is none."""
        rows = await self._reader.read(select(func.max(events.c.position).label("position")))
        return rows[0].position or 0

    async def count_states(self) -> Mapping[State, int]:
        """How many jobs are in each state, without deleted ones; goes through an index of all once."""
        # Subtracted, since the index of states does not say what is deleted, and that of deleted jobs is short;
        # by one statement, since a purge may come between two.
        every = select(jobs.c.state, func.count().label("jobs")).group_by(jobs.c.state)
        gone = select(jobs.c.state, -func.count()).where(IS_DELETED).group_by(jobs.c.state)
        counts = union_all(every, gone).subquery()
        query = select(counts.c.state, func.sum(counts.c.jobs).label("jobs")).group_by(
            counts.c.state
        )
        return {State(row.state): int(row.jobs) for row in await self._reader.read(query)}

    async def cursor(self, consumer: str) -> int:
        """See `JobStore.cursor`."""
        rows = await self._reader.read(
            select(cursors.c.position).where(cursors.c.consumer == consumer)
        )
        return rows[0].position if rows else 0

    async def move_cursor(self, consumer: str, position: int) -> None:
        """See `JobStore.move_cursor`."""

        async def move(connection: AsyncConnection) -> None:
            known = cursors.c.consumer == consumer
            moved = await connection.execute(update(cursors).where(known).values(position=position))
            if moved.rowcount == 0:
                await connection.execute(
                    insert(cursors).values(consumer=consumer, position=position)
                )

        await self._writer.write(move)

    async def deleted(self) -> Sequence[DeletedJob]:
        """See `JobStore.deleted`."""
        position = (
            select(events.c.position)
            .where(events.c.job_id == jobs.c.id)
            .order_by(events.c.sequence.desc())
            .limit(1)
            .scalar_subquery()
        )
        rows = await self._reader.read(
            select(jobs.c.id, jobs.c.state, func.coalesce(position, 0).label("position")).where(
                IS_DELETED
            )
        )
        return [DeletedJob(row.id, State(row.state), row.position) for row in rows]

    async def expiring(self, limit: int) -> Sequence[tuple[str, datetime]]:
        """See `JobStore.expiring`."""
        rows = await self._reader.read(
            select(jobs.c.id, jobs.c.expire_time)
            .where(jobs.c.expire_time.is_not(None), jobs.c.deleted == 0)
            .order_by(jobs.c.expire_time)
            .limit(limit)
        )
        return [(row.id, from_micros(row.expire_time)) for row in rows]

    async def datasets(self) -> Set[str]:
        """See `JobStore.datasets`."""
        rows = await self._reader.read(select(jobs.c.dataset).distinct())
        return {row.dataset for row in rows}

    async def known(self, job_ids: Sequence[str]) -> Set[str]:
        """See `JobStore.known`."""
        found: set[str] = set()
        for start in range(0, len(job_ids), _PAGE):
            chosen = jobs.c.id.in_(job_ids[start : start + _PAGE])
            found.update(row.id for row in await self._reader.read(select(jobs.c.id).where(chosen)))
        return found

    async def purge(self, job_ids: Sequence[str]) -> None:
        """See `JobStore.purge`."""
        gone = removed = 0

        async def remove(connection: AsyncConnection) -> None:
            nonlocal removed
            removed = await remove_portion(connection, job_ids[gone:])

        while gone < len(job_ids):
            await self._writer.write(remove)
            gone += removed


async def _migrate(url: str) -> None:
    """Bring a database that no service uses to the form that this version knows."""
    try:
        await (await SqlJobStore.open(url)).close()
    except StoreInUse as error:
        raise StoreInUse(
            "the database is of an older version of dropnorm, and a service of that version uses it: stop the service "
            "first, or use the version that it has"
        ) from error


async def _is_current(url: str) -> bool:
    """Whether a database is as this version of the code would leave it.

    Raises:
        StoreTooNew: a newer version has written it.
    """
    engines = create_engines(url)
    try:
        with translated():
            async with engines[1].connect() as connection:
                await connection.run_sync(refuse_newer)
                return await connection.run_sync(is_current)
    finally:
        await _dispose(engines)


async def _dispose(engines: tuple[AsyncEngine, AsyncEngine]) -> None:
    for engine in engines:
        await engine.dispose()
