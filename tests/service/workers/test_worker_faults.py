"""What becomes of an attempt whose worker dies, breaks, fails, stands still or explodes: real workers all."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.service.workers.conftest import gone, training
from tests.service.workers.conversation import running
from tests.service.workers.faulty import Fault

from dropnorm.results import CheckpointWritten, EpochCompleted
from dropnorm.spec import MLP, Compute, Optimization
from dropnorm_service.jobs.ports import Broken, Finished, Launch, Lost, Outcome
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor
from dropnorm_service.workers import forks as forks_module
from dropnorm_service.workers.attempt import Patience, follow
from dropnorm_service.workers.memory import MemoryWatch

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDLESS = 100_000
MEMORY = 700 * 2**20
Launches = Callable[..., Launch]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def executor(data: DataSettings) -> AsyncIterator[LocalExecutor]:
    """One slot, and workers whose trainings go wrong where the seed says so."""
    preload = ("dropnorm_service.workers.child.preload", "tests.service.workers.faulty")
    async with (
        ForkServer(preload) as forks,
        LocalExecutor(
            forks,
            data=data,
            cpu_slots=1,
            threads_per_slot=1,
            gpus=0,
            worker_memory_limit=MEMORY,
            max_job_seconds=300.0,
            checkpoint_interval=0.5,
        ) as executor,
    ):
        yield executor


async def outcome_of(executor: LocalExecutor, launch: Launch) -> Outcome:
    async with running(executor, launch) as attempt:
        return await attempt.outcome()


class Clock:
    """Goes on by five seconds whenever somebody looks at it."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 5.0
        return self.now


