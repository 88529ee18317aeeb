"""What is PostgreSQL's own: URLs, one service per database, lost connections, commits that nobody answered."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from tests.postgres import Cluster
from tests.service.jobs.bench import Bench
from tests.service.store.cutting import Loss, proxy
from tests.service.store.rows import append, change, draft, insert

from dropnorm.results import LogLine, State
from dropnorm_service.jobs import service
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.ports import RequestRecord
from dropnorm_service.store import (
    InvalidDatabaseUrl,
    SqlJobStore,
    StoreInUse,
    postgres,
    store,
    writer,
)

LOG = LogLine(message="hello")


@pytest.fixture
def soon_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is silent is not waited for as long as usual, but longer than a slow one takes."""
    monkeypatch.setattr(postgres, "_COMMAND_SECONDS", 2.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is waited out however slowly the machine ends it."""
    monkeypatch.setattr(store, "_PATIENCE", 100.0)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "no database URL"),
        ("mysql://host/jobs", "SQLite or PostgreSQL, not in mysql"),
        ("postgresql+psycopg://host/jobs", "driver psycopg is not used here; write postgresql://"),
        ("postgresql://host/jobs?sslmood=require", "sslmood cannot be set in the URL; .*sslmode"),
        ("postgresql://host/jobs?sslmode=perhaps", "sslmode"),
        ("postgresql://host/jobs?connect_timeout=soon", "a number of seconds, not soon"),
        ("postgresql://host/jobs?host=a&host=b", "twice"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_by_a_sentence(url: str, told: str):
    with pytest.raises(InvalidDatabaseUrl, match=told):
        await SqlJobStore.open(url)


async def test_a_database_that_cannot_be_reached_is_said_to_be_so(postgres_url: str):
    host = postgres_url.rpartition("/")[0]
    for url, told in [
        ("postgresql://u:secret@127.0.0.1:9/jobs", "cannot be reached"),
        (f"{host}/nothing", 'database "nothing" does not exist'),
        (f"{postgres_url}?sslmode=require", "SSL"),
        (postgres_url.replace("dropnorm@", "nobody@"), 'role "nobody" does not exist'),
    ]:
        with pytest.raises(StoreUnavailable, match=told) as raised:
            await SqlJobStore.open(url)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+asyncpg"])
async def test_both_forms_of_its_url_are_understood(postgres_url: str, driver: str):
    parameters = "sslmode=prefer&connect_timeout=50&application_name=mine"
    url = postgres_url.replace("postgresql", driver) + "?" + parameters
    async with await SqlJobStore.open(url) as opened:
        assert await opened.get("a") is None


async def test_a_second_service_on_a_database_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    async with await SqlJobStore.open(postgres_url) as first:
        with monkeypatch.context() as patch:
            patch.setattr("dropnorm_service.store.tenure._PATIENCE", 0.2)
            with pytest.raises(StoreInUse, match="another service uses this database"):
                await SqlJobStore.open(postgres_url)
        await insert(first, draft())
        async with await SqlJobStore.open(postgres_url, beside=True) as beside:
            assert await beside.get("a") is not None
    async with await SqlJobStore.open(postgres_url) as second:
        assert second.identity == first.identity


async def test_a_tool_makes_a_new_database_for_the_service_to_come(postgres_url: str):
    async with await SqlJobStore.open(postgres_url, beside=True) as beside:
        assert await beside.get("a") is None
        async with await SqlJobStore.open(postgres_url) as serving:
            assert serving.identity == beside.identity


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("loss", ["commit", "answer", "both ends"])
async def test_a_commit_that_nobody_answered_is_neither_lost_nor_doubled(
    postgres_url: str, loss: Loss, beside: bool, soon_unanswered: None, patient: None
):
    async with (
        proxy(postgres_url) as (passing, url),
        await SqlJobStore.open(url, beside=beside) as opened,
    ):
        job = await insert(opened, draft("a"))
        passing.lose = loss
        record = RequestRecord(request_id="r", digest="d", job_id="b")
        await asyncio.gather(
            append(opened, job, LOG),
            opened.commit(change(draft("b"), LOG, insert=True, request=record)),
            opened.move_cursor("mlflow", 7),
        )
        assert passing.lost.is_set()
        assert [event.sequence for event in await opened.events("a", after=0, limit=9)] == [1, 2]
        assert [event.sequence for event in await opened.events("b", after=0, limit=9)] == [1]
        assert await opened.cursor("mlflow") == 7


async def test_a_commit_that_a_crash_forgot_is_not_taken_for_anothers(
    postgres: Cluster, postgres_url: str
):
    """After a crash PostgreSQL gives the numbers of transactions that it forgot to new ones."""
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        await insert(opened, draft("a"))
        passing.lose, passing.refusing = "commit", True
        doubtful = asyncio.create_task(insert(opened, draft("b")))
        await passing.lost.wait()
        await asyncio.to_thread(postgres.restart)
        other = await asyncpg.connect(postgres_url)
        await other.execute("CREATE TABLE other (number integer)")
        for number in range(5):
            await other.execute("INSERT INTO other VALUES ($1)", number)
        await other.close()
        passing.refusing = False
        await doubtful
        assert await opened.get("b") is not None


async def test_what_memory_says_agrees_with_the_disk_after_lost_answers(
    postgres_url: str, tmp_path: Path, soon_unanswered: None, patient: None
):
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        bench = Bench(opened, tmp_path)
        await bench.service.start()
        losses: list[Loss] = ["commit", "answer", "both ends", "answer", "commit"]
        passing.lose = losses.pop()
        job = await bench.create()
        attempt = await bench.launched()
        for step, loss in enumerate(losses, start=1):
            passing.lose = loss
            passing.lost.clear()
            attempt.checkpoint(step)
            await passing.lost.wait()
        attempt.succeed()
        done = await bench.reached(job, State.SUCCEEDED)
        events = await bench.journal(job)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert done.last_sequence == len(events)
        stored = await opened.get(job.id)
        assert stored is not None
        assert stored.model_dump_json() == done.model_dump_json()  # NaN differs from itself
        await bench.service.stop(1)


async def test_a_commit_that_is_in_doubt_at_the_end_is_given_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.1)
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        passing.lose = "answer"
        doubtful = asyncio.create_task(insert(opened, draft("a")))
        passing.refusing = True
        await passing.lost.wait()
        with pytest.raises(StoreUnavailable):  # others do not wait with it
            await insert(opened, draft("b"))
        assert not doubtful.done()
        await opened.close()
        with pytest.raises(StoreUnavailable):
            await doubtful
    async with await SqlJobStore.open(postgres_url) as again:
        assert await again.get("a") is not None


async def test_a_service_ends_while_a_commit_is_in_doubt(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.1)
    monkeypatch.setattr(service, "_LAST_SECONDS", 0.5)
    async with proxy(postgres_url) as (passing, url):
        async with await SqlJobStore.open(url) as opened:
            bench = Bench(opened, tmp_path)
            await bench.jobs.start()
            job = await bench.create()
            attempt = await bench.launched()
            await bench.reached(job, State.RUNNING)
            passing.lose, passing.refusing = "commit", True
            attempt.say(LOG)
            await passing.lost.wait()
            async with asyncio.timeout(60):
                await bench.jobs.stop(grace=0.1)
        passing.refusing = False
        async with await SqlJobStore.open(url) as opened:
            again = Bench(opened, tmp_path)
            await again.jobs.start()
            await again.launched()
            await again.jobs.stop(grace=0.0)


async def test_a_crash_and_restart_of_the_database_is_waited_out(
    postgres: Cluster, postgres_url: str, patient: None
):
    async with await SqlJobStore.open(postgres_url) as opened:
        jobs = [await insert(opened, draft(f"a{n}")) for n in range(5)]
        restart = asyncio.create_task(asyncio.to_thread(postgres.restart))
        written = 0
        while not restart.done():
            jobs = list(await asyncio.gather(*(append(opened, job, LOG) for job in jobs)))
            written += 1
        await restart
        for job in jobs:
            events = await opened.events(job.id, after=0, limit=100_000)
            assert [event.sequence for event in events] == list(range(1, written + 2))


async def test_nobody_queues_up_before_a_database_that_does_not_answer(
    postgres_url: str, soon_unanswered: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.0)
    monkeypatch.setattr(writer, "_MOST", 2)
    tries: list[writer.Commit] = []
    async with (
        proxy(postgres_url) as (passing, url),
        await SqlJobStore.open(url, tries.append) as opened,
    ):
        passing.silent = True
        asked = [insert(opened, draft(f"a{number}")) for number in range(40)]
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in refused} == {StoreUnavailable}
        assert [each.failed for each in tries] == [True], "one try for all who wait"
        passing.silent = False
        await insert(opened, draft("b"))


async def test_no_connection_waits_long_for_a_server_that_does_not_answer_its_goodbye(
    postgres_url: str,
):
    async with proxy(postgres_url) as (passing, url):
        opened = await SqlJobStore.open(url)
        await asyncio.gather(*(opened.get("a") for _ in range(8)))
        passing.silent = True
        async with asyncio.timeout(15):  # one alone would wait for 20
            await opened.close()


async def test_an_outage_that_lasts_is_told_at_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.3)
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        passing.refusing = True
        await _end_sessions(postgres_url)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="The database of jobs"):
                await opened.check()
        passing.refusing = False
        await opened.check()


async def test_a_database_that_can_only_be_read_holds_no_writer_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.5)
    async with await SqlJobStore.open(postgres_url) as opened:
        await insert(opened, draft("a"))
        await _allow_reads_alone(postgres_url)
        reading = asyncio.create_task(_read_on(opened))
        asked = [insert(opened, draft(f"b{number}")) for number in range(300)]
        async with asyncio.timeout(60):
            refused = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in refused} == {StoreUnavailable}
        assert "read-only" in str(refused[0])
        assert not reading.done(), "what is there can be read"
        reading.cancel()


async def test_who_lost_the_database_to_another_service_ends(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "_PATIENCE", 0.1)
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as first:
        passing.refusing = True
        await _end_sessions(postgres_url)
        async with await SqlJobStore.open(postgres_url) as second:
            passing.refusing = False
            with monkeypatch.context() as patch:
                patch.setattr("dropnorm_service.store.tenure._PATIENCE", 0.2)
                with pytest.raises(StoreUnavailable, match="another service uses this database"):
                    await insert(first, draft("a"))
            async with asyncio.timeout(30):
                await first.superseded()
            await insert(second, draft("b"))
        # The other one is gone again, but what the first one remembers is not true any more.
        with pytest.raises(StoreUnavailable, match="has used this database since"):
            await insert(first, draft("c"))


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_a_database_that_lost_what_it_had_confirmed_is_not_written_on(
    postgres: Cluster, postgres_url: str, in_doubt: bool
):
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        job = await insert(opened, draft("a"))
        await asyncio.to_thread(postgres.save)
        await insert(opened, draft("b"))
        if in_doubt:
            passing.lose, passing.refusing = "answer", True
            doubtful = asyncio.create_task(append(opened, job, LOG))
            await passing.lost.wait()
        await asyncio.to_thread(postgres.set_back)
        passing.refusing = False
        with pytest.raises(StoreUnavailable, match="has lost what it had confirmed"):
            await (doubtful if in_doubt else append(opened, job, LOG))
        async with asyncio.timeout(30):
            assert "Start it again" in await opened.superseded()
    async with await SqlJobStore.open(postgres_url) as again:
        assert await again.get("a") == job
        assert await again.get("b") is None
        await append(again, job, LOG)


async def test_a_lock_whose_answer_was_lost_is_not_taken_for_another_services(
    postgres_url: str, soon_unanswered: None, patient: None
):
    async with proxy(postgres_url) as (passing, url), await SqlJobStore.open(url) as opened:
        lost = asyncio.create_task(opened.superseded())
        passing.lose = "lock"
        await _end_sessions(postgres_url)
        await insert(opened, draft("a"))
        assert passing.lost.is_set()
        assert not lost.done()
        lost.cancel()


async def test_a_reader_of_the_feed_misses_nothing_while_others_write(postgres_url: str):
    """Neither order nor gaps of the sequence of positions can make a cursor pass by an event."""
    async with await SqlJobStore.open(postgres_url) as opened:
        jobs = [await insert(opened, draft(f"a{n}")) for n in range(4)]
        writing = True

        async def write(number: int) -> None:
            job = jobs[number]
            for _ in range(25):
                job = await append(opened, job, LOG, LOG)
                with pytest.raises(
                    Exception, match="uq_events_job_id"
                ):  # takes positions, and gives them up
                    await append(opened, jobs[number], LOG)

        async def follow() -> list[int]:
            seen: list[int] = []
            cursor = 0
            while True:
                last = not writing
                found = await opened.feed(after=cursor, limit=7)
                seen += [position for position, _ in found]
                cursor = seen[-1] if seen else 0
                if last and not found:
                    return seen

        following = asyncio.create_task(follow())
        await asyncio.gather(*(write(number) for number in range(4)))
        writing = False
        everything = [position for position, _ in await opened.feed(after=0, limit=10_000)]
        assert await following == everything
        assert len(everything) == 4 * (1 + 25 * 2)


async def _read_on(opened: SqlJobStore) -> None:
    while True:
        await opened.get("a")


async def _allow_reads_alone(url: str) -> None:
    """Let a database be as it is on a standby, or where its administrator has put a full one out of harm's way."""
    connection = await asyncpg.connect(url)
    name = url.rpartition("/")[2]
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.close()
    await _end_sessions(url)


async def _end_sessions(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
