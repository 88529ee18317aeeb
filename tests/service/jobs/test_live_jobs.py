"""What of the jobs is kept in memory: enough to be fast, and no more however long they trained."""

import gc
import tracemalloc
import weakref
from collections.abc import Sequence

from tests.service.jobs.bench import EVALUATION
from tests.service.store.rows import NOON, draft

from dropnorm.results import (
    EpochCompleted,
    Evaluated,
    Evaluation,
    Event,
    LayerReport,
    Payload,
    State,
    StateChanged,
    Tracked,
)
from dropnorm_service.jobs.journal import Entry, Journal
from dropnorm_service.jobs.live import LiveJob
from dropnorm_service.jobs.sizes import epoch_bytes
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


def test_what_results_take_in_memory_is_about_what_is_counted():
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        read = [EpochCompleted.model_validate_json(line) for line in DEEP_EPOCHS]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    counted = sum(epoch_bytes(each.metrics) for each in read)
    assert 0.5 * taken < counted < 2 * taken


def test_the_newest_part_of_a_journal_is_short_where_its_events_are_large():
    live = LiveJob(draft())
    events = [
        Event(training_job="trainingJobs/a", sequence=1 + n, time=NOON, attempt=1, payload=epoch)
        for n, epoch in enumerate(map(EpochCompleted.model_validate_json, DEEP_EPOCHS))
    ]
    for event in events:
        live.advance(live.job.model_copy(update={"last_sequence": event.sequence}), [event], None)
    assert live.recent(0, 9) is None, "it is read from the store"
    assert live.recent(len(events) - 1, 9) == events[-1:]


LAYERS = tuple(
    LayerReport(layer=f"hidden.{n}.activation", mean=n / 7, variance=n / 9, dead_share=n / 5000)
    for n in range(1000)
)
DEEP_EPOCHS = [
    EpochCompleted(
        metrics=EVALUATION.history[0].model_copy(update={"epoch": 1 + n, "layers": LAYERS})
    ).model_dump_json()
    for n in range(10)
]
"""Of a network as deep as is reported at most."""
