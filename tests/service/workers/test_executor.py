import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.service.workers.conftest import (
    children_of,
    gone,
    logged,
    no_descriptors,
    threads_of,
    training,
)
from tests.service.workers.conversation import running

from dropnorm.results import (
    CheckpointWritten,
    DatasetLoaded,
    EpochCompleted,
    Evaluated,
    Progressed,
)
from dropnorm.spec import MLP, SGD, Compute, Data, Optimization
from dropnorm_service.jobs.ports import Broken, Finished, Launch, Lost, Stopped
from dropnorm_service.jobs.retries import WAITED_FOR
from dropnorm_service.training import load_model
from dropnorm_service.workers import DataSettings, ForkServer, LocalExecutor, StartFailed
from dropnorm_service.workers import executor as executor_module
from dropnorm_service.workers.messages import Gpu

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDLESS = 100_000
Launches = Callable[..., Launch]


def executor_of(forks: ForkServer, data: DataSettings, **settings: float) -> LocalExecutor:
    return LocalExecutor(
        forks,
        data=data,
        **{"cpu_slots": 1, "threads_per_slot": 1, "gpus": 0, **settings},  # type: ignore[arg-type]
    )


def worker_of(launch: Launch) -> int:
    """The process that holds the job's folder, which has come as far as an epoch."""
    return int((launch.folder / "lock").read_text())


