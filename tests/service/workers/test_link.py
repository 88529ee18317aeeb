import logging
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from dropnorm.results import LogLine
from dropnorm_service.jobs.ports import Order as Told
from dropnorm_service.training import Interrupted, Order
from dropnorm_service.workers.child import link as link_module
from dropnorm_service.workers.child.link import Link, LinkHandler
from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import (
    AnyMessage,
    Heartbeat,
    Logged,
    Ordered,
    Ready,
    Report,
    Stepped,
)


class Wire(NamedTuple):
    """A link, and the server's end of its connection."""

    link: Link
    server: socket.socket

    def order(self, order: Told) -> None:
        self.server.sendall(encode(Ordered(order=order)))

    def heard(self) -> list[AnyMessage]:
        self.server.setblocking(False)
        try:
            return [decode(body) for body in Frames().feed(self.server.recv(2**16))]
        except BlockingIOError:
            return []


@pytest.fixture
def wire() -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Wire(Link(ours), theirs)


class Clock:
    """Goes on when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(link_module, "time", clock)
    return clock


def test_without_orders_it_goes_on(wire: Wire) -> None:
    assert wire.link.order() is Order.GO_ON


def test_orders_are_given_once_and_in_turn(wire: Wire) -> None:
    wire.order("checkpoint")
    wire.order("pause")
    assert [wire.link.order() for _ in range(3)] == [Order.CHECKPOINT, Order.PAUSE, Order.GO_ON]


def test_a_server_that_is_gone_means_a_pause(wire: Wire) -> None:
    wire.order("checkpoint")
    wire.server.close()
    assert [wire.link.order() for _ in range(3)] == [Order.CHECKPOINT, Order.PAUSE, Order.PAUSE]
    wire.link.report(LogLine(message="nobody hears this"))
    assert wire.link.receive() is None


def test_a_server_that_goes_while_the_worker_speaks_means_a_pause_too(wire: Wire) -> None:
    wire.server.close()
    wire.link.report(LogLine(message="nobody hears this"))
    assert wire.link.order() is Order.PAUSE


@pytest.mark.parametrize("order", ["pause", "cancel"])
def test_work_without_checkpoints_is_interrupted(order: Told, wire: Wire) -> None:
    wire.order("checkpoint")
    wire.link.heed()
    wire.order(order)
    with pytest.raises(Interrupted) as caught:
        wire.link.heed()
    assert caught.value.order == Order(order)


def test_the_heart_beats_when_there_is_nothing_else_to_say(clock: Clock, wire: Wire) -> None:
    wire.link.order()
    assert wire.heard() == [Heartbeat()]
    wire.link.order()
    assert wire.heard() == []
    wire.link.report(LogLine(message="alive"))
    (report,) = wire.heard()
    assert isinstance(report, Report)
    assert report.payload == LogLine(message="alive")
    clock.now += 0.9
    wire.link.order()
    assert wire.heard() == []
    clock.now += 0.1
    wire.link.order()
    assert wire.heard() == [Heartbeat()]


def test_what_is_no_order_is_a_defect(wire: Wire) -> None:
    wire.server.sendall(encode(Ready()))
    with pytest.raises(TypeError, match="ready"):
        wire.link.order()


def test_a_message_that_warns_as_it_is_made_is_sent_and_so_is_the_warning(wire: Wire) -> None:
    handler, logger = LinkHandler(wire.link), logging.getLogger("py.warnings")
    odd = Logged.model_construct(level="no number", logger="odd", text="odd")
    sending = threading.Thread(target=wire.link.send, args=(odd,), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        logger.addHandler(handler)
        try:
            sending.start()
            sending.join(60.0)
        finally:
            logger.removeHandler(handler)
            logging.captureWarnings(False)
    assert not sending.is_alive()
    warning, sent = Frames().feed(wire.server.recv(2**16))
    assert b"PydanticSerializationUnexpectedValue" in warning
    assert b"no number" in sent


def test_steps_that_no_progress_counts_are_told_once_a_second(clock: Clock, wire: Wire) -> None:
    for _ in range(3):
        wire.link.stepped()
        wire.link.stepped()
        assert wire.heard() == [Stepped()]
        clock.now += 1.0