@pytest.fixture
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its clock the server waits for seconds for each message of a worker."""
    monkeypatch.setattr("dropnorm_service.workers.attempt.time", Clock())


@pytest.mark.parametrize(
    ("fault", "name"),
    [(Fault.KILLED, "SIGKILL"), (Fault.SEGMENTATION, "SIGSEGV"), (Fault.BUS_ERROR, "SIGBUS")],
)
async def test_a_worker_that_dies_is_lost(
    fault: Fault, name: str, executor: LocalExecutor, launch: Launches
):
    outcome = await outcome_of(executor, launch(training(seed=fault)))
    assert isinstance(outcome, Lost)
    assert (outcome.error.reason, outcome.error.metadata["signal"]) == ("WORKER_LOST", name)


async def test_a_device_that_breaks_is_lost_and_its_slot_noted(
    executor: LocalExecutor, launch: Launches
):
    outcome = await outcome_of(executor, launch(training(seed=Fault.ECC)))
    assert isinstance(outcome, Lost)
    assert (outcome.error.code, outcome.error.reason) == (14, "DEVICE_ERROR")
    assert outcome.error.message == (
        "The device failed: CUDA error: uncorrectable ECC error encountered."
    )
    assert executor.rest() is not None
    assert executor.fits(training()), "there is no other"
    assert await outcome_of(executor, launch(training(), job_id="next")) == Finished()
    assert executor.rest() is None


@pytest.mark.parametrize("fault", [Fault.BUG, Fault.DEVICE_ASSERT])
async def test_a_bug_breaks_the_job(fault: Fault, executor: LocalExecutor, launch: Launches):
    outcome = await outcome_of(executor, launch(training(seed=fault)))
    assert isinstance(outcome, Broken)
    assert (outcome.error.code, outcome.error.reason) == (13, "INTERNAL")
    assert "bug" not in outcome.error.message


async def test_a_result_that_is_too_large_is_the_jobs_own_failure(
    executor: LocalExecutor, launch: Launches
):
    outcome = await outcome_of(executor, launch(training(seed=Fault.TALKATIVE)))
    assert isinstance(outcome, Broken)
    assert (outcome.error.code, outcome.error.reason) == (8, "RESULT_TOO_LARGE")
    assert outcome.error.metadata["limit_bytes"] == "1000"
    assert "Ask for fewer epochs" in outcome.error.message


async def test_a_full_disk_is_nobodys_fault(executor: LocalExecutor, launch: Launches):
    outcome = await outcome_of(executor, launch(training(seed=Fault.NO_ROOM_FOR_THE_MODEL)))
    assert isinstance(outcome, Lost)
    assert (outcome.error.code, outcome.error.reason) == (8, "DISK_FULL")
    assert "has no room (No space left on device); free some" in outcome.error.message


async def test_a_worker_that_shows_life_but_comes_no_further_hangs(
    executor: LocalExecutor, launch: Launches
):
    spec = training(seed=Fault.ENDLESS, compute=Compute(idle_limit=2.0))
    outcome = await outcome_of(executor, launch(spec))
    assert isinstance(outcome, Lost)
    assert outcome.error.reason == "WORKER_HUNG"
    assert "came no step further" in outcome.error.message
    assert "compute.idle_limit" in outcome.error.message


@pytest.mark.usefixtures("long_waits")
async def test_a_training_that_goes_on_does_not_stand_still(
    executor: LocalExecutor, launch: Launches
):
    spec = training(50, compute=Compute(idle_limit=30.0))
    assert await outcome_of(executor, launch(spec)) == Finished()


@pytest.mark.usefixtures("long_waits")
async def test_steps_that_no_progress_counts_come_further_too(
    executor: LocalExecutor, launch: Launches
):
    spec = training(1, seed=Fault.UNCOUNTED, compute=Compute(idle_limit=30.0))
    assert await outcome_of(executor, launch(spec)) == Finished()


@pytest.mark.parametrize(("asked", "limit"), [(None, 300.0), (7.0, 7.0), (999.0, 300.0)])
async def test_the_service_s_limit_holds_for_every_job(
    asked: float | None, limit: float, executor: LocalExecutor
):
    assert executor._time_limit(training(compute=Compute(time_limit=asked))) == limit


async def test_at_its_time_limit_a_training_ends_with_a_checkpoint(
    executor: LocalExecutor, launch: Launches
):
    job = launch(training(ENDLESS, seed=Fault.HURRIED, compute=Compute(time_limit=100.0)))
    async with running(executor, job) as attempt:
        outcome = await attempt.outcome()
    assert isinstance(outcome, Broken)
    assert (outcome.error.code, outcome.error.reason) == (4, "TIME_LIMIT")
    assert outcome.error.metadata["time_limit"] == "100"
    step = int(outcome.error.metadata["step"])
    assert isinstance(attempt.said[-1], CheckpointWritten)
    assert attempt.said[-1].step == step
    told = sum(isinstance(each, EpochCompleted) for each in attempt.said)
    assert told

    # The time of all attempts together is limited.
    again = launch(job.spec, attempt=2, epochs_told=told)
    async with running(executor, again) as attempt:
        assert isinstance(await attempt.outcome(), Broken)
    assert not any(isinstance(each, EpochCompleted) for each in attempt.said)


async def test_memory_that_runs_out_names_what_would_fit(executor: LocalExecutor, launch: Launches):
    wide = training(
        architecture=MLP(hidden=(2**16,)), optimization=Optimization(epochs=1, batch_size=2048)
    )
    outcome = await outcome_of(executor, launch(wide))
    assert isinstance(outcome, Broken)
    error = outcome.error
    assert (error.code, error.reason) == (8, "OUT_OF_MEMORY")
    limit = int(error.metadata["limit_bytes"])
    assert limit == executor.memory_limit(wide)
    assert int(error.metadata["estimated_bytes"]) > int(error.metadata["free_bytes"])
    fitting = int(error.metadata["optimization.batch_size"])
    assert f"Give optimization.batch_size {fitting}" in error.message
    smaller = Optimization(epochs=1, batch_size=fitting)
    again = launch(wide.model_copy(update={"optimization": smaller}), job_id="smaller")
    assert await outcome_of(executor, again) == Finished()


async def test_a_worker_that_no_limit_of_its_own_stops_is_killed_at_it(
    bare_forks: ForkServer, launch: Launches
):
    child = await bare_forks.fork(
        "tests.service.workers.children:grow", {}, memory_limit=forks_module.UNLIMITED
    )
    watch = MemoryWatch(child, MEMORY)
    async with watch.watching():
        said = follow(child, launch(), Patience(idle=60.0, busy=60.0), watch)
        [outcome] = [item async for item in said]
    assert isinstance(outcome, Broken)
    assert outcome.error.reason == "OUT_OF_MEMORY"
    assert "may use 700 MiB" in outcome.error.message
    assert int(outcome.error.metadata["used_bytes"]) > MEMORY
    assert await gone(child.pid)


@pytest.mark.parametrize(
    ("kills", "used", "says"),
    [
        ((3, 4), 100, "The machine ran out of memory and it used"),
        ((3, 3), 600 * 2**20, "Unless somebody killed it, the machine ran out of memory"),
        ((None, None), 600 * 2**20, "Unless somebody killed it"),
        ((3, 3), 100 * 2**20, "Somebody killed it; it used 100 MiB"),
    ],
)
async def test_who_killed_a_worker(
    kills: tuple[int | None, int | None],
    used: int,
    says: str,
    bare_forks: ForkServer,
    launch: Launches,
    monkeypatch: pytest.MonkeyPatch,
):
    told = iter(kills)
    monkeypatch.setattr("dropnorm_service.workers.machine.memory_kills", lambda: next(told))
    child = await bare_forks.fork("tests.service.workers.children:hang", {})
    watch = MemoryWatch(child, MEMORY)
    watch.used = used
    os.kill(child.pid, signal.SIGKILL)
    said = follow(child, launch(), Patience(idle=60.0, busy=60.0), watch)
    outcome = [item async for item in said][-1]
    assert isinstance(outcome, Lost)
    assert says in outcome.error.message
    assert outcome.error.metadata["used_bytes"] == str(used)


def oom_score(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_workers_are_whom_the_kernel_ends_first(bare_forks: ForkServer):
    child = await bare_forks.fork("tests.service.workers.children:hang", {})
    await child.receive()
    assert oom_score(child.pid) >= 500 > oom_score(bare_forks.pid)
    await child.end()
