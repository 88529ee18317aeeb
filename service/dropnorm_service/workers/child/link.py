"""A worker's connection to the server."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import deque
from datetime import UTC, datetime

from dropnorm.results import Payload
from dropnorm_service.training import Interrupted, Order
from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import (
    AnyMessage,
    Heartbeat,
    Logged,
    Message,
    Ordered,
    Report,
    Stepped,
)

_HEARTBEAT_SECONDS = 1.0
_LONGEST_TEXT = 8000


class Link:
    """Messages from and to the server. When the server is gone, sending has no effect."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()
        self._inbox: deque[AnyMessage] = deque()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._heartbeat_due = self._step_due = 0.0
        self._gone = False
        self._sending = threading.Lock()  # libraries may log from threads of their own

    def receive(self) -> AnyMessage | None:
        """Wait for the next message; None when the server is gone."""
        while not self._inbox and not self._gone:
            self._read()
        return self._inbox.popleft() if self._inbox else None

    def send(self, message: Message) -> None:
        """Send a message; waits while the server has too many unread ones."""
        if self._gone:
            return
        frame = encode(message)  # which may warn, and a warning is a message too
        try:
            with self._sending:
                self._connection.sendall(frame)
        except ConnectionError:
            self._gone = True
        self._heartbeat_due = time.monotonic() + _HEARTBEAT_SECONDS

    def report(self, payload: Payload) -> None:
        """Send something for the job's journal."""
        self.send(Report(time=datetime.now(UTC), payload=payload))

    def stepped(self) -> None:
        """The work has come further, by a step that its progress does not count; told at most once a second."""
        now = time.monotonic()
        if now >= self._step_due:
            self._step_due = now + _HEARTBEAT_SECONDS
            self.send(Stepped())

    def order(self) -> Order:
        """What to do next. Asked between two steps: it costs a system call, and keeps the heart beating.

        A server that is gone means a pause: the attempt will be somebody's to go on with.
        """
        if self._poll.poll(0):
            self._read()
        if time.monotonic() >= self._heartbeat_due:
            self.send(Heartbeat())
        if self._inbox:
            message = self._inbox.popleft()
            if not isinstance(message, Ordered):
                raise TypeError(f"a working worker cannot obey {message.kind}")
            return Order(message.order)
        return Order.PAUSE if self._gone else Order.GO_ON

    def heed(self) -> None:
        """For work that has nothing yet to write a checkpoint of.

        Raises:
            Interrupted: the order is to pause or to cancel.
        """
        order = self.order()
        if order in (Order.PAUSE, Order.CANCEL):
            raise Interrupted(order)

    def _read(self) -> None:
        try:
            data = self._connection.recv(2**16)
        except ConnectionError:
            data = b""
        self._gone |= not data
        self._inbox.extend(map(decode, self._frames.feed(data)))


class LinkHandler(logging.Handler):
    """Sends log records to the server, whose log says for which job they are."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; its trace is part of the text."""
        text = self.format(record)[:_LONGEST_TEXT]
        self._link.send(Logged(level=record.levelno, logger=record.name, text=text))
