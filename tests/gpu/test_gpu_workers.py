"""Workers on GPUs: a slot each, a context only where a job trains."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from tests.service.workers.conftest import training
from tests.service.workers.conversation import running

from dropnorm.results import EpochCompleted, Evaluated
from dropnorm.spec import MLP, Compute, Optimization
from dropnorm_service.jobs.ports import Broken, Finished, Launch
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="module")]

ENDLESS = 100_000
Launches = Callable[..., Launch]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forks() -> AsyncIterator[ForkServer]:
    async with ForkServer() as forks:
        yield forks


@pytest_asyncio.fixture(loop_scope="module")
async def executor(forks: ForkServer, tmp_path: Path) -> AsyncIterator[LocalExecutor]:
    data = DataSettings(cache=tmp_path / "cache")
    async with LocalExecutor(forks, data=data, cpu_slots=1) as executor:
        yield executor


@pytest.fixture
def launch(tmp_path: Path) -> Launches:
    def make(job_id: str, **parts: object) -> Launch:
        spec = training(**parts)  # type: ignore[arg-type]
        return Launch(job_id=job_id, attempt=1, spec=spec, folder=tmp_path / job_id)

    return make


def uses_gpu(pid: int) -> bool:
    folder = f"/proc/{pid}/fd"
    opened = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    return any(path.startswith("/dev/nvidia") for path in opened)


async def test_every_gpu_is_a_slot(executor: LocalExecutor) -> None:
    slots = [slot for slot in executor.slots() if slot.device == "cuda"]
    assert [slot.device_name for slot in slots] == [
        torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
    ]
    assert all(slot.memory_bytes > 2**30 for slot in slots)


async def test_a_job_takes_a_gpu_where_there_is_one_and_the_fork_server_none(
    forks: ForkServer, executor: LocalExecutor, launch: Launches
) -> None:
    async with running(executor, launch("auto", epochs=3)) as attempt:
        assert await attempt.outcome() == Finished()
    evaluation = await attempt.until(Evaluated)
    assert evaluation.evaluation.cost.device == torch.cuda.get_device_name(0)
    epoch = await attempt.until(EpochCompleted)
    assert epoch.system is not None
    assert epoch.system.gpu_memory_bytes
    assert forks.pid is not None
    assert not uses_gpu(forks.pid)


async def test_a_job_on_the_cpu_sees_no_gpu(executor: LocalExecutor, launch: Launches) -> None:
    job = launch("cpu", epochs=3, compute=Compute(device="cpu"))
    async with running(executor, job) as attempt:
        assert await attempt.outcome() == Finished()
    evaluation = await attempt.until(Evaluated)
    assert evaluation.evaluation.cost.device != torch.cuda.get_device_name(0)


async def test_memory_that_runs_out_is_reported_as_such(
    executor: LocalExecutor, launch: Launches
) -> None:
    job = launch("huge", architecture=MLP(hidden=(2**20, 2**18)))
    async with running(executor, job) as attempt:
        outcome = await attempt.outcome()
    assert isinstance(outcome, Broken)
    assert outcome.error.reason == "OUT_OF_MEMORY"


async def test_gpu_and_cpu_learn_the_same(executor: LocalExecutor, launch: Launches) -> None:
    losses = []
    for device in ("cuda", "cpu"):
        job = launch(device, epochs=2, compute=Compute(device=device))
        async with running(executor, job) as attempt:
            assert await attempt.outcome() == Finished()
        losses.append((await attempt.until(EpochCompleted, 2)).metrics.validation_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
async def test_two_jobs_have_a_gpu_each(executor: LocalExecutor, launch: Launches) -> None:
    endless = Optimization(epochs=ENDLESS, batch_size=128)
    async with AsyncExitStack() as stack:
        attempts = [
            await stack.enter_async_context(running(executor, launch(name, optimization=endless)))
            for name in ("one", "two")
        ]
        await asyncio.gather(*(attempt.until(EpochCompleted) for attempt in attempts))
        busy = [slot.id for slot in executor.slots() if slot.training_job]
        assert busy == ["cuda-0", "cuda-1"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
async def test_a_job_can_take_two_gpus(executor: LocalExecutor, launch: Launches) -> None:
    job = launch("pair", epochs=2, compute=Compute(device="cuda", gpus=2))
    async with running(executor, job) as attempt:
        busy = [slot.id for slot in executor.slots() if slot.training_job]
        assert busy == ["cuda-0", "cuda-1"]
        assert await attempt.outcome() == Finished()
    assert executor.fits(job.spec)
