"""The port that Prometheus reads: GET /metrics, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

_PATH = "/metrics"
_LONGEST_HEAD = 16 * 1024
_PATIENCE = 10.0
_MOST_CONNECTIONS = 32

Exposition = Callable[[str], Awaitable[tuple[str, bytes]]]
"""An Accept header -> content type and body."""

log = logging.getLogger(__name__)


class CannotServeMetrics(Exception):
    """The address is taken or is not of this machine."""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class MetricsEndpoint:
    """A server of one page, on the loop of the service. One request a connection, and few at a time."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> str:
        """Listen; the URL, with the port that port 0 came to.

        Raises:
            CannotServeMetrics: the address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, host, port, limit=_LONGEST_HEAD, reuse_address=True
            )
        except OSError as error:
            raise CannotServeMetrics(
                f"cannot serve metrics on {host}:{port} ({error.strerror or error}): the port is taken, or the "
                "address is not this machine's; choose another --metrics-port or --metrics-host"
            ) from error
        bound = self._server.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{bound}{_PATH}"

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._open <= _MOST_CONNECTIONS:
                    await self._answer(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # it sent no request, or does not end, or has gone
        except Exception:
            log.exception("a request for metrics failed")
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = ""
        try:
            method, accept = await _read_request(reader)
            content_type, body = await self._exposition(accept)
            status = HTTPStatus.OK
        except _Refused as refused:
            status, content_type = refused.status, "text/plain; charset=utf-8"
            body = f"{status.value} {status.phrase}: metrics are at {_PATH}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii") + (b"" if method == "HEAD" else body))
        writer.write_eof()
        # Closing before the rest of a long request has come could take the answer from its reader.
        while await reader.read(_LONGEST_HEAD):
            pass


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and Accept header of a request for the metrics.

    Raises:
        _Refused: it is no such request.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise _Refused(HTTPStatus.BAD_REQUEST) from error
    line, *fields = head.split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    if parts[1].partition("?")[0] != _PATH:
        raise _Refused(HTTPStatus.NOT_FOUND)
    if parts[0] not in ("GET", "HEAD"):
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    accepted = [
        value
        for name, _, value in (field.partition(":") for field in fields)
        if name.lower() == "accept"
    ]
    return parts[0], ",".join(accepted)
