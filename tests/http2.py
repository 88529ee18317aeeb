"""A caller that speaks HTTP/2 by hand, and does what no gRPC library would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4


def half_sent(port: int, method: str, announced: int) -> socket.socket:
    """A call whose message has been announced, and of which nothing comes."""
    return _called(port, method, struct.pack(">BI", 0, announced), flags=0, window=2**16 - 1)


def deaf(port: int, method: str, message: bytes = b"") -> socket.socket:
    """A call that is whole, of a caller whose window has no room for a byte of the answer."""
    data = struct.pack(">BI", 0, len(message)) + message
    return _called(port, method, data, flags=_END_STREAM, window=0)


def strange(connection: socket.socket, method: bytes, headers: Mapping[bytes, bytes]) -> None:
    """A call on a connection that is there, its method and further headers as they are."""
    data = struct.pack(">BI", 0, 0)
    _call(connection, method, data, flags=_END_STREAM, window=2**16 - 1, more=headers)


def answer_begun(connection: socket.socket) -> None:
    """Wait for the headers of the answer; they go out before what a window holds back."""
    with connection.makefile("rb") as coming:
        while True:
            head = coming.read(9)
            assert len(head) == 9, "the server has hung up"
            coming.read(int.from_bytes(head[:3]))
            if head[3] == _HEADERS:
                return


def _called(port: int, method: str, data: bytes, *, flags: int, window: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    _call(connection, method.encode(), data, flags=flags, window=window, more={})
    return connection


def _call(
    connection: socket.socket,
    method: bytes,
    data: bytes,
    *,
    flags: int,
    window: int,
    more: Mapping[bytes, bytes],
) -> None:
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": method,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        **more,
    }
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
    connection.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, flags, 1, data)
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def _text(text: bytes) -> bytes:
    """RFC 7541, section 5.2: the length, in 7 bits and as many more bytes as it takes."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    length, rest = b"\x7f", len(text) - 127
    while rest >= 128:
        length, rest = length + bytes([rest % 128 + 128]), rest // 128
    return length + bytes([rest]) + text
