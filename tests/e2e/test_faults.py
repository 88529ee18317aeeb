"""What dies is replaced, and the job goes on: accepted means done, sooner or later."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.servers import (
    PATIENCE,
    Server,
    SlowedServer,
    after_epoch,
    check_journal,
    ended,
    eventually,
    first,
    newest_checkpoint,
    spec,
    states,
)

import dropnorm as dn
from dropnorm.results import State

MakeServer = Callable[..., Server]
MakeSlowed = Callable[..., SlowedServer]

pytestmark = pytest.mark.slow

EPOCHS = 60
SOON = ("--checkpoint-interval", "0.1")


def train(client: dn.Client, epochs: int = EPOCHS) -> dn.JobHandle:
    """A job that is seen to be under way and to have a checkpoint from which to go on."""
    job = client.train(spec(epochs=epochs), job_id="hardy")
    first(job, dn.CheckpointWritten, lambda checkpoint: checkpoint.epoch >= 2)
    return job


def check_whole(job: dn.JobHandle, epochs: int = EPOCHS) -> None:
    """The job has succeeded, at the second attempt, with a journal and a history without a gap."""
    evaluation = job.result(timeout=PATIENCE)
    events = list(job.watch())
    check_journal(events)
    assert states(events) == [
        State.QUEUED,
        State.RUNNING,
        State.QUEUED,
        State.RUNNING,
        State.SUCCEEDED,
    ]
    assert job.refresh().snapshot.attempt == 2
    assert [each.epoch for each in evaluation.history] == list(range(1, epochs + 1))
    second = [
        event.payload.metrics.epoch
        for event in events
        if event.attempt == 2 and isinstance(event.payload, dn.EpochCompleted)
    ]
    assert second[0] > 2, "it went on from a checkpoint"


@contextlib.contextmanager
def locked(server: Server) -> Iterator[None]:
    """Within the block another program has the server's database for itself."""
    with contextlib.closing(
        sqlite3.connect(server.data_dir / "dropnorm.db", timeout=PATIENCE)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def kill_with_workers(server: Server) -> None:
    """Kill a server, and wait until its workers have written their checkpoints and ended."""
    left = server.workers()
    server.kill()
    eventually(lambda: ended(left), "the end of its workers")


def test_a_worker_that_is_killed_is_replaced(make_slowed: MakeSlowed):
    server = make_slowed(*SOON)
    with server.start().client() as client:
        job = train(client)
        os.kill(server.worker_of(job), signal.SIGKILL)
        server.speed_up()

        check_whole(job)
        lost = [
            event.payload
            for event in job.watch()
            if isinstance(event.payload, dn.StateChanged) and event.payload.error
        ]
        assert [each.error.reason for each in lost if each.error] == ["WORKER_LOST"]
        assert server.health() == "SERVING"


def test_a_worker_that_hangs_is_replaced(make_slowed: MakeSlowed):
    server = make_slowed(*SOON, "--heartbeat-timeout", "5")
    with server.start().client() as client:
        job = train(client)
        os.kill(server.worker_of(job), signal.SIGSTOP)
        server.speed_up()

        check_whole(job)


def test_a_server_that_is_killed_goes_on_with_its_jobs(make_slowed: MakeSlowed):
    server = make_slowed(*SOON)
    with server.start().client() as client:
        job = train(client)
        waiting = [client.train(spec("iris", epochs=1), job_id=f"waiting-{i}") for i in range(4)]
        kill_with_workers(server)
        server.speed_up()
        server.start()

        check_whole(job)
        for each in waiting:
            assert each.result(timeout=PATIENCE).history


def test_a_watch_outlives_the_server(make_slowed: MakeSlowed):
    server = make_slowed(*SOON)
    with server.start().client() as client:
        job = train(client)
        events: list[dn.Event] = []
        watching = threading.Thread(target=lambda: events.extend(job.watch()))
        watching.start()
        after_epoch(client.job(job.id), 5)
        server.kill()
        server.speed_up()
        server.start()
        watching.join(PATIENCE)
        assert not watching.is_alive()

        check_journal(events)
        assert job.state is State.SUCCEEDED
        assert events == list(client.job(job.id).watch()), "what was seen live is what is kept"


def test_a_fork_server_that_is_killed_is_replaced(make_server: MakeServer):
    server = make_server().start()
    os.kill(server.fork_server(), signal.SIGKILL)
    with server.client() as client:
        assert client.train(spec("iris")).result(timeout=PATIENCE).history
        assert client.train(spec("iris")).result(timeout=PATIENCE).history
    eventually(lambda: server.health() == "SERVING", "good health")


def test_a_database_that_another_program_locks_is_waited_for(make_slowed: MakeSlowed):
    server = make_slowed(*SOON)
    with server.start().client() as client:
        job = train(client)
        with locked(server):
            eventually(lambda: server.health() == "NOT_SERVING", "the service says so")
            assert job.refresh().state is State.RUNNING
            server.speed_up()
        job.result(timeout=PATIENCE)
        events = list(job.watch())
        check_journal(events)
        assert states(events) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
        eventually(lambda: server.health() == "SERVING", "good health")


def test_epochs_that_the_store_never_got_are_told_after_the_restart(make_slowed: MakeSlowed):
    """While the database is locked a training goes on; then all that waits for it dies with the server."""
    server = make_slowed(*SOON)
    with server.start().client() as client:
        job = train(client, 400)
        folder = server.data_dir / "jobs" / job.id
        with locked(server):
            known = newest_checkpoint(folder)
            server.speed_up()
            eventually(lambda: newest_checkpoint(folder) > known + 1, "checkpoints nobody hears of")
            kill_with_workers(server)
        server.start()

        check_whole(job, 400)


def test_jobs_do_not_wait_for_mlflow_and_mlflow_gets_them_all(make_server: MakeServer):
    server = make_server("--tracking")
    server.data_dir.mkdir()
    database = server.data_dir / "mlflow.db"
    database.write_text("not a database, for now")
    server.start()
    with server.client() as client:
        job = client.train(spec("iris"))
        assert job.result().history
        eventually(lambda: "MLflow is unavailable" in server.log, "the complaint")
        assert server.health() == "SERVING"
        database.write_text("")
        eventually(lambda: job.refresh().mlflow_run_id, "the job's run")
