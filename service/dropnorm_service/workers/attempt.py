"""What a worker says, until it ends: payloads and an outcome for the domain."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import NamedTuple

from dropnorm.results import JobError, LogLine, Payload, Progress, Progressed, Warned
from dropnorm_service.jobs.ports import Broken, Finished, Launch, Lost, Outcome, Stopped
from dropnorm_service.workers import machine
from dropnorm_service.workers.memory import MemoryWatch
from dropnorm_service.workers.messages import (
    End,
    Heartbeat,
    Logged,
    Ready,
    Report,
    Span,
    Stepped,
    Trace,
)
from dropnorm_service.workers.process import Child

_ABORTED = 10
# A worker that computes uses far more; one that waits for what never comes, far less.
_BUSY_SHARE = 0.01

log = logging.getLogger(__name__)


class Patience(NamedTuple):
    """How long a worker may say nothing, in seconds."""

    idle: float
    """While it does nothing."""
    busy: float
    """While it uses the CPU."""
    standstill: float | None = None
    """While it says that it lives, but comes no further; None: any time."""


class _Silence:
    """Judges a worker that says nothing.

    One operation may take longer than any heartbeat: a large matrix to be made orthogonal, a huge step, a
    model to be saved. Until it is done the worker cannot speak, but it uses the CPU, which a worker that is
    stopped, or waits for ever, does not. It is looked at twice within the patience for an idle one, since
    what it used before it fell silent tells nothing. One that only waits for a core on a crowded machine works too.
    """

    def __init__(self, worker: Child, patience: Patience) -> None:
        self._worker = worker
        self._patience = patience
        self.window = patience.idle / 2
        """Seconds between two looks."""
        self.seconds = 0.0
        """How long it has said nothing."""
        self.busy = False
        """Whether it used the CPU between the last two looks, or wanted to."""
        self._used: machine.CpuUse | None = None

    def broken(self) -> None:
        """It has said something."""
        self.seconds, self.busy, self._used = 0.0, False, None

    def too_long(self) -> bool:
        """Look at it after another window; whether it hangs."""
        before, self._used = self._used, machine.cpu_use(self._worker.pid)
        first = self.seconds == 0.0
        self.seconds += self.window
        if first:
            return False
        self.busy = (
            before is not None
            and self._used is not None
            and (
                self._used.wanted
                or self._used.seconds - before.seconds >= _BUSY_SHARE * self.window
            )
        )
        return not self.busy or self.seconds >= self._patience.busy


class _Standstill:
    """Judges a worker that shows signs of life, by what it says of how far it is.

    Progress that repeats itself, as in a long evaluation, is none; an epoch, a checkpoint or a data set is. Only the
    time counts in which the worker is listened to.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._known: Progress | None = None
        self.seconds = 0.0
        """How long it has come no further."""

    @property
    def left(self) -> float:
        """Seconds until it has stood still for too long."""
        return max(0.0, self._limit - self.seconds)

    def note(self, payload: Payload) -> None:
        """It has said this."""
        if isinstance(payload, LogLine | Warned):
            return
        if isinstance(payload, Progressed):
            if payload.progress == self._known:
                return
            self._known = payload.progress
        self.broken()

    def broken(self) -> None:
        """It has come further."""
        self.seconds = 0.0


async def follow(
    worker: Child,
    launch: Launch,
    patience: Patience,
    memory: MemoryWatch,
    on_span: Callable[[Span], None] = lambda span: None,
) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
    """What a started worker says. A worker that says nothing for too long is killed.

    Args:
        worker: the process.
        launch: the attempt it runs.
        patience: time in which nobody asks for the next item does not count.
        memory: tells of a worker that ended whether its memory was why.
        on_span: takes what it says of its trace.
    """
    silence, standstill = _Silence(worker, patience), _Standstill(patience.standstill)
    about = {"job": launch.job_id, "attempt": launch.attempt}
    while True:
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(silence.window, standstill.left)):
                message = await worker.receive()
        except TimeoutError:
            standstill.seconds += time.monotonic() - started
            if standstill.left == 0.0 or silence.too_long():
                worker.kill()
                yield Lost(_hung(silence) if standstill.left else _stood_still(standstill))
                return
            continue
        standstill.seconds += time.monotonic() - started
        silence.broken()
        match message:
            case Report():
                standstill.note(message.payload)
                yield message.time, message.payload
            case Stepped():
                standstill.broken()
            case Heartbeat() | Ready():
                pass
            case Trace():
                extra = about | {"trace": message.text}
                log.error("a worker met an unexpected error", extra=extra)
            case Logged():
                logger = logging.getLogger(message.logger)
                logger.log(message.level, "%s", message.text, extra=about)
            case Span():
                on_span(message)
            case End():
                yield _outcome(message)
                return
            case None:
                status = await worker.exit_status()
                yield Broken(memory.error()) if memory.exceeded else Lost(_lost(status, memory))
                return
            case _:
                raise TypeError(f"a worker cannot say {message.kind}")


def _outcome(end: End) -> Outcome:
    if end.error is not None:
        return Lost(end.error) if end.retry else Broken(end.error)
    return Finished() if end.order is None else Stopped(end.order)


def _hung(silence: _Silence) -> JobError:
    seconds = f"{silence.seconds:g}"
    text = f"The worker gave no sign of life for {seconds} seconds and was killed."
    if silence.busy:
        text = (
            f"The worker computed for {seconds} seconds without a step further and was killed; "
            "if it needs so long for one step, raise the service's heartbeat_timeout."
        )
    return JobError(
        code=_ABORTED, reason="WORKER_HUNG", message=text, metadata={"seconds": seconds}
    )


def _stood_still(standstill: _Standstill) -> JobError:
    seconds = f"{standstill.seconds:.3g}"
    text = (
        f"The worker came no step further for {seconds} seconds and was killed; if it needs so long for one, give a "
        "larger compute.idle_limit."
    )
    return JobError(
        code=_ABORTED, reason="WORKER_HUNG", message=text, metadata={"seconds": seconds}
    )


def _lost(status: int | None, memory: MemoryWatch) -> JobError:
    metadata = {"used_bytes": str(memory.used)} if memory.used else {}
    if status is None:
        text = "The worker ended before its job did; how is not known."
    elif status >= 0:
        text = f"The worker ended with exit status {status} before its job did."
        metadata["exit_status"] = str(status)
    else:
        metadata["signal"] = name = signal.Signals(-status).name
        text = f"The worker was ended by the signal {name}."
        if name == "SIGKILL":
            text += _why_killed(memory)
    return JobError(code=_ABORTED, reason="WORKER_LOST", message=text, metadata=metadata)


def _why_killed(memory: MemoryWatch) -> str:
    used = f"it used {memory.used >> 20} MiB"
    advice = "ask for a smaller network or batch, or run fewer jobs at once"
    if memory.kernel_killed:
        return f" The machine ran out of memory and {used}: {advice}."
    if memory.used >= memory.limit // 2:
        return f" Unless somebody killed it, the machine ran out of memory, for {used}: {advice}."
    return f" Somebody killed it; {used}, and the machine had memory left."
