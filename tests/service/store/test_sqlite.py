"""What is SQLite's own: durability settings, migrations, queries that use their indexes, kill -9."""

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite
from tests.service.store.rows import append, draft, insert

from dropnorm.results import Event, LogLine, State, TrainingJob
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.jobs.projection import project
from dropnorm_service.store import (
    InvalidDatabaseUrl,
    SqlJobStore,
    StoreInUse,
    StoreTooNew,
    engines,
)
from dropnorm_service.store.backup import copy_database
from dropnorm_service.store.listing import Listing
from dropnorm_service.store.schema import metadata

ROOT = Path(__file__).parents[3]


async def test_the_migrations_make_what_the_schema_would_make(tmp_path: Path):
    await (await SqlJobStore.open(f"sqlite:///{tmp_path}/migrated.db")).close()
    declared = create_engine(f"sqlite:///{tmp_path}/declared.db")
    metadata.create_all(declared)
    declared.dispose()
    assert _tables(tmp_path / "migrated.db") == _tables(tmp_path / "declared.db")


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "jobs.db"
    await (await SqlJobStore.open(f"sqlite:///{path}")).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StoreTooNew, match=r"written by a newer version of dropnorm .*9999"):
        await SqlJobStore.open(f"sqlite:///{path}")


async def test_a_path_with_a_percent_sign_is_a_path(tmp_path: Path):
    folder = tmp_path / "100%25 ü"
    folder.mkdir()
    async with await SqlJobStore.open(f"sqlite:///{quote(str(folder))}/jobs.db") as store:
        assert await store.get("a") is None
    assert (folder / "jobs.db").exists()


async def test_what_is_no_database_is_said_to_be_unusable(tmp_path: Path):
    (tmp_path / "jobs.db").write_text("not a database at all " * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db")
    with pytest.raises(StoreUnavailable, match=r"nowhere/jobs.db.*No such file"):
        await SqlJobStore.open(f"sqlite:///{tmp_path}/nowhere/jobs.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:a.db?uri=1"])
async def test_what_names_no_file_is_refused_by_a_sentence(url: str):
    with pytest.raises(InvalidDatabaseUrl, match="named by its file and nothing else"):
        await SqlJobStore.open(url)


async def test_a_second_service_on_a_database_is_refused_by_whatever_name_it_comes(tmp_path: Path):
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs.db")
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as first:
        await insert(first, draft("a"))
        for name in ("jobs.db", "link.db"):
            with pytest.raises(StoreInUse, match=rf"process {os.getpid()}\) uses the database"):
                await SqlJobStore.open(f"sqlite:///{tmp_path}/{name}")
            async with await SqlJobStore.open(
                f"sqlite:///{tmp_path}/{name}", beside=True
            ) as beside:
                assert await beside.get("a") is not None
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/link.db") as second:
        assert await second.get("a") is not None


async def test_a_copy_is_made_by_a_relative_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backup").mkdir()
    async with await SqlJobStore.open("sqlite:///jobs.db") as store:
        await insert(store, draft("a"))
        copy = await asyncio.to_thread(copy_database, "sqlite:///jobs.db", tmp_path / "backup")
    async with await SqlJobStore.open(f"sqlite:///{copy}") as restored:
        assert await restored.get("a") is not None


async def test_commits_are_synced_and_foreign_keys_hold(tmp_path: Path):
    pair = engines.create_engines(f"sqlite:///{tmp_path}/jobs.db")
    for engine in pair:
        async with engine.connect() as connection:
            values = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "journal_size_limit")
            ]
        assert values == ["wal", 2, 1, 16 * 2**20]
        await engine.dispose()


async def test_while_another_process_holds_the_database_it_is_unavailable_and_then_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "_SQLITE_PRAGMAS", ("PRAGMA busy_timeout = 50",))
    path = tmp_path / "jobs.db"
    async with await SqlJobStore.open(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="database is locked"):
            await insert(store, draft())
        other.close()
        await insert(store, draft())


