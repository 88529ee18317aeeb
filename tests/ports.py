"""Ports of this machine for the servers of tests."""

from __future__ import annotations

import contextlib
import random
import socket

_PORTS = (20_000, 32_000)


def free_port() -> int:
    """A port that nobody listens on, outside the range of clients.

    One from that range may be a client's own end by the time that a server wants it, or wants it again after a
    restart; and while nobody listens there, a client could even connect to itself.
    """
    while True:
        port = random.randrange(*_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
