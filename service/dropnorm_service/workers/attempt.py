"""What a worker says, until it ends: payloads and an outcome for the domain."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator
from datetime import datetime

from dropnorm.results import JobError, Payload
from dropnorm_service.jobs.ports import Broken, Finished, Launch, Lost, Outcome, Stopped
from dropnorm_service.workers.messages import End, Heartbeat, Ready, Report, Trace
from dropnorm_service.workers.process import Child

_ABORTED = 10

log = logging.getLogger(__name__)


async def follow(
    worker: Child, launch: Launch, patience: float
) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
    """What a started worker says. A worker that says nothing for too long is killed.

    Args:
        worker: the process.
        launch: the attempt it runs.
        patience: seconds; time in which nobody asks for the next item does not count.
    """
    while True:
        try:
            async with asyncio.timeout(patience):
                message = await worker.receive()
        except TimeoutError:
            worker.kill()
            yield Lost(_hung(patience))
            return
        match message:
            case Report():
                yield message.time, message.payload
            case Heartbeat() | Ready():
                pass
            case Trace():
                log.error(
                    "a worker met an unexpected error",
                    extra={"job": launch.job_id, "attempt": launch.attempt, "trace": message.text},
                )
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


def _hung(seconds: float) -> JobError:
    return JobError(
        code=_ABORTED,
        reason="WORKER_HUNG",
        message=f"The worker gave no sign of life for {seconds:g} seconds and was killed.",
        metadata={"seconds": f"{seconds:g}"},
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