async def test_an_attempt_trains_and_leaves_its_model(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    job = launch(training(epochs=3))
    async with executor_of(forks, data) as executor, running(executor, job) as attempt:
        assert await attempt.outcome() == Finished()
    phases = [each.progress.phase for each in attempt.said if isinstance(each, Progressed)]
    assert list(dict.fromkeys(phases)) == [
        "loading_data",
        "building",
        "training",
        "validating",
        "testing",
    ]
    first_step = next(
        each for each in attempt.said if isinstance(each, Progressed) and each.progress.step
    )
    assert first_step.progress.step == 1
    assert [type(each) for each in attempt.said if not isinstance(each, Progressed)] == [
        DatasetLoaded,
        EpochCompleted,
        EpochCompleted,
        EpochCompleted,
        Evaluated,
    ]
    for each in attempt.said:
        if isinstance(each, EpochCompleted):
            assert each.system is not None
            assert each.system.cpu_percent > 0.0
            assert each.system.memory_bytes > 2**25
            assert each.system.gpu_memory_bytes is None
    load_model(job.folder / "model")


async def test_a_slot_is_taken_from_the_first_step_until_the_process_is_gone(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    job = launch(training(ENDLESS), attempt=3)
    async with executor_of(forks, data) as executor:
        assert executor.fits(job.spec)
        async with running(executor, job) as attempt:
            assert not executor.fits(job.spec)
            (slot,) = executor.slots()
            assert (slot.id, slot.device, slot.threads) == ("cpu-0", "cpu", 1)
            assert (slot.training_job, slot.attempt) == ("trainingJobs/job", 3)
            await attempt.until(EpochCompleted)
            worker = worker_of(job)
        assert await gone(worker)
        (slot,) = executor.slots()
        assert (slot.training_job, slot.attempt) == ("", 0)
        assert executor.fits(job.spec)


async def test_each_attempt_has_a_process_of_its_own(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    workers = []
    async with executor_of(forks, data) as executor:
        for name in ("first", "second"):
            job = launch(training(ENDLESS), job_id=name)
            async with running(executor, job) as attempt:
                await attempt.until(EpochCompleted)
                workers.append(worker_of(job))
    assert len(set(workers)) == 2


async def test_two_slots_run_at_once_each_with_the_threads_its_job_is_worth(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    small, large = (
        launch(training(ENDLESS, architecture=MLP(hidden=hidden)), job_id=name)
        for name, hidden in (("one", (16,)), ("two", (512, 512)))
    )
    async with (
        # A checkpoint would be written by a thread of its own.
        executor_of(
            forks, data, cpu_slots=2, threads_per_slot=2, checkpoint_interval=3600.0
        ) as executor,
        running(executor, small) as one,
        running(executor, large) as two,
    ):
        assert not executor.fits(small.spec)
        await one.until(EpochCompleted)
        await two.until(EpochCompleted)
        # Autograd keeps threads of its own in both.
        assert threads_of(worker_of(large)) == threads_of(worker_of(small)) + 1
        assert [slot.training_job for slot in executor.slots()] == [
            "trainingJobs/one",
            "trainingJobs/two",
        ]


@pytest.mark.parametrize("order", ["pause", "cancel"])
async def test_an_ordered_end_leaves_a_checkpoint_to_go_on_from(
    order: str, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with executor_of(forks, data) as executor:
        job = launch(training(ENDLESS))
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted, 3)
            executor.order("job", order)  # type: ignore[arg-type]
            assert await attempt.outcome() == Stopped(order)  # type: ignore[arg-type]
        written = attempt.said[-1]
        assert isinstance(written, CheckpointWritten)
        assert written.epoch >= 3
        again = launch(training(ENDLESS), attempt=2, epochs_told=written.epoch)
        async with running(executor, again) as attempt:
            epoch = await attempt.until(EpochCompleted)
            assert epoch.metrics.epoch == written.epoch + 1


async def test_a_worker_leaves_its_checkpoints_to_whoever_did_not_hear_of_its_end(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    # Of so many epochs it does not come to the last before this process has read of the others.
    spec = training(epochs=2000, data=Data(dataset="iris"))
    async with executor_of(forks, data) as executor:
        async with running(executor, launch(spec)) as attempt:
            await attempt.until(EpochCompleted)
            executor.order("job", "checkpoint")
            await attempt.until(CheckpointWritten)
            assert await attempt.outcome() == Finished()
        again = launch(spec, attempt=2, epochs_told=1)
        async with running(executor, again) as attempt:
            assert await attempt.outcome() == Finished()
    assert all(each.metrics.epoch > 1 for each in attempt.said if isinstance(each, EpochCompleted))


async def test_epochs_that_did_not_come_into_the_journal_are_told_by_the_next_attempt(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with executor_of(forks, data) as executor:
        async with running(executor, launch(training(ENDLESS))) as first:
            await first.until(EpochCompleted, 4)
            executor.order("job", "pause")
            assert await first.outcome() == Stopped("pause")
        again = launch(training(ENDLESS), attempt=2, epochs_told=2)
        written = first.said[-1]
        assert isinstance(written, CheckpointWritten)
        async with running(executor, again) as second:
            await second.until(EpochCompleted, written.epoch - 1)
    before = [each for each in first.said if isinstance(each, EpochCompleted)]
    *retold, anew = [each for each in second.said if isinstance(each, EpochCompleted)]
    assert [each.metrics for each in retold] == [each.metrics for each in before[2:]]
    assert all(each.system is None for each in retold), "what they cost then is not known"
    assert anew.metrics.epoch == written.epoch + 1
    resumed = next(each for each in second.said if isinstance(each, CheckpointWritten))
    assert (resumed.epoch, resumed.step) == (written.epoch, written.step)


async def test_a_checkpoint_can_be_ordered_and_the_training_goes_on(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with (
        executor_of(forks, data) as executor,
        running(executor, launch(training(ENDLESS))) as attempt,
    ):
        await attempt.until(EpochCompleted)
        executor.order("job", "checkpoint")
        written = await attempt.until(CheckpointWritten)
        epochs = sum(isinstance(each, EpochCompleted) for each in attempt.said)
        await attempt.until(EpochCompleted, epochs + 2)
        assert written.step > 0


async def test_checkpoints_are_written_by_the_clock(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with (
        executor_of(forks, data, checkpoint_interval=0.05) as executor,
        running(executor, launch(training(ENDLESS))) as attempt,
    ):
        await attempt.until(CheckpointWritten, 2)


@pytest.mark.parametrize("order", ["pause", "cancel"])
async def test_an_order_reaches_a_worker_that_has_not_begun(
    order: str, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with (
        executor_of(forks, data) as executor,
        running(executor, launch(training(ENDLESS))) as attempt,
    ):
        executor.order("job", order)  # type: ignore[arg-type]
        assert await attempt.outcome() == Stopped(order)  # type: ignore[arg-type]
        assert not any(isinstance(each, EpochCompleted) for each in attempt.said)


async def test_an_attempt_waits_until_the_one_before_has_left_the_folder(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with executor_of(forks, data, cpu_slots=2) as executor:
        job = launch(training(ENDLESS), job_id="job")
        async with running(executor, job) as first:
            await first.until(EpochCompleted)
            holder = worker_of(job)
            again = Launch(job_id="again", attempt=2, spec=job.spec, folder=job.folder)
            async with running(executor, again) as second:
                await asyncio.sleep(0.3)
                assert second.said == []
                os.kill(holder, signal.SIGKILL)
                await second.until(EpochCompleted)


async def test_an_order_for_nobody_has_no_effect(forks: ForkServer, data: DataSettings) -> None:
    async with executor_of(forks, data) as executor:
        executor.order("nobody", "cancel")
        assert all(slot.training_job == "" for slot in executor.slots())


@pytest.mark.parametrize(
    ("number", "advice"), [(signal.SIGKILL, "Somebody killed it"), (signal.SIGSEGV, "SIGSEGV")]
)
async def test_a_killed_worker_is_lost(
    number: signal.Signals, advice: str, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    job = launch(training(ENDLESS))
    async with executor_of(forks, data) as executor:
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted)
            os.kill(worker_of(job), number)
            outcome = await attempt.outcome()
        assert isinstance(outcome, Lost)
        assert outcome.error.reason == "WORKER_LOST"
        assert outcome.error.metadata["signal"] == number.name
        assert advice in outcome.error.message
        async with running(executor, launch(job_id="next")) as attempt:
            assert await attempt.outcome() == Finished()


@pytest.mark.usefixtures("long_computations")
async def test_a_hanging_worker_is_killed_and_lost(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    job = launch(training(ENDLESS))
    async with (
        executor_of(forks, data, heartbeat_timeout=3.0) as executor,
        running(executor, job) as attempt,
    ):
        await attempt.until(EpochCompleted)
        worker = worker_of(job)
        os.kill(worker, signal.SIGSTOP)
        outcome = await attempt.outcome()
        assert isinstance(outcome, Lost)
        assert outcome.error.reason == "WORKER_HUNG"
        assert outcome.error.metadata == {"seconds": "3"}
        assert await gone(worker)


async def test_a_standby_that_died_is_replaced(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with executor_of(forks, data) as executor:
        await executor._standbys["cpu-0"]
        for pid in children_of(forks.pid):
            os.kill(pid, signal.SIGKILL)
            assert await gone(pid)
        async with running(executor, launch()) as attempt:
            assert await attempt.outcome() == Finished()


async def test_a_slot_whose_standby_could_not_be_started_works_again_afterwards(
    forks: ForkServer, data: DataSettings, launch: Launches, caplog: pytest.LogCaptureFixture
) -> None:
    async with executor_of(forks, data) as executor:
        job = launch(training(ENDLESS))
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted)
            executor.order("job", "pause")
            with no_descriptors():
                assert await attempt.outcome() == Stopped("pause")
                await logged(caplog, "no process can be forked now")
        async with running(executor, launch(job_id="next")) as attempt:
            assert await attempt.outcome() == Finished()


async def test_an_attempt_for_which_no_worker_can_be_made_is_no_lost_worker(
    forks: ForkServer, data: DataSettings, launch: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with no_descriptors(), monkeypatch.context() as patch:
            patch.setattr(executor_module, "_START_TIME", 0.1)
            executor = await stack.enter_async_context(executor_of(forks, data))
            async with running(executor, launch()) as attempt:
                outcome = await attempt.outcome()
        assert isinstance(outcome, Lost)
        assert outcome.error.reason in WAITED_FOR
        async with running(executor, launch()) as attempt:
            assert await attempt.outcome() == Finished()


async def test_an_executor_ends_while_a_standby_cannot_be_started(
    forks: ForkServer, data: DataSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with no_descriptors():
        async with executor_of(forks, data):
            await logged(caplog, "no process can be forked now")


async def test_attempts_outlive_the_fork_server(data: DataSettings, launch: Launches) -> None:
    async with ForkServer() as forks, executor_of(forks, data) as executor:
        job = launch(training(ENDLESS))
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted)
            assert forks.pid is not None
            os.kill(forks.pid, signal.SIGKILL)
            epochs = sum(isinstance(each, EpochCompleted) for each in attempt.said)
            await attempt.until(EpochCompleted, epochs + 2)
            executor.order("job", "pause")
            assert await attempt.outcome() == Stopped("pause")
        async with running(executor, launch(job_id="next")) as attempt:
            assert await attempt.outcome() == Finished()


@pytest.mark.parametrize(
    ("parts", "code", "reason"),
    [
        (
            {
                "data": Data(dataset="diabetes"),
                "optimization": Optimization(optimizer=SGD(lr=1000.0), epochs=20),
            },
            9,
            "DIVERGED",
        ),
        ({"data": Data(dataset="mnist")}, 3, "INVALID_SPEC"),
        ({"architecture": MLP(hidden=(2**20, 2**18))}, 8, "OUT_OF_MEMORY"),
    ],
)
async def test_the_jobs_own_faults_break_it(
    parts: dict[str, object],
    code: int,
    reason: str,
    forks: ForkServer,
    data: DataSettings,
    launch: Launches,
) -> None:
    async with (
        executor_of(forks, data) as executor,
        running(executor, launch(training(**parts))) as attempt,  # type: ignore[arg-type]
    ):
        outcome = await attempt.outcome()
    assert isinstance(outcome, Broken)
    assert (outcome.error.code, outcome.error.reason) == (code, reason)


async def test_a_folder_that_cannot_be_written_is_the_worlds_fault(
    forks: ForkServer, data: DataSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    job = Launch(job_id="job", attempt=1, spec=training(), folder=tmp_path / "file" / "job")
    async with executor_of(forks, data) as executor, running(executor, job) as attempt:
        outcome = await attempt.outcome()
    assert isinstance(outcome, Lost)
    assert outcome.error.reason == "IO_ERROR"
    assert str(tmp_path) not in outcome.error.message
    (record,) = [each for each in caplog.records if "unexpected error" in each.message]
    assert record.__dict__["job"] == "job"
    assert "NotADirectoryError" in record.__dict__["trace"]


async def test_stopping_lets_workers_write_their_checkpoints(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    async with executor_of(forks, data) as executor:
        job = launch(training(ENDLESS))
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted)
            await executor.stop(grace=30.0)
            assert await attempt.outcome() == Stopped("pause")
        assert not executor.fits(job.spec)
    assert list((job.folder / "checkpoints").glob("*.json"))


async def test_stopping_kills_what_needs_longer_than_the_grace(
    forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    before = children_of(forks.pid)
    async with executor_of(forks, data) as executor:
        job = launch(training(ENDLESS))
        async with running(executor, job) as attempt:
            await attempt.until(EpochCompleted)
            worker = worker_of(job)
            os.kill(worker, signal.SIGSTOP)
            await executor.stop(grace=0.2)
            assert isinstance(await attempt.outcome(), Lost)
            assert await gone(worker)
    assert children_of(forks.pid) <= before


async def test_a_job_of_several_gpus_gets_a_worker_that_was_not_waiting(
    forks: ForkServer, data: DataSettings, launch: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def two_that_do_not_exist(_: LocalExecutor) -> list[Gpu]:
        return [Gpu(name="GPU", memory_bytes=2**34, visible=name) for name in ("98", "99")]

    monkeypatch.setattr(LocalExecutor, "_inventory", two_that_do_not_exist)
    job = launch(training(compute=Compute(device="cuda", gpus=2)))
    async with executor_of(forks, data, gpus=2) as executor:
        async with running(executor, job) as attempt:
            assert [bool(slot.training_job) for slot in executor.slots()] == [True, True, False]
            outcome = await attempt.outcome()
        assert isinstance(outcome, Broken)
        assert "no GPU can be used" in outcome.error.message
        assert executor.fits(job.spec)
        cpu = launch(training(compute=Compute(device="cpu")), job_id="cpu")
        async with running(executor, cpu) as attempt:
            assert await attempt.outcome() == Finished()


async def test_more_gpus_than_there_are_stop_the_start(
    forks: ForkServer, data: DataSettings
) -> None:
    with pytest.raises(StartFailed, match="gpus is 1000"):
        async with executor_of(forks, data, gpus=1000):
            pass
