"""What of the jobs is kept in memory: enough to be fast, and no more however long they trained."""

import gc
import weakref
from collections.abc import Sequence

from tests.service.jobs.bench import EVALUATION
from tests.service.store.rows import NOON, draft

from dropnorm.results import Evaluated, Evaluation, Payload, State, StateChanged, Tracked
from dropnorm_service.jobs.journal import Entry, Journal
from dropnorm_service.store import SqlJobStore

EPOCHS = 1000
# For the evaluations of two jobs.
ROOM = 2 * 2000 * EPOCHS


async def tell(journal: Journal, job_id: str, *payloads: Payload) -> None:
    entries = [Entry(NOON, payload, 1) for payload in payloads]
    async with journal.holding(job_id) as live:
        await journal.change(live, lambda _: entries)


async def succeed(journal: Journal, job_id: str) -> weakref.ref[Evaluation]:
    """Let a job run to its end; the evaluation it came with."""
    history = [EVALUATION.history[0].model_copy(update={"epoch": 1 + n}) for n in range(EPOCHS)]
    evaluation = EVALUATION.model_copy(update={"history": tuple(history)})
    await journal.create(draft(job_id))
    await tell(journal, job_id, StateChanged(state=State.RUNNING))
    done = Evaluated(evaluation=evaluation), StateChanged(state=State.SUCCEEDED)
    await tell(journal, job_id, *done)
    return weakref.ref(done[0].evaluation)


def in_memory(evaluations: Sequence[weakref.ref[Evaluation]]) -> list[bool]:
    gc.collect()
    return [each() is not None for each in evaluations]


async def test_only_the_newest_evaluations_stay_in_memory(store: SqlJobStore) -> None:
    journal = Journal(store, idle_bytes=ROOM)
    made = [await succeed(journal, name) for name in ("one", "two", "three", "four")]
    assert in_memory(made) == [False, False, True, True]


async def test_every_job_is_whole_for_who_asks(store: SqlJobStore) -> None:
    journal = Journal(store, idle_bytes=0)
    made = [await succeed(journal, name) for name in ("one", "two")]
    assert in_memory(made[:1]) == [False]
    await tell(journal, "one", Tracked(mlflow_experiment_id="1", mlflow_run_id="run"))
    for _ in range(2):
        job = await journal.get("one")
        assert (job.state, job.mlflow_run_id, job.last_sequence) == (State.SUCCEEDED, "run", 5)
        assert job.evaluation is not None
        assert len(job.evaluation.history) == EPOCHS
        stored = await store.get("one")
        assert stored is not None
        assert job.model_dump_json() == stored.model_dump_json()


async def test_a_job_that_was_asked_for_is_remembered(store: SqlJobStore) -> None:
    journal = Journal(store, idle_bytes=ROOM)
    for name in ("one", "two", "three"):
        await succeed(journal, name)
    assert (await journal.get("one")).evaluation is (await journal.get("one")).evaluation
