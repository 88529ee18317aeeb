"""The contract of a job store, on every database."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.service.jobs.bench import EVALUATION
from tests.service.store.rows import SPEC, append, change, draft, insert
from tests.strategies import results, submissions

from dropnorm.results import (
    CheckpointWritten,
    Evaluated,
    Event,
    JobError,
    LogLine,
    Progress,
    Progressed,
    State,
    StateChanged,
    Tracked,
)
from dropnorm.spec import Data
from dropnorm_service.jobs.errors import JobAlreadyExists, StoreUnavailable
from dropnorm_service.jobs.ports import DeletedJob, RequestAccepted, RequestRecord
from dropnorm_service.store import SqlJobStore, removal
from dropnorm_service.store import store as store_module

LOG = LogLine(message="hello")
ERROR = JobError(code=3, reason="DIVERGED", message="Not a number.", metadata={"epoch": "3"})
PROGRESS = Progress(phase="training", epoch=1, epochs=5, step=10, steps=50)

RUNNING = StateChanged(state=State.RUNNING)
SUCCEEDED = StateChanged(state=State.SUCCEEDED)
CANCELLED = StateChanged(state=State.CANCELLED)


class TestJobStore:
    """What `jobs.ports.JobStore` promises."""

    async def test_a_job_comes_back_as_it_was_written(self, store: SqlJobStore):
        job = await insert(store, draft(labels={"team": "vision", "a": ""}, priority=-3))
        assert await store.get("a") == job
        assert await store.get("b") is None

    async def test_every_change_of_a_row_is_kept(self, store: SqlJobStore):
        job = await insert(store, draft())
        job = await append(store, job, RUNNING, Progressed(progress=PROGRESS))
        job = await append(store, job, Tracked(mlflow_experiment_id="1", mlflow_run_id="r"))
        assert await store.get("a") == job
        job = await append(store, job, StateChanged(state=State.FAILED, error=ERROR))
        assert await store.get("a") == job
        assert (job.error, job.progress, job.mlflow_run_id) == (ERROR, PROGRESS, "r")

    async def test_a_journal_comes_back_in_parts(self, store: SqlJobStore):
        job = await insert(store, draft())
        further = change(job, RUNNING, LOG, CheckpointWritten(epoch=1, step=2))
        await store.commit(further)
        assert await store.events("a", after=1, limit=2) == list(further.events[:2])
        assert await store.events("a", after=3, limit=2) == list(further.events[2:])
        assert await store.events("a", after=4, limit=2) == []
        assert await store.events("b", after=0, limit=2) == []

    async def test_a_job_that_succeeded_has_the_newest_evaluation_of_its_journal(
        self, store: SqlJobStore
    ):
        job = await insert(store, draft())
        early = EVALUATION.model_copy(update={"best_epoch": 9})
        job = await append(store, job, RUNNING, Evaluated(evaluation=early))
        assert await _evaluation(store) == "null"
        await append(store, job, Evaluated(evaluation=EVALUATION), SUCCEEDED)
        assert await _evaluation(store) == EVALUATION.model_dump_json()

    async def test_the_feed_gives_fewer_events_where_they_are_large_and_at_least_one(
        self, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(store_module, "_FEED_CHARACTERS", 1000)
        job = await insert(store, draft())
        await append(store, job, *(LogLine(message="x" * size) for size in (300, 300, 5000, 300)))
        seen: list[int] = []
        sizes = []
        while feed := await store.feed(after=seen[-1] if seen else 0, limit=100):
            seen += [position for position, _ in feed]
            sizes.append(len(feed))
        assert sizes == [4, 1]
        assert len(seen) == 5

    async def test_the_feed_has_all_journals_in_the_order_written(self, store: SqlJobStore):
        a = await insert(store, draft("a"))
        b = await insert(store, draft("b"))
        await append(store, a, RUNNING)
        await append(store, b, CANCELLED, deleted=True)
        feed = await store.feed(after=0, limit=100)
        assert [(event.training_job[-1], event.sequence) for _, event in feed] == [
            ("a", 1),
            ("b", 1),
            ("a", 2),
            ("b", 2),
        ]
        positions = [position for position, _ in feed]
        assert positions == sorted(set(positions))
        assert await store.feed(after=positions[1], limit=1) == [feed[2]]
        assert await store.feed(after=positions[-1], limit=1) == []

    async def test_an_id_is_taken_once_and_nothing_of_a_refused_job_is_written(
        self, store: SqlJobStore
    ):
        first = await insert(store, draft())
        with pytest.raises(JobAlreadyExists):
            await insert(store, draft(priority=9))
        assert await store.get("a") == first
        assert len(await store.feed(after=0, limit=100)) == 1

    async def test_a_request_id_is_accepted_once_and_says_for_what(self, store: SqlJobStore):
        record = RequestRecord(request_id="r", digest="d", job_id="a")
        await store.commit(change(draft("a"), LOG, insert=True, request=record))
        for job_id in ("a", "b"):
            other = RequestRecord(request_id="r", digest="other", job_id=job_id)
            with pytest.raises(RequestAccepted) as raised:
                await store.commit(change(draft(job_id), LOG, insert=True, request=other))
            assert raised.value.record == record
        assert await store.get("b") is None
        assert await store.request("local", "r") == record
        assert await store.request("local", "s") is None
        assert await store.request("ada", "r") is None

    async def test_each_user_has_request_ids_of_his_own(self, store: SqlJobStore):
        records = [
            RequestRecord(request_id="r", digest=user, job_id=user, owner=user)
            for user in ("ada", "bob")
        ]
        for record in records:
            job = draft(record.job_id, owner=record.owner)
            await store.commit(change(job, LOG, insert=True, request=record))
        assert [await store.request(each.owner, "r") for each in records] == records

    async def test_of_many_at_once_one_gets_the_id_and_the_others_are_refused(
        self, store: SqlJobStore
    ):
        writing = [insert(store, draft("a", priority=n)) for n in range(20)]
        writing += [insert(store, draft(f"b{n}")) for n in range(20)]
        done = await asyncio.gather(*writing, return_exceptions=True)
        refused = [each for each in done if isinstance(each, JobAlreadyExists)]
        assert (len(refused), len(done) - len(refused)) == (19, 21)
        assert await store.get("a") in done

    async def test_one_bad_change_among_many_fails_alone(self, store: SqlJobStore):
        good = [await insert(store, draft(f"a{n}")) for n in range(10)]
        bad = await append(store, good[0], LOG)
        writing = [append(store, job, LOG) for job in [*good[1:5], good[0], *good[5:]]]
        done = await asyncio.gather(*writing, return_exceptions=True)
        assert [isinstance(each, Exception) for each in done] == [n == 4 for n in range(10)]
        assert await store.get("a0") == bad
        for job in good[1:]:
            assert len(await store.events(job.id, after=0, limit=9)) == 2

    async def test_a_caller_who_goes_away_leaves_the_others_unharmed(self, store: SqlJobStore):
        tasks = [asyncio.create_task(insert(store, draft(f"a{n}"))) for n in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in done if isinstance(each, Exception)] == []
        assert await store.get("a9") is not None

    async def test_unfinished_jobs_are_all_found_deleted_ones_too(self, store: SqlJobStore):
        jobs = {state: await insert(store, draft(state.value, state=state)) for state in State}
        await append(store, jobs[State.CANCELLING], deleted=True)
        found = [job async for job in store.unfinished()]
        assert {job.state for job in found} == {state for state in State if not state.terminal}
        assert len(found) == 5

    async def test_unfinished_jobs_are_found_by_the_data_they_use(self, store: SqlJobStore):
        reviews = SPEC.model_copy(update={"data": Data(dataset="reviews")})
        await insert(store, draft("a"))
        await insert(store, draft("b", spec=reviews))
        await insert(store, draft("c", spec=reviews, state=State.SUCCEEDED))
        assert [job.id async for job in store.unfinished("reviews")] == ["b"]
        assert [job.id async for job in store.unfinished("rev")] == []

    async def test_a_deleted_job_is_hidden_and_stays_hidden(self, store: SqlJobStore):
        job = await insert(store, draft())
        job = await append(store, job, deleted=True)
        job = await append(store, job, CANCELLED)
        assert await store.get("a") is None
        assert await store.get("a", deleted=True) == job
        assert len(await store.events("a", after=0, limit=9)) == 2
        with pytest.raises(JobAlreadyExists):
            await insert(store, draft())
        assert await store.deleted() == [DeletedJob("a", State.CANCELLED, 2)]

    async def test_a_purged_job_leaves_nothing_and_frees_its_ids(self, store: SqlJobStore):
        record = RequestRecord(request_id="r", digest="d", job_id="a")
        first = change(draft(labels={"a": "b"}), LOG, insert=True, request=record)
        await store.commit(first)
        kept = await insert(store, draft("b"))
        await append(store, first.job, CANCELLED, deleted=True)
        await store.purge(["a"])
        assert await store.get("a", deleted=True) is None
        assert await store.deleted() == []
        assert {event.training_job for _, event in await store.feed(after=0, limit=9)} == {
            "trainingJobs/b"
        }
        await store.commit(first)
        assert await store.get("b") == kept

    async def test_others_write_while_many_jobs_are_purged(
        self, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(removal, "_EVENTS", 3)
        going = [await _deleted(store, f"a{number}") for number in range(20)]
        purging = asyncio.create_task(store.purge(going))
        await asyncio.sleep(0)  # it has asked for its first transaction
        await insert(store, draft("new"))
        assert not purging.done(), "the purge goes on behind it"
        await purging
        assert await store.deleted() == []
        assert await store.known([*going, "new"]) == {"new"}
        assert len(await store.feed(after=0, limit=999)) == 1

    async def test_jobs_are_counted_rightly_while_deleted_ones_are_purged(
        self, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ):
        await insert(store, draft("kept"))
        await append(store, await insert(store, draft("ended")), CANCELLED)
        going = [await _deleted(store, f"a{number}") for number in range(9)]
        read = store._reader.read

        async def purged_behind(query: Select[Any]) -> Sequence[Row[Any]]:
            rows = await read(query)
            await store.purge([going.pop()])
            return rows

        monkeypatch.setattr(store._reader, "read", purged_behind)
        while going:
            found = {state: jobs for state, jobs in (await store.count_states()).items() if jobs}
            assert found == {State.QUEUED: 1, State.CANCELLED: 1}

    async def test_a_purge_that_is_broken_off_leaves_no_gap_and_can_be_finished(
        self, store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(removal, "_EVENTS", 3)
        job_id = await _deleted(store, "a", events=200)
        portions = 0

        async def break_off(connection: AsyncConnection, job_ids: Sequence[str]) -> int:
            nonlocal portions
            portions += 1
            if portions == 3:
                purging.cancel()
            return await removal.remove_portion(connection, job_ids)

        with monkeypatch.context() as patch:
            patch.setattr(store_module, "remove_portion", break_off)
            purging = asyncio.create_task(store.purge([job_id]))
            await asyncio.wait([purging])
        assert purging.cancelled()
        left = await store.events("a", after=0, limit=999)
        assert [event.sequence for event in left] == list(range(1, len(left) + 1))
        assert 0 < len(left) < 200
        assert await store.get("a") is None
        [known] = await store.deleted()
        assert known.job_id == "a"
        await store.purge([known.job_id])
        assert await store.known(["a"]) == set()
        assert await store.feed(after=0, limit=99) == []

    async def test_positions_are_not_used_again(self, store: SqlJobStore):
        job = await insert(store, draft())
        await append(store, job, CANCELLED, deleted=True)
        [(_, _), (last, _)] = await store.feed(after=0, limit=9)
        await store.purge(["a"])
        await insert(store, draft())
        [(position, _)] = await store.feed(after=last, limit=9)
        assert position > last

    async def test_cursors_are_kept_apart(self, store: SqlJobStore):
        assert await store.cursor("mlflow") == 0
        await store.move_cursor("mlflow", 3)
        await store.move_cursor("mlflow", 2**40)
        await store.move_cursor("other", 5)
        assert [await store.cursor(name) for name in ("mlflow", "other")] == [2**40, 5]

    async def test_a_closed_store_is_neither_read_nor_written(self, url: str):
        store = await SqlJobStore.open(url)
        await store.close()
        for use in (store.get("a"), insert(store, draft())):
            with pytest.raises(StoreUnavailable, match="is closed"):
                await use

    async def test_everything_is_there_after_closing_and_opening(self, url: str):
        async with await SqlJobStore.open(url) as store:
            job = await insert(store, draft())
            await store.move_cursor("mlflow", 3)
        async with await SqlJobStore.open(url) as store:
            assert await store.get("a") == job
            assert await store.cursor("mlflow") == 3

    @settings(
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(data=st.data())
    def test_anything_that_can_be_said_can_be_stored(self, url: str, data: st.DataObject):
        submission = data.draw(submissions())
        events = data.draw(st.lists(results(Event), max_size=3))

        async def store_and_read() -> None:
            async with await SqlJobStore.open(url) as store:
                await store.purge(["a"])
                job = draft(**{**dict(submission), "display_name": submission.display_name or "a"})
                written = change(job, *(event.payload for event in events), insert=True)
                await store.commit(written)
                read = await store.events("a", after=0, limit=9)
                assert [event.model_dump_json() for event in read] == [
                    event.model_dump_json() for event in written.events
                ]
                found = await store.get("a")
                assert found is not None
                assert found.spec == submission.spec
                assert found.labels == submission.labels

        asyncio.run(store_and_read())


async def _deleted(store: SqlJobStore, job_id: str, events: int = 8) -> str:
    """A job that has ended and is hidden."""
    job = await insert(store, draft(job_id))
    await append(store, job, *[LOG] * (events - 2), CANCELLED, deleted=True)
    return job_id


async def _evaluation(store: SqlJobStore) -> str:
    job = await store.get("a")
    assert job is not None
    return job.evaluation.model_dump_json() if job.evaluation else "null"
