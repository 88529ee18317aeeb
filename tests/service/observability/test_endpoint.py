"""The metrics' port: one page, whatever else is asked."""

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from dropnorm_service.observability import endpoint as module
from dropnorm_service.observability.endpoint import CannotServeMetrics, MetricsEndpoint
from dropnorm_service.observability.metrics import Metrics

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    endpoint = MetricsEndpoint(Metrics().exposition)
    parts = urlsplit(await endpoint.start("127.0.0.1", 0))
    assert parts.path == "/metrics"
    assert parts.hostname is not None
    assert parts.port is not None
    yield parts.hostname, parts.port
    endpoint.stop()


async def ask(address: tuple[str, int], request: bytes, *, eof: bool = False) -> str:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        if eof:
            writer.write_eof()
        return (await reader.read()).decode("utf-8", "replace")
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics?name[]=x HTTP/1.0\r\n\r\n", 200),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\xff\xfe\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (GET + b"X: " + b"a" * 100_000 + b"\r\n\r\n", 400),
        (GET + b"Accept: \xff\x00nonsense;q=x\r\n\r\n", 200),
    ],
)
async def test_whatever_is_asked_gets_an_answer_and_the_page_stays(
    address: tuple[str, int], request_: bytes, status: int
) -> None:
    assert (await ask(address, request_)).startswith(f"HTTP/1.1 {status} ")
    assert "dropnorm_jobs" in await ask(address, GET + b"\r\n")


async def test_a_request_that_is_broken_off_is_one_too(address: tuple[str, int]) -> None:
    assert (await ask(address, b"GET /met", eof=True)).startswith("HTTP/1.1 400 ")
    assert "dropnorm_jobs" in await ask(address, GET + b"\r\n")


async def test_who_says_nothing_is_hung_up_on_and_many_of_them_are_too_many(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MOST_CONNECTIONS", 2)
        patch.setattr(module, "_PATIENCE", 1.0)
        silent = [await asyncio.open_connection(*address) for _ in range(2)]
        assert await ask(address, b"") == ""
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
    assert (await ask(address, GET + b"\r\n")).startswith("HTTP/1.1 200 ")


async def test_a_head_is_without_a_body_and_openmetrics_is_spoken(
    address: tuple[str, int],
) -> None:
    head = await ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert head.endswith("\r\n\r\n")
    accept = b"Accept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    page = await ask(address, GET + accept)
    assert "Content-Type: application/openmetrics-text" in page
    assert page.endswith("# EOF\n")


async def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotServeMetrics, match=rf"127\.0\.0\.1:{port}.*--metrics-port"):
            await MetricsEndpoint(Metrics().exposition).start("127.0.0.1", port)
