"""What a worker says, until it ends: payloads and an outcome for the domain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import NamedTuple

from dropnorm.results import JobError, Payload
from dropnorm_service.jobs.ports import Broken, Finished, Launch, Lost, Outcome, Stopped
from dropnorm_service.workers import machine
from dropnorm_service.workers.messages import End, Heartbeat, Logged, Ready, Report, Trace
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


class _Silence:
    """Judges a worker that says nothing.

    One operation may take longer than any heartbeat: a large matrix to be made orthogonal, a huge step, a
    model to be saved. Until it is done the worker cannot speak, but it uses the CPU, which a worker that is
    stopped, or waits for ever, does not. It is looked at twice within the patience for an idle one, since
    what it used before it fell silent tells nothing.
    """

    def __init__(self, worker: Child, patience: Patience) -> None:
        self._worker = worker
        self._patience = patience
        self.window = patience.idle / 2
        """Seconds between two looks."""
        self.seconds = 0.0
        """How long it has said nothing."""
        self.busy = False
        """Whether it used the CPU between the last two looks."""
        self._used: float | None = None

    def broken(self) -> None:
        """It has said something."""
        self.seconds, self.busy, self._used = 0.0, False, None

    def too_long(self) -> bool:
        """Look at it after another window; whether it hangs."""
        before, self._used = self._used, machine.cpu_seconds(self._worker.pid)
        first = self.seconds == 0.0
        self.seconds += self.window
        if first:
            return False
        self.busy = (
            before is not None
            and self._used is not None
            and self._used - before >= _BUSY_SHARE * self.window
        )
        return not self.busy or self.seconds >= self._patience.busy


async def follow(
    worker: Child, launch: Launch, patience: Patience
) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
    """What a started worker says. A worker that says nothing for too long is killed.

    Args:
        worker: the process.
        launch: the attempt it runs.
        patience: time in which nobody asks for the next item does not count.
    """
    silence = _Silence(worker, patience)
    about = {"job": launch.job_id, "attempt": launch.attempt}
    while True:
        try:
            async with asyncio.timeout(silence.window):
                message = await worker.receive()
        except TimeoutError:
            if silence.too_long():
                worker.kill()
                yield Lost(_hung(silence))
                return
            continue
        silence.broken()
        match message:
            case Report():
                yield message.time, message.payload
            case Heartbeat() | Ready():
                pass
            case Trace():
                extra = about | {"trace": message.text}
                log.error("a worker met an unexpected error", extra=extra)
            case Logged():
                logger = logging.getLogger(message.logger)
                logger.log(message.level, "%s", message.text, extra=about)
            case End():
                yield _outcome(message)
                return
            case None:
                yield Lost(_lost(await worker.exit_status()))
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


def _lost(status: int | None) -> JobError:
    metadata = {}
    if status is None:
        text = "The worker ended before its job did; how is not known."
    elif status >= 0:
        text = f"The worker ended with exit status {status} before its job did."
        metadata["exit_status"] = str(status)
    else:
        metadata["signal"] = name = signal.Signals(-status).name
        text = f"The worker was ended by the signal {name}."
        if name == "SIGKILL":
            text += (
                " Unless somebody killed it, the machine ran out of memory: "
                "ask for a smaller network or batch, or run fewer jobs at once."
            )
    return JobError(code=_ABORTED, reason="WORKER_LOST", message=text, metadata=metadata)
