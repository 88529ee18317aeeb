"""The health service tells everybody the truth, whoever else asks, does not read, or sends what it likes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server
from prometheus_client import CollectorRegistry
from tests.http2 import answer_begun, deaf, half_sent
from tests.service.api.details import details, failure, status_of
from tests.service.api.edge import edge_of
from tests.service.jobs.bench import Bench
from tests.service.jobs.conftest import bench, store

from dropnorm_service.api.health import HealthServicer
from dropnorm_service.api.interceptors import EdgeInterceptor
from dropnorm_service.api.observers import Observers
from dropnorm_service.api.server import LIVENESS, TRAINING, ApiServer
from dropnorm_service.observability.rpcs import RpcMetrics

__all__ = ["bench", "store"]

SERVICE = "/grpc.health.v1.Health"
METHODS = ("Check", "Watch", "List")
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def server(bench: Bench, tmp_path: Path) -> AsyncIterator[ApiServer]:
    server = edge_of(bench, tmp_path)
    yield server
    await server.stop(grace=0.0)


@pytest.fixture
async def port(server: ApiServer) -> int:
    return int((await server.start("127.0.0.1", 0)).rpartition(":")[2])


@pytest.fixture
async def channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return HealthStub(channel)


async def answered(call: Callable[..., Any], message: bytes) -> Any:
    """The last that a call says, whatever its form."""
    made = call(message, timeout=30)
    return await made.read() if isinstance(made, grpc.aio.UnaryStreamCall) else await made


def asked(channel: grpc.aio.Channel, method: str) -> Any:
    make: Any = channel.unary_stream if method == "Watch" else channel.unary_unary
    return make(f"{SERVICE}/{method}")


async def test_what_is_reported_is_told(server: ApiServer, stub: Any):
    watch = stub.Watch(HealthCheckRequest(service=TRAINING), timeout=30)
    assert (await watch.read()).status == SERVING
    server.report(healthy=False)
    assert (await watch.read()).status == NOT_SERVING
    said = {
        name: (await stub.Check(HealthCheckRequest(service=name))).status
        for name in ("", TRAINING, LIVENESS)
    }
    assert said == {"": NOT_SERVING, TRAINING: NOT_SERVING, LIVENESS: SERVING}


async def test_a_list_has_every_service(channel: grpc.aio.Channel):
    listed = await answered(asked(channel, "List"), b"")
    for name in ("dropnorm.v1.TrainingService", "grpc.health.v1.Health", "liveness"):
        assert name.encode() in listed


async def test_of_what_is_no_service_a_check_is_refused_and_a_watch_waits(stub: Any):
    error = await failure(stub.Check(HealthCheckRequest(service="nothing")))
    [info] = details(status_of(error), error_details_pb2.ErrorInfo)
    assert (error.code(), info.reason) == (grpc.StatusCode.NOT_FOUND, "NO_SUCH_SERVICE")
    watch = stub.Watch(HealthCheckRequest(service="nothing"), timeout=30)
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_watcher_that_does_not_read_keeps_nobody_from_the_truth(
    server: ApiServer, stub: Any, port: int
):
    before = stub.Watch(HealthCheckRequest(), timeout=30)
    assert (await before.read()).status == SERVING
    with deaf(port, f"{SERVICE}/Watch") as watcher:
        await asyncio.to_thread(answer_begun, watcher)
        server.report(healthy=False)
        assert (await before.read()).status == NOT_SERVING
        assert (await stub.Check(HealthCheckRequest(), timeout=30)).status == NOT_SERVING
        after = stub.Watch(HealthCheckRequest(), timeout=30)
        assert (await after.read()).status == NOT_SERVING
    for call in (before, after):
        call.cancel()


async def test_a_server_with_a_watcher_that_does_not_read_stops(server: ApiServer, port: int):
    with deaf(port, f"{SERVICE}/Watch") as watcher:
        await asyncio.to_thread(answer_begun, watcher)
        server.refuse()
        await asyncio.wait_for(server.stop(grace=0.1), 30)


async def test_there_are_so_many_watchers():
    server = grpc.aio.server(interceptors=[EdgeInterceptor()])
    add_HealthServicer_to_server(HealthServicer([""], most_watchers=2), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = HealthStub(channel)
        watches = [stub.Watch(HealthCheckRequest(), timeout=30) for _ in range(2)]
        for watch in watches:
            await watch.read()
        error = await failure(stub.Watch(HealthCheckRequest(), timeout=30).read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        [told] = details(status_of(error), error_details_pb2.RetryInfo)
        assert told.retry_delay.seconds == 5
        assert (await stub.Check(HealthCheckRequest(), timeout=30)).status == SERVING
    await server.stop(None)


@pytest.mark.parametrize("method", METHODS)
async def test_garbage_is_refused_as_elsewhere_and_counted(
    method: str, caplog: pytest.LogCaptureFixture, garbage_stays: None
):
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    interceptor = EdgeInterceptor(observers=Observers([RpcMetrics(registry)]))
    server = grpc.aio.server(interceptors=[interceptor])
    add_HealthServicer_to_server(HealthServicer([""]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        error = await failure(answered(asked(channel, method), b"\xff\xff\xff"))
    await server.stop(None)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a valid protobuf message" in str(error.details())
    [info] = details(status_of(error), error_details_pb2.ErrorInfo)
    assert info.reason == "INVALID_REQUEST"
    counted = {"method": method, "code": "INVALID_ARGUMENT"}
    assert registry.get_sample_value("dropnorm_rpcs_total", counted) == 1
    assert caplog.records == []


async def test_a_message_of_a_stranger_is_small(channel: grpc.aio.Channel):
    error = await failure(answered(asked(channel, "Check"), bytes(5_000)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "5,000 bytes, and one of this method has at most 4,096" in str(error.details())


@pytest.mark.parametrize("stand", ["half_sent", "deaf"])
async def test_strangers_who_stand_about_keep_nobody_out(
    stub: Any, port: int, stand: str, caplog: pytest.LogCaptureFixture
):
    with contextlib.ExitStack() as opened:
        for _ in range(100):
            if stand == "deaf":
                opened.enter_context(deaf(port, f"{SERVICE}/Check"))
            else:
                opened.enter_context(half_sent(port, f"{SERVICE}/Check", 10 * 2**20))
            assert (await stub.Check(HealthCheckRequest(), timeout=30)).status == SERVING
    assert "unexpected" not in caplog.text.lower()


async def test_many_may_ask_in_the_same_moment(stub: Any):
    checks = (stub.Check(HealthCheckRequest(), timeout=30) for _ in range(300))
    assert {reply.status for reply in await asyncio.gather(*checks)} == {SERVING}
