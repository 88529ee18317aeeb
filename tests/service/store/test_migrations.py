"""A database of any earlier version becomes what this version needs, with all that is in it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from tests.service.store.rows import NOON, SPEC, append

from dropnorm.results import LogLine, State
from dropnorm_service.store import SqlJobStore, migrate
from dropnorm_service.store.engines import create_engines
from dropnorm_service.store.schema import metadata

T = TypeVar("T")

_MICROS = int((NOON - datetime.fromtimestamp(0, NOON.tzinfo)).total_seconds() * 1e6)


async def test_the_migrations_make_exactly_the_tables_of_the_schema(url: str):
    await (await SqlJobStore.open(url)).close()

    def differences(connection: Connection) -> Sequence[object]:
        found: Sequence[object] = compare_metadata(MigrationContext.configure(connection), metadata)
        return found

    assert await _within(url, differences) == []


async def test_a_database_of_the_first_version_keeps_what_is_in_it(url: str):
    def make(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in _FIRST:
            connection.execute(text(statement), _VALUES)

    await _within(url, make)
    async with await SqlJobStore.open(url) as store:
        job = await store.get("a")
        assert job is not None
        assert (job.spec, job.state, job.labels) == (SPEC, State.RUNNING, {"team": "vision"})
        assert (job.owner, job.shared) == ("local", False)
        assert [event.sequence for event in await store.events("a", after=0, limit=9)] == [1, 2]
        assert await store.cursor("mlflow") == 2
        request = await store.request("local", "r")
        assert request is not None
        assert request.job_id == "a"
        assert [each.id async for each in store.unfinished()] == ["a"]
        await append(store, job, LogLine(message="hello"))
        assert [position for position, _ in await store.feed(after=2, limit=9)] == [3]
        identity = store.identity
    async with await SqlJobStore.open(url) as again:
        assert again.identity == identity


async def test_a_tool_of_a_newer_version_leaves_the_database_of_a_running_service_alone(
    url: str, tmp_path: Path
):
    def let_it_be_older(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    def version(connection: Connection) -> Sequence[str]:
        return migrate.versions(connection)[0]

    async with await SqlJobStore.open(url):
        await _within(url, let_it_be_older)
        tool = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dropnorm_service.tokens", "list"),
            *("--database-url", url, "--data-dir", str(tmp_path / "data")),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await tool.communicate()
        assert tool.returncode == 1
        assert b"stop the service first, or use the version that it has" in said
        assert b"Traceback" not in said
        assert await _within(url, version) == ("0001",)


async def _within(url: str, work: Callable[[Connection], T]) -> T:
    engines = create_engines(url)
    try:
        async with engines[0].begin() as connection:
            return await connection.run_sync(work)
    finally:
        for engine in engines:
            await engine.dispose()


_VALUES = {
    "time": _MICROS,
    "spec": SPEC.model_dump_json(),
    "digest": SPEC.digest(),
    "labels": json.dumps({"team": "vision"}),
    "queued": json.dumps({"kind": "state", "state": "queued"}),
    "running": json.dumps({"kind": "state", "state": "running"}),
}

_FIRST = (
    "INSERT INTO jobs (id, display_name, experiment, labels, priority, spec_digest, state, attempt, create_time, "
    "start_time, update_time, last_sequence, deleted) "
    "VALUES ('a', 'a', 'default', :labels, 0, :digest, 'running', 1, :time, :time, :time, 2, 0)",
    "INSERT INTO specs (job_id, spec) VALUES ('a', :spec)",
    "INSERT INTO job_labels (job_id, key, value) VALUES ('a', 'team', 'vision')",
    "INSERT INTO requests (request_id, digest, job_id) VALUES ('r', :digest, 'a')",
    "INSERT INTO events (job_id, sequence, time, attempt, kind, payload) "
    "VALUES ('a', 1, :time, 0, 'state', :queued)",
    "INSERT INTO events (job_id, sequence, time, attempt, kind, payload) "
    "VALUES ('a', 2, :time, 1, 'state', :running)",
    "INSERT INTO cursors (consumer, position) VALUES ('mlflow', 2)",
)
"""A running job as the first version of the tables held it."""
