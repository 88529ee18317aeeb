"""Any sequence of requests, outcomes, crossings and crashes leaves every job in order."""

import asyncio
import itertools
import sqlite3
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.service.jobs.bench import PATIENCE, Attempt, Bench, lost

from dropnorm.results import Event, LogLine, State, StateChanged, TrainingJob
from dropnorm_service.jobs.errors import JobNotFound, WrongState
from dropnorm_service.jobs.ports import Broken, Outcome, Stopped
from dropnorm_service.jobs.projection import project
from dropnorm_service.jobs.states import MOVES
from dropnorm_service.store import SqlJobStore

T = TypeVar("T")

REQUESTS = st.sampled_from(["cancel", "pause", "resume", "delete", "force"])
SAYINGS = st.sampled_from(["log", "checkpoint", "succeed", "break", "lose", "stop", "obey"])
OUTCOMES: dict[str, Outcome] = {
    "break": Broken(lost().error),
    "lose": lost(),
    "stop": Stopped("pause"),
}


class Life(RuleBasedStateMachine):
    """Jobs on a service with two slots, on a real database."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.number = 0
        self.jobs: list[TrainingJob] = []
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @property
    def database(self) -> Path:
        return Path(self.folder.name) / f"jobs-{self.number}.db"

    async def begin(self) -> None:
        self.store = await SqlJobStore.open(f"sqlite:///{self.database}")
        self.bench = Bench(self.store, Path(self.folder.name) / "jobs")
        await self.bench.service.start()

    async def end(self) -> None:
        await self.bench.service.stop(grace=0.0)
        await self.store.close()

    @rule()
    def create(self) -> None:
        self.jobs.append(self.run(self.bench.create()))

    # What is drawn must not depend on how far workers are, or Hypothesis could not repeat a run.

    @precondition(lambda self: self.jobs)
    @rule(
        which=st.integers(0, 99),
        requests=st.lists(REQUESTS, min_size=1, max_size=4),
        saying=st.none() | SAYINGS,
    )
    def ask(self, which: int, requests: list[str], saying: str | None) -> None:
        """Ask several things of one job at once, while its worker may be saying something too."""
        job = self.jobs[which % len(self.jobs)]

        async def cross() -> None:
            asking = [asyncio.create_task(self.request(job.id, each)) for each in requests]
            if saying is not None and job.id in self.bench.executor.attempts:
                _say(self.bench.executor.attempts[job.id], saying)
            await asyncio.gather(*asking)

        self.run(cross())

    @rule(which=st.integers(0, 1), sayings=st.lists(SAYINGS, min_size=1, max_size=3))
    def work(self, which: int, sayings: list[str]) -> None:
        """Let a worker say something, if there is one."""
        for attempt in list(self.bench.executor.attempts.values())[which : which + 1]:
            for saying in sayings:
                _say(attempt, saying)

    @rule()
    def settle(self) -> None:
        self.run(asyncio.sleep(0.02))

    @rule()
    def restart(self) -> None:
        self.run(self.end())
        self.run(self.begin())

    @rule()
    def crash(self) -> None:
        """Go on from what is on disk at this moment, as after a power cut."""
        source = sqlite3.connect(self.database)
        self.number += 1
        target = sqlite3.connect(self.database)
        source.backup(target)
        source.close()
        target.close()
        self.run(self.end())
        self.run(self.begin())

    @invariant()
    def every_journal_is_in_order(self) -> None:
        self.run(self.check())

    def teardown(self) -> None:
        self.run(self.end())
        self.run(self.begin())
        self.run(self.check())
        self.run(self.end())
        self.runner.close()
        self.folder.cleanup()

    async def request(self, job_id: str, request: str) -> None:
        service = self.bench.service
        try:
            match request:
                case "delete" | "force":
                    await service.delete(job_id, force=request == "force")
                case _:
                    await getattr(service, request)(job_id)
        except (JobNotFound, WrongState):
            pass

    async def check(self) -> None:
        await asyncio.gather(*map(self.check_job, self.jobs))

    async def check_job(self, job: TrainingJob) -> None:
        # One transaction holds row and journal, but these are two reads: repeat until they meet.
        async with asyncio.timeout(PATIENCE):
            row, events = await self.read(job)
            while row is not None and row.last_sequence != len(events):
                row, events = await self.read(job)
        if row is None:
            assert not events, "a purged job leaves no journal"
            return
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        _assert_legal(events)
        assert _dump(row) == _dump(_replayed(row, events))

    async def read(self, job: TrainingJob) -> tuple[TrainingJob | None, list[Event]]:
        row = await self.store.get(job.id, deleted=True)
        return row, list(await self.store.events(job.id, after=0, limit=10_000))


def _say(attempt: Attempt, saying: str) -> None:
    match saying:
        case "log":
            attempt.say(LogLine(message="hello"))
        case "checkpoint":
            attempt.checkpoint(attempt.launch.attempt)
        case "succeed":
            attempt.succeed()
        case "obey" if not attempt.orders:
            attempt.say(LogLine(message="no orders"))
        case "obey":
            attempt.end(Stopped(attempt.orders[-1]))
        case _:
            attempt.end(OUTCOMES[saying])


def _assert_legal(events: list[Event]) -> None:
    changes = [event.payload for event in events if isinstance(event.payload, StateChanged)]
    states = [change.state for change in changes]
    assert states[0] is State.QUEUED
    for before, after in itertools.pairwise(states):
        assert after in MOVES[before], f"{before} -> {after}"
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts)


def _replayed(row: TrainingJob, events: list[Event]) -> TrainingJob:
    fields = ("name", "display_name", "experiment", "labels", "priority", "spec", "spec_digest")
    draft = TrainingJob(
        **{field: getattr(row, field) for field in fields},
        state=State.QUEUED,
        create_time=row.create_time,
        update_time=row.create_time,
    )
    return project(draft, events)[0]


def _dump(job: TrainingJob) -> str:
    return job.model_dump_json()  # unlike models, texts with NaN in them are equal


TestLife = pytest.mark.timeout(600)(Life.TestCase)  # some thousand transactions
TestLife.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
