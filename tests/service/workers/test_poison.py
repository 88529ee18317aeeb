"""Poison among good jobs, in real workers: each fails for a reason of its own, and nobody is held up for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.service.jobs.bench import BenchPlanner
from tests.service.workers.conftest import training
from tests.service.workers.faulty import Fault

from dropnorm.results import JobError, State, StateChanged, TrainingJob
from dropnorm.spec import MLP, SGD, Compute, Data, Optimization, Submission, TrainingSpec
from dropnorm_service.jobs.callers import LOCAL
from dropnorm_service.jobs.retries import RetryPolicy
from dropnorm_service.jobs.service import JobService
from dropnorm_service.store import SqlJobStore
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

LIMIT = 2
HEALTHY = 6
POISON: dict[str, tuple[TrainingSpec, str, int]] = {
    "killer": (training(seed=Fault.KILLED), "WORKER_LOST", LIMIT),
    "crasher": (training(seed=Fault.SEGMENTATION), "WORKER_LOST", LIMIT),
    "frozen": (training(seed=Fault.FROZEN), "WORKER_HUNG", LIMIT),
    "idler": (
        training(seed=Fault.ENDLESS, compute=Compute(idle_limit=1.0)),
        "WORKER_HUNG",
        LIMIT,
    ),
    "diverging": (
        training(
            data=Data(dataset="diabetes"),
            optimization=Optimization(optimizer=SGD(lr=1000.0), epochs=20),
        ),
        "DIVERGED",
        1,
    ),
    "glutton": (
        training(
            architecture=MLP(hidden=(2**16,)), optimization=Optimization(epochs=1, batch_size=2048)
        ),
        "OUT_OF_MEMORY",
        1,
    ),
    "buggy": (training(seed=Fault.BUG), "INTERNAL", 1),
}
"""By job: what it is, why it fails, and after how many attempts."""


async def test_each_fails_for_its_own_reason_and_every_good_one_succeeds(
    data: DataSettings, tmp_path: Path
):
    preload = ("dropnorm_service.workers.child.preload", "tests.service.workers.faulty")
    async with (
        await SqlJobStore.open(f"sqlite:///{tmp_path}/jobs.db") as store,
        ForkServer(preload) as forks,
        LocalExecutor(
            forks,
            data=data,
            cpu_slots=2,
            threads_per_slot=1,
            gpus=0,
            worker_memory_limit=700 * 2**20,
            heartbeat_timeout=5.0,
        ) as executor,
    ):
        jobs = JobService(
            store,
            executor,
            BenchPlanner(),
            folder=tmp_path / "jobs",
            retry=RetryPolicy(limit=LIMIT, first_delay=0.1, max_delay=0.2),
        )
        await jobs.start()
        poison = {name: await create(jobs, spec) for name, (spec, *_) in POISON.items()}
        healthy = [await create(jobs, training(seed=number)) for number in range(HEALTHY)]
        done = await asyncio.gather(*(ended(jobs, job) for job in healthy))
        failed = await asyncio.gather(*(ended(jobs, job) for job in poison.values()))
        last = await ended(jobs, await create(jobs, training()))
        await jobs.stop(grace=5.0)

    assert [job.state for job in (*done, last)] == [State.SUCCEEDED] * (HEALTHY + 1)
    assert [job.attempt for job in (*done, last)] == [1] * (HEALTHY + 1)
    assert {job.state for job in failed} == {State.FAILED}
    told = {name: told_of(job) for name, job in zip(poison, failed, strict=True)}
    assert told == {name: (reason, attempts) for name, (_, reason, attempts) in POISON.items()}


async def create(jobs: JobService, spec: TrainingSpec) -> TrainingJob:
    return await jobs.create(LOCAL, Submission(spec=spec))


async def ended(jobs: JobService, job: TrainingJob) -> TrainingJob:
    """The job, when it has come to its end."""
    lost: list[JobError] = []
    async for event in jobs.watch(LOCAL, job.id):
        if isinstance(event.payload, StateChanged) and event.payload.error:
            lost.append(event.payload.error)
    assert len({error.reason for error in lost}) <= 1, "each attempt for the same reason"
    return await jobs.get(LOCAL, job.id)


def told_of(job: TrainingJob) -> tuple[str, int]:
    assert job.error is not None
    return job.error.reason, job.attempt
