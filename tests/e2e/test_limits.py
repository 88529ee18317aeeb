"""Each limit of the whole service, reached on a real one: it says so and when to come again, and then works again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest
from tests.e2e.servers import Server, after_epoch, long, spec

import dropnorm as dn
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

MakeServer = Callable[..., Server]


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server(
        *("--cpu-slots", "1", "--max-queued-jobs", "2", "--max-calls", "4"),
        *("--max-job-seconds", "60"),
    ).start()


@pytest.fixture
def client(server: Server) -> Iterator[dn.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def stub(server: Server) -> Iterator[TrainingServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield TrainingServiceStub(channel)


def test_a_full_queue(client: dn.Client):
    running = client.train(long())
    after_epoch(running)
    waiting = [client.train(long(), priority=-1) for _ in range(2)]
    with pytest.raises(dn.ResourceExhausted, match="2 jobs wait in the queue") as raised:
        client.train(long(), timeout=5)
    assert raised.value.retry_after == 10
    assert raised.value.metadata["setting"] == "max_queued_jobs"
    waiting[0].cancel()
    assert client.train(long()).state is dn.State.QUEUED


def test_as_many_calls_as_may_be(client: dn.Client, stub: TrainingServiceStub):
    job = client.train(long())
    watches = [stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=job.name)) for _ in range(4)]
    for watch in watches:
        next(watch)
    with pytest.raises(dn.ResourceExhausted, match="4 calls are being served") as raised:
        client.job(job.id, timeout=0.5)
    assert raised.value.retry_after == 1
    assert raised.value.metadata["setting"] == "max_calls"
    watches[0].cancel()
    assert client.job(job.id).name == job.name, "the client waits as it is told, and asks again"


def test_a_job_that_asks_for_more_time_than_a_job_may_have(client: dn.Client):
    def timed(seconds: float) -> dn.TrainingSpec:
        return spec("iris", epochs=1).model_copy(update={"compute": dn.Compute(time_limit=seconds)})

    with pytest.raises(dn.InvalidRequest, match="may train for 60 seconds at most") as raised:
        client.train(timed(60.5), job_id="long")
    [problem] = raised.value.problems
    assert problem.field == "training_job.spec.compute.time_limit"
    with pytest.raises(dn.NotFound):
        client.job("long")
    assert client.train(timed(60.0)).result(timeout=60).history


def test_metadata_and_messages_that_are_too_large(client: dn.Client, stub: TrainingServiceStub):
    job = client.train(spec("iris", epochs=1))
    asked = pb.GetTrainingJobRequest(name=job.name)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTrainingJob(asked, metadata=(("x-much", "x" * 100_000),), timeout=10)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x" * (65 * 2**20)), timeout=30)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.GetTrainingJob(asked, timeout=10).name == job.name
