"""Restarts of all kinds under running jobs: none is a failure, and nothing of the old service is left in the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from tests.e2e.servers import (
    Server,
    SlowedServer,
    after_epoch,
    check_journal,
    ended,
    eventually,
    first,
    long,
    spec,
    states,
)

import dropnorm as dn
from dropnorm.results import State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MakeServer = Callable[..., Server]
MakeSlowed = Callable[..., SlowedServer]

EPOCHS = 60
RESTARTS = 2


def test_restarts_one_after_the_other_lose_no_attempt(make_slowed: MakeSlowed):
    server = make_slowed("--max-attempts", "1")
    with server.start().client() as client:
        jobs = [client.train(spec(epochs=EPOCHS), job_id=f"job-{number}") for number in range(2)]
        for restart in range(1, RESTARTS + 1):
            for job in jobs:
                after_epoch(job, attempt=restart)
            assert server.stop() == 0
            if restart == RESTARTS:
                server.speed_up()
            server.start()
        for job in jobs:
            evaluation = job.result(timeout=300)
            assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1))
            events = list(job.watch())
            check_journal(events)
            turn = [State.QUEUED, State.RUNNING]
            assert states(events) == [*turn * (RESTARTS + 1), State.SUCCEEDED]
            assert job.refresh().snapshot.attempt == RESTARTS + 1
            changes = [each.payload for each in events if isinstance(each.payload, dn.StateChanged)]
            assert [change.error for change in changes if change.error] == []


def test_a_second_signal_ends_it_at_once_and_loses_nothing(make_slowed: MakeSlowed):
    server = make_slowed("--grace", "60", "--checkpoint-interval", "0.1")
    with server.start().client() as client:
        job = client.train(spec(epochs=EPOCHS), job_id="hardy")
        first(job, dn.CheckpointWritten)
        hanging = server.worker_of(job)
        left = server.workers()
        os.kill(hanging, signal.SIGSTOP)  # so that the first one has something to wait for
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: '"stopping"' in server.log, "the first signal")
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT
        eventually(lambda: ended(left), "the end of its workers")
        server.speed_up()
        server.start()
        assert [each.epoch for each in job.result(timeout=300).history] == list(
            range(1, EPOCHS + 1)
        )
        check_journal(list(job.watch()))


def test_a_fork_server_that_is_stopped_does_not_hold_up_the_end(make_server: MakeServer):
    server = make_server("--grace", "4").start()
    with server.client() as client:
        first(client.train(long(), job_id="long"), dn.EpochCompleted)
    os.kill(server.fork_server(), signal.SIGSTOP)
    assert server.stop() == 0
    assert "the fork server does not answer and is killed" in server.log


def test_no_worker_outlives_its_server_not_even_a_stopped_one(make_server: MakeServer):
    server = make_server("--checkpoint-interval", "0.1").start()
    with server.client() as client:
        job = client.train(spec(epochs=EPOCHS), job_id="hardy")
        first(job, dn.CheckpointWritten)
    left = server.workers()
    for pid in left:
        os.kill(pid, signal.SIGSTOP)
    server.kill()
    eventually(lambda: ended(left), "the end of its workers")


def test_whoever_still_holds_a_job_s_folder_is_ended_by_the_next_attempt(make_slowed: MakeSlowed):
    server = make_slowed("--checkpoint-interval", "0.1")
    with server.start().client() as client:
        job = client.train(spec(epochs=EPOCHS), job_id="hardy")
        first(job, dn.CheckpointWritten)
        holder = server.worker_of(job)
        os.kill(holder, signal.SIGSTOP)
        os.kill(server.fork_server(), signal.SIGKILL)  # which would have ended it
        server.kill()
        assert not ended([holder])
        server.speed_up()
        server.start()
        assert [each.epoch for each in job.result(timeout=300).history] == list(
            range(1, EPOCHS + 1)
        )
        assert ended([holder])
