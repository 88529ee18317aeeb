"""Bytes that are not even gRPC, and callers who break off."""

from __future__ import annotations

import contextlib
import socket
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.fuzz.calls import Method, Wire, contract, multicallable
from tests.e2e.fuzz.test_messages import fuzz
from tests.e2e.servers import Server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
[LIST_WORKERS] = [method for method in contract() if method.name == "ListWorkers"]


def frames() -> st.SearchStrategy[bytes]:
    """HTTP/2 frames with a length that may be a lie, of any type, with any flags, on any stream."""

    def frame(length: int, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        return head + payload

    lying = st.builds(
        frame,
        st.integers(0, 2**24 - 1),
        st.integers(0, 12),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=64),
    )
    true = st.builds(
        lambda kind, flags, stream, payload: frame(len(payload), kind, flags, stream, payload),
        st.integers(0, 9),
        st.sampled_from((0, 1, 4, 5, 8, 0x20)),
        st.integers(0, 9),
        st.binary(max_size=64),
    )
    return lying | true


@fuzz
@given(
    opening=st.sampled_from(
        (b"", PREFACE, PREFACE + SETTINGS, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01")
    ),
    content=st.lists(frames() | st.binary(max_size=300), max_size=20),
)
def test_bytes_of_any_kind_on_the_port(
    target: Server, wire: Wire, opening: bytes, content: list[bytes]
):
    with (
        contextlib.suppress(ConnectionError),  # the server may hang up at any time, and is right to
        socket.create_connection(("127.0.0.1", target.port), timeout=60) as connection,
    ):
        connection.sendall(opening + b"".join(content))

    assert wire.send(LIST_WORKERS, [b""]) is grpc.StatusCode.OK


@pytest.mark.parametrize("method", contract(), ids=lambda method: method.name)
def test_callers_who_break_off(target: Server, wire: Wire, method: Method):
    """Each at another moment of the call: before, while and after it is answered."""
    with grpc.insecure_channel(target.address) as opened:
        caller = multicallable(opened, method)
        begin = caller if method.server_streaming else caller.future
        request = b"\x0a\x13trainingJobs/fuzzed" if method.server_streaming else b""
        for delay in (0.0, 0.0005, 0.002, 0.01):
            call = begin(iter([b"\x12\x01a"]) if method.client_streaming else request)
            threading.Event().wait(delay)
            call.cancel()

    assert wire.send(LIST_WORKERS, [b""]) is grpc.StatusCode.OK


def test_a_thousand_connections_that_say_nothing(target: Server, wire: Wire):
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            silent = socket.create_connection(("127.0.0.1", target.port), timeout=60)
            stack.enter_context(contextlib.closing(silent))

        assert wire.send(LIST_WORKERS, [b""]) is grpc.StatusCode.OK
