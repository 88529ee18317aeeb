"""Watchers that do not read: what they have not read is in the store, and in no memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psutil
import pytest
from tests.e2e.servers import Server, own_channel, spec

import dropnorm as dn
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub

# Streams that are not read hold up others of their own connection, as HTTP/2 has it.
_CONNECTIONS = 50
_EACH = 10
# With a report of a dozen layers each: far more than gRPC sends ahead.
_SPEC = spec("iris", epochs=100).model_copy(
    update={
        "architecture": dn.MLP(hidden=(8,) * 12),
        "evaluation": dn.EvaluationSettings(layer_report_epochs=1),
    }
)


@pytest.fixture
async def server(make_server: Callable[..., Server]) -> Server:
    server = make_server("--cpu-slots", "1")
    return await asyncio.to_thread(server.start)


@pytest.mark.timeout(300)
async def test_watchers_that_do_not_read_cost_no_memory(server: Server):
    """They are told from the store when they read on."""
    memory = psutil.Process(server.process.pid).memory_info
    async with dn.AsyncClient(server.address) as client, AsyncExitStack() as stack:
        job = await client.train(_SPEC)
        await job.result()
        before = memory().rss
        stalled: list[Any] = []
        for _ in range(_CONNECTIONS):
            stub = TrainingServiceStub(await stack.enter_async_context(own_channel(server.address)))
            watches = [
                stub.WatchTrainingJob(pb.WatchTrainingJobRequest(name=job.name))
                for _ in range(_EACH)
            ]
            first: list[Any] = [await watch.read() for watch in watches]  # and no further
            assert [event.sequence for event in first] == [1] * _EACH
            stalled += watches
        assert (await client.job(job.id)).state is dn.State.SUCCEEDED, "others are answered"
        grown = memory().rss - before
        told = await _read_on(stalled[-1])
        assert [event.sequence for event in told] == list(range(2, job.snapshot.last_sequence + 1))
        journal = sum(event.ByteSize() for event in told)
        assert grown < len(stalled) * journal / 3, f"{grown / 2**20:.0f} MiB"


async def _read_on(watch: Any) -> list[Any]:
    events = []
    while (event := await watch.read()) is not grpc.aio.EOF:
        events.append(event)
    return events
