"""Unary calls: one by one against the least possible, and many at once."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc
from tests.benchmarks import echo
from tests.benchmarks.rows import Row, milliseconds, ratio
from tests.benchmarks.services import (
    DIGITS,
    ENDLESS,
    rounds,
    running,
    wait_until_idle,
    wait_until_running,
)

from dropnorm.aio import AsyncClient
from dropnorm.embedded import LocalService
from dropnorm.v1 import training_service_pb2, training_service_pb2_grpc

_CLIENTS = 20
_CALLS = 100
_RATE = 200.0


def measure_get(quick: bool) -> Iterator[Row]:
    """GetTrainingJob and an echo, a hundred calls each in turn, over connections that are open."""
    with running() as service, echo_server() as echo_address:
        job = service.train(DIGITS)
        job.result()
        wait_until_idle(service)
        pairs = asyncio.run(_get_and_echo(service, job.name, echo_address, quick))
    ratios = [get / bare for get, bare in pairs]
    yield Row(
        "GetTrainingJob to a bare unary call",
        ratio(ratios),
        "<= 2 x",
        statistics.median(ratios) <= 2.0,
        f"GetTrainingJob {milliseconds([get for get, _ in pairs])}, "
        f"echo {milliseconds([bare for _, bare in pairs])}; medians of {_CALLS} calls, job with its evaluation",
    )


def measure_create(quick: bool) -> Iterator[Row]:
    """Jobs created per second; a job that never ends holds the only slot, so that all others wait."""
    seconds = 3.0 if quick else 10.0
    with running() as service:
        blocker = service.train(ENDLESS, priority=1000)
        wait_until_running(blocker)
        start = time.perf_counter()
        created = asyncio.run(_create(service.address, seconds))
        elapsed = time.perf_counter() - start
        stored = sum(1 for _ in service.jobs(filter='labels.by = "bench"', page_size=1000))
        blocker.cancel()
    rate = created / elapsed
    yield Row(
        f"CreateTrainingJob sustained, {_CLIENTS} clients",
        f"{rate:.0f}/s ({created} in {elapsed:.1f} s)",
        f">= {_RATE:g}/s",
        rate >= _RATE and stored >= created,
        f"durable SQLite; clients, service and one training share the cores; {stored} found in the store",
    )


async def _get_and_echo(
    service: LocalService, name: str, echo_address: str, quick: bool
) -> list[tuple[float, float]]:
    request = training_service_pb2.GetTrainingJobRequest(name=name)
    async with (
        grpc.aio.insecure_channel(service.address) as ours,
        grpc.aio.insecure_channel(echo_address) as bare,
    ):
        get = training_service_pb2_grpc.TrainingServiceStub(ours).GetTrainingJob
        echo_call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = bare.unary_unary(
            echo.METHOD, request_serializer=None, response_deserializer=None
        )
        pairs = []
        await _median_seconds(lambda: get(request))
        await _median_seconds(lambda: echo_call(b"x" * 64))
        for _ in rounds(15, quick):
            get_seconds = await _median_seconds(lambda: get(request))
            pairs.append((get_seconds, await _median_seconds(lambda: echo_call(b"x" * 64))))
        return pairs


async def _median_seconds(call: Callable[[], Awaitable[object]]) -> float:
    durations = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


async def _create(address: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds

    async def create() -> int:
        created = 0
        async with AsyncClient(address) as client:
            while time.monotonic() < deadline:
                await client.train(DIGITS, labels={"by": "bench"})
                created += 1
        return created

    return sum(await asyncio.gather(*(create() for _ in range(_CLIENTS))))


@contextmanager
def echo_server() -> Iterator[str]:
    """Address of a server that echoes, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()