async def test_a_full_disk_is_told_and_then_works(tmp_path: Path):
    async with await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as store:
        job = await insert(store, draft())

        async def limit(pages: int) -> None:
            async with store._writer._engine.connect() as connection:
                await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        await limit(1)  # as many as there are
        long = LogLine(message="long " * 50_000)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await append(store, job, long)
        assert await store.get("a") == job
        assert len(await store.events("a", after=0, limit=9)) == 1
        await limit(10**6)
        await append(store, job, long)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (JobQuery(), "ix_jobs_create_time"),
        (JobQuery(filter="state = RUNNING"), "ix_jobs_state"),
        (JobQuery(filter="name = trainingJobs/a"), "sqlite_autoindex_jobs_1"),
        (JobQuery(seen_by="ada"), "ix_jobs_owner ix_jobs_shared"),
    ],
)
async def test_a_first_page_reads_no_more_of_many_jobs_than_of_few(
    tmp_path: Path, query: JobQuery, index: str
):
    await (await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db")).close()
    sql = (
        Listing(query)
        .select()
        .compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    )
    database = sqlite3.connect(tmp_path / "jobs.db")
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}")]
    database.close()
    reading = [step for step in plan if " jobs " in f"{step} "]
    assert len(reading) == len(index.split())
    assert all(name in step for name, step in zip(index.split(), reading, strict=True))


async def test_a_killed_writer_leaves_no_gap_and_nothing_accepted_is_lost(tmp_path: Path):
    database = tmp_path / "jobs.db"
    accepted: list[str] = []
    ended: set[str] = set()
    for _ in range(3):
        told = await _write_until_killed(database, tmp_path / "jobs")
        accepted += [job_id for what, job_id in told if what == "accepted"]
        ended.update(job_id for what, job_id in told if what == "ended")
    assert accepted
    assert ended
    async with await SqlJobStore.open(f"sqlite:///{database}") as store:
        for job_id in accepted:
            row = await store.get(job_id, deleted=True)
            assert row is not None, f"{job_id} was accepted and is gone"
            events = await store.events(job_id, after=0, limit=10_000)
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            # As text, because NaN differs from itself.
            assert row.model_dump_json() == _replayed(row, events).model_dump_json()
            assert row.state.terminal or job_id not in ended


async def _write_until_killed(database: Path, folder: Path) -> list[list[str]]:
    """What the process had told of its jobs when it was killed in the middle of its work."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.service.store.busy_writer",
        f"sqlite:///{database}",
        str(folder),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    told = [await process.stdout.readline()]
    while told[-1] and not told[-1].startswith(b"ended"):
        told.append(await process.stdout.readline())
    await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311
    process.send_signal(signal.SIGKILL)
    told.append(await process.stdout.read())
    assert await process.wait() == -signal.SIGKILL
    # What was cut off in the middle of a line was not told.
    return [line.split() for line in b"".join(told).decode().split("\n")[:-1]]


def _replayed(row: TrainingJob, events: Sequence[Event]) -> TrainingJob:
    start = draft(row.id).model_copy(
        update={
            "display_name": row.display_name,
            "labels": row.labels,
            "create_time": row.create_time,
            "update_time": row.create_time,
        }
    )
    assert events[0].payload.kind == "state"
    assert start.state is State.QUEUED
    return project(start, events)[0]


def _tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Columns, keys and indexes of every table, as SQLite sees them."""
    database = sqlite3.connect(path)
    names = [
        name
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name != "alembic_version"
    ]
    tables = {}
    for name in sorted(names):
        columns = sorted(row[1:] for row in database.execute(f"PRAGMA table_info({name})"))
        keys = sorted(row[2:] for row in database.execute(f"PRAGMA foreign_key_list({name})"))
        indexes = sorted(
            (*row[1:], *database.execute(f"PRAGMA index_info({row[1]})").fetchall())
            for row in database.execute(f"PRAGMA index_list({name})")
        )
        tables[name] = [*columns, *keys, *indexes]
    conditions = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%'"
    )
    tables["conditions"] = sorted(conditions)
    autoincrement = database.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINC%'")
    tables["autoincrement"] = autoincrement.fetchall()
    database.close()
    return tables
