"""The database is away for long: nothing piles up, callers hear when to come again, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from tests.e2e.servers import (
    Server,
    after_epoch,
    check_journal,
    ended,
    eventually,
    first,
    seconds_computed,
    spec,
    states,
)
from tests.postgres import Cluster

import dropnorm as dn
from dropnorm import wire
from dropnorm.errors import retry_after
from dropnorm.results import State
from dropnorm.spec import Submission
from dropnorm.v1 import training_job_pb2
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

MakeServer = Callable[..., Server]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HELD_BACK = 1_000
"""Events of a worker that wait in the server, at least; who says more waits for it."""
SUBMITTERS, WATCHERS, CALLERS, CALLS = 10, 10, 4, 50
GROWTH = 48 * 2**20


def test_nothing_piles_up_while_it_is_away_and_nothing_is_lost(
    make_server: MakeServer, postgres: Cluster, postgres_url: str
):
    server = make_server("--database-url", postgres_url, "--checkpoint-interval", "0.5").start()
    process = psutil.Process(server.process.pid)
    with server.client() as client, ThreadPoolExecutor(SUBMITTERS + WATCHERS) as threads:
        job = client.train(spec("iris", epochs=100_000), job_id="talkative")
        written = first(job, dn.CheckpointWritten).sequence
        worker = server.worker_of(job)
        before = process.memory_info().rss
        postgres.stop()
        submitted = [threads.submit(submit, server, number) for number in range(SUBMITTERS)]
        watched = [threads.submit(watch, server, job.id) for _ in range(WATCHERS)]
        eventually(lambda: at_rest(worker), "the worker is held up, instead of events piling up")
        assert job.refresh().state is State.RUNNING
        refuse_all(server)
        assert process.memory_info().rss - before < GROWTH

        postgres.start()
        created = [client.job(each.result(timeout=120)) for each in submitted]
        eventually(lambda: not at_rest(worker), "the worker goes on")
        job.cancel()
        journals = [each.result(timeout=120) for each in watched]
        check(job, written, journals)
        for each in created:
            assert each.result(timeout=120).history
            assert states(list(each.watch())) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
        assert {each.id for each in client.jobs()} == {job.id, *(each.id for each in created)}


def test_it_ends_in_good_order_while_it_is_away_and_a_worker_is_held_up(
    make_server: MakeServer, postgres: Cluster, postgres_url: str
):
    flags = ("--database-url", postgres_url, "--checkpoint-interval", "0.5", "--grace", "1")
    server = make_server(*flags).start()
    with server.client() as client:
        job = client.train(spec("iris", epochs=100_000), job_id="talkative")
        first(job, dn.CheckpointWritten)
        worker = server.worker_of(job)
    postgres.stop()
    eventually(lambda: at_rest(worker), "the worker is held up")
    assert server.stop() == 0
    eventually(lambda: ended([worker]), "the end of its worker")

    postgres.start()
    server.start()
    with server.client() as client:
        job = client.job("talkative")
        after_epoch(job, attempt=2)
        assert server.worker_of(job) != worker
        job.cancel()
        with pytest.raises(dn.JobCancelled):
            job.result(timeout=120)
        check_journal(list(job.watch()))


def submit(server: Server, number: int) -> str:
    """A client that is given time waits as it is told."""
    with server.client() as client:
        return client.train(spec("iris", epochs=1), job_id=f"sent-{number}", timeout=120.0).id


def watch(server: Server, job_id: str) -> Sequence[dn.Event]:
    with dn.Client(server.address, patience=120.0) as client:
        return list(client.job(job_id, timeout=120.0).watch())


def at_rest(worker: int) -> bool:
    used = seconds_computed(worker)
    time.sleep(1.0)
    return seconds_computed(worker) - used < 0.05


def refuse_all(server: Server) -> None:
    """Hundreds of calls of all kinds, each of which is refused in the same way once the outage is a long one."""
    wanted = wire.to_message(Submission(spec=spec("iris")), training_job_pb2.TrainingJob)

    def call(_: int) -> None:
        with grpc.insecure_channel(server.address) as channel:
            stub = TrainingServiceStub(channel)
            for _ in range(CALLS):
                refused(lambda: stub.CreateTrainingJob(create, timeout=60))
                refused(lambda: stub.ListTrainingJobs(pb.ListTrainingJobsRequest(), timeout=60))

    create = pb.CreateTrainingJobRequest(training_job=wanted)
    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(call, range(CALLERS)))


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "The database of jobs cannot be" in (raised.value.details() or "")
    assert retry_after(raised.value) == 5.0


def check(job: dn.JobHandle, written: int, journals: Sequence[Sequence[dn.Event]]) -> None:
    """All that the worker said is in the journal once, and every watcher has heard all of it."""
    with pytest.raises(dn.JobCancelled):
        job.result(timeout=120)
    events = list(job.watch())
    check_journal(events)
    assert len(events) - written > HELD_BACK
    assert {event.attempt for event in events} == {0, 1}, "the worker never noticed"
    assert all(journal == events for journal in journals)
