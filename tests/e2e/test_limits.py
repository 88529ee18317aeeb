"""Each limit of the whole service, reached on a real one: it says so and when to come again, and then works again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psutil
import pytest
from tests.e2e.servers import Server, after_epoch, long, spec

import dropnorm as dn
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

MakeServer = Callable[..., Server]

_STALLED = 500
_CHANNELS = 50  # streams that are not read hold up others of their own connection, as HTTP/2 has it
_EPOCHS = 700  # far more events than gRPC sends ahead
# A stalled stream holds what gRPC sends ahead, a message, and a page of the journal.
_BYTES_PER_STALLED = 256 * 2**10


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    return make_server(
        *("--cpu-slots", "1", "--max-queued-jobs", "2", "--max-calls", "4"),
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


@pytest.mark.timeout(300)
async def test_watchers_that_do_not_read_cost_no_memory(make_server: MakeServer):
    """They are told from the store when they read: what they have missed is in no queue."""
    server = make_server("--cpu-slots", "1").start()
    memory = psutil.Process(server.process.pid).memory_info
    async with dn.AsyncClient(server.address) as client, AsyncExitStack() as stack:
        job = await client.train(spec("iris", epochs=_EPOCHS))
        await job.result()
        before = memory().rss
        stubs = [
            TrainingServiceStub(await stack.enter_async_context(_connection(server)))
            for _ in range(_CHANNELS)
        ]
        stalled: list[Any] = [
            stubs[number % _CHANNELS].WatchTrainingJob(pb.WatchTrainingJobRequest(name=job.name))
            for number in range(_STALLED)
        ]
        for watch in stalled:
            await watch.read()  # the first event; it reads no further
        assert (await client.job(job.id)).state is dn.State.SUCCEEDED
        grown = memory().rss - before
        assert grown < _STALLED * _BYTES_PER_STALLED, f"{grown / 2**20:.0f} MiB"
        for other in stalled[:-1]:
            other.cancel()
        numbers = []
        while (event := await stalled[-1].read()) is not grpc.aio.EOF:
            numbers.append(event.sequence)
        assert numbers == list(range(2, job.snapshot.last_sequence + 1)), "it is told all"


def _connection(server: Server) -> grpc.aio.Channel:
    # Channels to one address share a connection unless told otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(server.address, options=options)
