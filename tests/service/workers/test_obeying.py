"""Who is told to stop stops, wherever the order finds it: before there is a worker, and where no step comes soon."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tests.service.workers.conftest import gone, logged, no_descriptors, training
from tests.service.workers.conversation import Attempt, running
from tests.service.workers.test_executor import ENDLESS, executor_of, worker_of

from dropnorm.results import CheckpointWritten, EpochCompleted, Phase, Progressed
from dropnorm.spec import MLP, AutoLearningRate, Data, Initialization, Optimization
from dropnorm_service.jobs.ports import Finished, Launch, Lost, Order, Stopped
from dropnorm_service.training import Interrupted
from dropnorm_service.workers import DataSettings, ForkServer
from dropnorm_service.workers.child.link import Link
from dropnorm_service.workers.child.worker import _beside
from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import Heartbeat, Ordered

pytestmark = pytest.mark.asyncio(loop_scope="session")

Launches = Callable[..., Launch]
STOPS: tuple[Order, ...] = ("pause", "cancel")


def phases(attempt: Attempt) -> list[Phase]:
    return [each.progress.phase for each in attempt.said if isinstance(each, Progressed)]


async def until_phase(attempt: Attempt, phase: Phase) -> None:
    count = 1
    while (await attempt.until(Progressed, count)).progress.phase != phase:
        count += 1


@pytest.mark.parametrize("order", STOPS)
async def test_before_there_is_a_worker(
    order: Order,
    forks: ForkServer,
    data: DataSettings,
    launch: Launches,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with executor_of(forks, data) as executor:
        standby = await executor._standbys["cpu-0"]
        os.kill(standby.pid, signal.SIGKILL)
        assert await gone(standby.pid)
        with no_descriptors():
            async with running(executor, launch(training(ENDLESS))) as attempt:
                await logged(caplog, "no process can be forked now")
                executor.order("job", order)
                assert await attempt.outcome() == Stopped(order)
        async with running(executor, launch(job_id="next")) as attempt:
            assert await attempt.outcome() == Finished()


@pytest.mark.parametrize("order", STOPS)
async def test_while_a_worker_warms_up(
    order: Order, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    """As it may for long on a machine that has much to do: here it does not move at all."""
    async with executor_of(forks, data) as executor:
        standby = await executor._standbys["cpu-0"]
        os.kill(standby.pid, signal.SIGSTOP)
        async with running(executor, launch(training(ENDLESS))) as attempt:
            await asyncio.sleep(0)
            executor.order("job", order)
            assert await attempt.outcome() == Stopped(order)
        assert await gone(standby.pid)


@pytest_asyncio.fixture(loop_scope="session")
async def silent_mirror() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a server that takes requests and never answers, and whether one has come."""
    came = asyncio.Event()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        came.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", came


@pytest.mark.parametrize("order", STOPS)
async def test_while_a_mirror_does_not_answer(
    order: Order,
    forks: ForkServer,
    data: DataSettings,
    launch: Launches,
    silent_mirror: tuple[str, asyncio.Event],
) -> None:
    address, came = silent_mirror
    mirrored = data.model_copy(update={"mirrors": {"mnist": address}})
    job = launch(training(ENDLESS, data=Data(dataset="mnist")))
    async with executor_of(forks, mirrored) as executor, running(executor, job) as attempt:
        await came.wait()
        executor.order("job", order)
        assert await attempt.outcome() == Stopped(order)
        assert set(phases(attempt)) == {"loading_data"}


@pytest.mark.parametrize("order", STOPS)
async def test_while_a_huge_layer_is_drawn(
    order: Order, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    job = launch(
        training(
            ENDLESS,
            architecture=MLP(hidden=(6000, 6000)),
            initialization=Initialization(scheme="orthogonal"),
        )
    )
    async with executor_of(forks, data) as executor, running(executor, job) as attempt:
        await until_phase(attempt, "building")
        executor.order("job", order)
        assert await attempt.outcome() == Stopped(order)
        assert "training" not in phases(attempt)


@pytest.mark.parametrize("order", STOPS)
async def test_while_the_rate_is_looked_for(
    order: Order, forks: ForkServer, data: DataSettings, launch: Launches
) -> None:
    optimization = Optimization(
        epochs=ENDLESS, batch_size=16, auto_learning_rate=AutoLearningRate(steps=10_000)
    )
    # Each step is long enough for all of them together to take far longer than anybody is held up.
    job = launch(training(optimization=optimization, architecture=MLP(hidden=(1024, 1024))))
    async with executor_of(forks, data) as executor, running(executor, job) as attempt:
        await until_phase(attempt, "tuning")
        executor.order("job", order)
        assert await attempt.outcome() == Stopped(order)
        assert "training" not in phases(attempt)
        written = attempt.said[-1]
        assert isinstance(written, CheckpointWritten)
        assert (written.epoch, written.step) == (0, 0)


async def test_a_cancelled_worker_that_says_nothing_is_ended(
    forks: ForkServer, data: DataSettings, launch: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a step of minutes, or in the compiler."""
    monkeypatch.setattr("dropnorm_service.workers.running._PATIENCE_WITH_SILENCE", 0.5)
    job = launch(training(ENDLESS))
    async with executor_of(forks, data) as executor, running(executor, job) as attempt:
        await attempt.until(EpochCompleted)
        executor.order("job", "checkpoint")
        await attempt.until(CheckpointWritten)
        worker = worker_of(job)
        os.kill(worker, signal.SIGSTOP)
        executor.order("job", "cancel")
        assert await attempt.outcome() == Stopped("cancel")
        assert await gone(worker)
    assert list((job.folder / "checkpoints").glob("*.json")), "its last checkpoint is kept"


@pytest.mark.usefixtures("long_computations")
async def test_a_paused_worker_that_says_nothing_is_waited_for(
    forks: ForkServer, data: DataSettings, launch: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does is wanted; whether it hangs is for the heartbeat to say."""
    monkeypatch.setattr("dropnorm_service.workers.running._PATIENCE_WITH_SILENCE", 0.1)
    job = launch(training(ENDLESS))
    async with (
        executor_of(forks, data, heartbeat_timeout=3.0) as executor,
        running(executor, job) as attempt,
    ):
        await attempt.until(EpochCompleted)
        os.kill(worker_of(job), signal.SIGSTOP)
        executor.order("job", "pause")
        outcome = await attempt.outcome()
        assert isinstance(outcome, Lost)
        assert outcome.error.reason == "WORKER_HUNG"


async def test_while_a_model_is_saved_the_heart_beats_and_a_cancel_is_heard() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link, saved = Link(theirs), threading.Event()

        def until_saved() -> None:
            saved.wait()

        saving = asyncio.create_task(asyncio.to_thread(_beside, until_saved, link))
        frames = Frames()
        first = decode(next(iter(frames.feed(await asyncio.to_thread(ours.recv, 2**16)))))
        assert isinstance(first, Heartbeat)
        ours.sendall(encode(Ordered(order="pause")))  # it is as good as done
        ours.sendall(encode(Ordered(order="cancel")))
        with pytest.raises(Interrupted):
            await saving
        saved.set()


async def test_an_error_in_saving_is_the_attempt_s() -> None:
    ours, theirs = socket.socketpair()

    def full() -> None:
        raise OSError(28, "No space left on device")

    with ours, theirs, pytest.raises(OSError, match="No space left"):
        _beside(full, Link(theirs))
