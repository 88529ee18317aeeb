"""Each limit of the whole service, reached on a real one: it says so and when to come again, and then works again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from tests.e2e.servers import PATIENCE, Server, after_epoch, long, spec

import dropnorm as dn
from dropnorm.errors import from_rpc_error
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

MakeServer = Callable[..., Server]


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server(
        *("--cpu-slots", "1", "--max-queued-jobs", "2", "--max-calls", "4"),
        *("--max-job-seconds", "600"),
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
        client.train(long(), timeout=9)
    assert raised.value.retry_after == 10
    assert raised.value.metadata["setting"] == "max_queued_jobs"
    waiting[0].cancel()
    assert client.train(long()).state is dn.State.QUEUED


def test_one_user_submits_from_twenty_places_at_once(make_server: MakeServer):
    """The planner answers one after the other, none of the specs has been planned before, and all are accepted."""
    server = make_server("--cpu-slots", "1", "--max-heavy-calls-per-user", "1").start()
    with server.client() as client, ThreadPoolExecutor(20) as pool:
        specs = [spec(epochs=epochs) for epochs in range(1, 61)]
        jobs = list(pool.map(partial(client.train, priority=-1, timeout=240.0), specs))
        assert len({job.id for job in jobs}) == 60


def test_as_many_calls_as_may_be(client: dn.Client, stub: TrainingServiceStub):
    job = client.train(long())
    watches = [stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=job.name)) for _ in range(4)]
    for watch in watches:
        next(watch)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTrainingJob(pb.GetTrainingJobRequest(name=job.name), timeout=60)
    refusal = from_rpc_error(raised.value, address="")
    assert isinstance(refusal, dn.ResourceExhausted)
    assert "4 calls are being served" in str(refusal)
    assert refusal.retry_after == 1
    assert refusal.metadata["setting"] == "max_calls"
    watches[0].cancel()
    assert client.job(job.id).name == job.name, "the client waits as it is told, and asks again"


def test_a_job_that_asks_for_more_time_than_a_job_may_have(client: dn.Client):
    def timed(seconds: float) -> dn.TrainingSpec:
        return spec("iris", epochs=1).model_copy(update={"compute": dn.Compute(time_limit=seconds)})

    with pytest.raises(dn.InvalidRequest, match="may train for 600 seconds at most") as raised:
        client.train(timed(600.5), job_id="long")
    [problem] = raised.value.problems
    assert problem.field == "training_job.spec.compute.time_limit"
    with pytest.raises(dn.NotFound):
        client.job("long")
    assert client.train(timed(600.0)).result(timeout=PATIENCE).history


def test_as_many_watches_as_may_be(make_server: MakeServer):
    server = make_server("--cpu-slots", "1", "--max-watches", "3").start()
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        job = client.train(long())
        stub = TrainingServiceStub(channel)
        request = pb.WatchTrainingJobRequest(name=job.name)
        watches = [stub.WatchTrainingJob(request) for _ in range(3)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as raised:
            next(stub.WatchTrainingJob(request))
        refusal = from_rpc_error(raised.value, address=server.address)
        assert isinstance(refusal, dn.ResourceExhausted)
        assert "3 journals are being followed" in str(refusal)
        assert refusal.retry_after == 5
        assert refusal.metadata["setting"] == "max_watches"
        watches[0].cancel()
        assert next(job.watch()).sequence == 1, "the client waits as it is told, and asks again"


def test_as_many_streams_as_a_connection_has(make_server: MakeServer):
    server = make_server("--cpu-slots", "1", "--max-watches-per-user", "2000").start()
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        client.train(long(), priority=1)
        request = pb.WatchTrainingJobRequest(name=client.train(long()).name)
        stub = TrainingServiceStub(channel)
        watches = [stub.WatchTrainingJob(request) for _ in range(1000)]
        for watch in watches:
            assert next(watch).sequence == 1
        more = stub.WatchTrainingJob(request)
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetTrainingJob(pb.GetTrainingJobRequest(name=request.name), timeout=0.5)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, "it waits its turn"
        assert client.job(request.name).name == request.name, "another connection is served"
        watches[0].cancel()
        assert next(more).sequence == 1


def test_messages_that_are_too_large_for_grpc_are_told_in_a_sentence(server: Server):
    name = "x" * (21 * 2**20)
    request = pb.GetTrainingJobRequest(name=name)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        TrainingServiceStub(channel).GetTrainingJob(request, timeout=60)
    by_service = from_rpc_error(refused.value, address=server.address)
    with server.client() as client, pytest.raises(grpc.RpcError) as unsent:
        client._method("GetTrainingJob")(request, timeout=60)
    by_client = from_rpc_error(unsent.value, address=server.address)
    headers = (("x-much", "x" * 100_000),)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as raised:
        TrainingServiceStub(channel).GetTrainingJob(request.__class__(), metadata=headers)
    of_headers = from_rpc_error(raised.value, address=server.address)
    for error, limit in ((by_service, "20 MiB"), (by_client, "20 MiB"), (of_headers, "8 KiB")):
        assert isinstance(error, dn.ResourceExhausted)
        assert error.retry_after is None
        assert limit in str(error)


def test_metadata_and_messages_that_are_too_large(client: dn.Client, stub: TrainingServiceStub):
    job = client.train(spec("iris", epochs=1))
    asked = pb.GetTrainingJobRequest(name=job.name)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTrainingJob(asked, metadata=(("x-much", "x" * 100_000),), timeout=60)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x" * (21 * 2**20)), timeout=60)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.GetTrainingJob(asked, timeout=60).name == job.name
