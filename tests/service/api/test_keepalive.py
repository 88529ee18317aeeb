"""Connections that are quiet for long, and the options of gRPC by which they live."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.service.api.edge import edge_of
from tests.service.jobs.bench import Bench

from dropnorm._connection import _CHANNEL_OPTIONS
from dropnorm.results import State
from dropnorm.v1 import training_service_pb2 as pb
from dropnorm.v1.training_service_pb2_grpc import TrainingServiceStub
from dropnorm_service.api.server import _OPTIONS

_PING_MS = 6_000
_PINGS = 6  # gRPC cuts off whoever has sent five, if they are too many


def test_grpc_knows_each_option() -> None:
    """It says nothing to those that it does not know."""
    library = Path(str(sys.modules["grpc._cython.cygrpc"].__file__)).read_bytes()
    unknown = [
        name for name, _ in (*_OPTIONS, *_CHANNEL_OPTIONS.items()) if name.encode() not in library
    ]
    assert not unknown


@pytest.mark.slow
async def test_pings_on_a_quiet_watch_are_not_too_many(bench: Bench, tmp_path: Path) -> None:
    server = edge_of(bench, tmp_path)
    address = await server.start("127.0.0.1", 0)
    options = {
        "grpc.keepalive_time_ms": _PING_MS,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.use_local_subchannel_pool": 1,
    }
    async with grpc.aio.insecure_channel(address, options=[*options.items()]) as channel:
        stub: Any = TrainingServiceStub(channel)
        job = await bench.reached(await bench.create(), State.RUNNING)
        request = pb.WatchTrainingJobRequest(name=job.name, after_sequence=job.last_sequence)
        told = asyncio.ensure_future(anext(aiter(stub.WatchTrainingJob(request))))
        await asyncio.wait({told}, timeout=_PINGS * _PING_MS / 1e3)
        assert not told.done(), f"cut off: {told.exception()}"
        await stub.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
        assert (await told).sequence == job.last_sequence + 1
    await server.stop(grace=0.0)
