"""A worker: waits warmed up for one attempt, runs it, tells the server, and ends."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from dropnorm.results import CheckpointWritten, EpochCompleted, Evaluated, JobError, Payload
from dropnorm.spec import InvalidSpecError
from dropnorm_service.durable import no_room
from dropnorm_service.jobs.ports import CHECKPOINTS, MODEL
from dropnorm_service.training import (
    Checkpoints,
    DataUnavailable,
    DeviceError,
    Interrupted,
    Order,
    OutOfMemory,
    ResultTooLarge,
    Resumed,
    TrainingError,
    choose_device,
    device_reported,
    fit,
    load_data,
    save_model,
    save_pictures,
    with_batch_size,
)
from dropnorm_service.workers.child.compiled import keep_compiled
from dropnorm_service.workers.child.data import dataset_cache
from dropnorm_service.workers.child.fence import sole_attempt
from dropnorm_service.workers.child.link import Link, LinkHandler
from dropnorm_service.workers.child.meter import LoadMeter
from dropnorm_service.workers.child.tracing import AttemptSpans
from dropnorm_service.workers.child.warmup import warm_up
from dropnorm_service.workers.frames import MAX_MESSAGE_BYTES
from dropnorm_service.workers.messages import DEVICE_ERROR, End, Ready, Start, Trace

_POLL_SECONDS = 0.1
# Below so much work in a step a second thread is no gain, and a loss as soon as anything else wants the
# CPU: each operation then waits until both threads have run. Measured with MLPs of 1 to 500 MFLOP a
# step on two cores: 0.7 ms with one thread against 0.9 ms with two at 13 MFLOP, 1.3 against 0.9 at 84.
_FLOPS_WORTH_THREADS = 30e6

MAX_EVALUATION_BYTES = MAX_MESSAGE_BYTES * 3 // 4
"""What an evaluation may take as JSON; as a message of the contract it is then well below what clients take."""

_INVALID_ARGUMENT = 3
_RESOURCE_EXHAUSTED = 8
_INTERNAL = 13
_UNAVAILABLE = 14


def main(connection: socket.socket) -> None:
    """Wait for a Start, work, and end; the environment names GPUs and the most threads."""
    link = Link(connection)
    _log_to(link)
    torch.set_num_threads(1)
    try:
        warm_up()
    except Exception:  # a broken device is the job's to report, if it needs that device
        link.send(Trace(text=traceback.format_exc()))
    link.send(Ready())
    start = link.receive()
    if isinstance(start, Start):
        link.send(_work(start, link))


def _log_to(link: Link) -> None:
    """Records and warnings go to the server's log, which shows those that its level lets through."""
    logging.basicConfig(level=logging.WARNING, handlers=[LinkHandler(link)], force=True)
    logging.getLogger("dropnorm_service").setLevel(logging.INFO)
    logging.captureWarnings(True)


def _work(start: Start, link: Link) -> End:
    """Run the attempt; whatever happens becomes an End."""
    try:
        spans = AttemptSpans(link, start.traceparent)
        with sole_attempt(start.folder, link.heed), device_reported(), spans.listening():
            _train(start, link, spans)
    except Interrupted as stop:
        return End(order="cancel" if stop.order is Order.CANCEL else "pause")
    except TrainingError as error:
        return _failed(error.code, error.reason, error.message, error.metadata)
    except InvalidSpecError as error:
        return _failed(_INVALID_ARGUMENT, "INVALID_SPEC", f"The spec does not fit: {error}.")
    except MemoryError:
        return _failed(
            OutOfMemory.code,
            OutOfMemory.reason,
            OutOfMemory("The machine has no memory left.").message,
        )
    except DeviceError as error:
        link.send(Trace(text=traceback.format_exc()))
        text = f"The device failed: {error}."
        return _failed(_UNAVAILABLE, DEVICE_ERROR, text, retry=True)
    except DataUnavailable as error:
        return _failed(_UNAVAILABLE, "DATA_UNAVAILABLE", f"{error}.", retry=True)
    except OSError as error:
        link.send(Trace(text=traceback.format_exc()))
        return _not_stored(error)
    except Exception:
        link.send(Trace(text=traceback.format_exc()))
        text = "The worker met an unexpected error; the server's log has its trace."
        return _failed(_INTERNAL, "INTERNAL", text)
    return End()


def _train(start: Start, link: Link, spans: AttemptSpans) -> None:
    spec = start.spec
    device = choose_device(spec.compute)
    meter = LoadMeter(device)

    def on_event(payload: Payload) -> None:
        if isinstance(payload, EpochCompleted):
            payload = payload.model_copy(update={"system": meter.read()})
        if isinstance(payload, CheckpointWritten) and compiled is not None:
            compiled.list_whole()
        link.report(payload)
        spans.hear(payload)

    def on_resumed(resumed: Resumed) -> None:
        # What the attempt before told last may not have come into the journal, if that of its checkpoint did.
        for metrics in resumed.history[start.epochs_told :]:
            link.report(EpochCompleted(metrics=metrics))
        link.report(CheckpointWritten(epoch=len(resumed.history), step=resumed.step))

    cache = dataset_cache(start.data)
    checkpoints = Checkpoints(
        start.folder / CHECKPOINTS, interval_seconds=start.checkpoint_interval
    )
    compiled = keep_compiled(checkpoints) if spec.compute.compile else None
    limit = start.memory_limit_bytes
    data = load_data(
        spec,
        cache,
        device,
        on_event=on_event,
        orders=link.order,
        memory_limit_bytes=limit,
        time_limit=start.time_limit,
    )
    fitted, paper = with_batch_size(spec, data.summary, limit)
    torch.set_num_threads(_threads(paper.forward_flops * fitted.optimization.batch_size))
    result = fit(
        spec,
        data,
        on_event=on_event,
        orders=link.order,
        checkpoint=checkpoints,
        memory_limit_bytes=limit,
        time_limit=start.time_limit,
        on_resumed=on_resumed,
        on_uncounted_step=link.stepped,
    )

    evaluated = Evaluated(evaluation=result.evaluation)
    if (size := len(evaluated.model_dump_json().encode())) > MAX_EVALUATION_BYTES:
        raise ResultTooLarge(size, MAX_EVALUATION_BYTES)

    def save() -> None:
        save_model(start.folder / MODEL, spec, data, result.model)
        save_pictures(start.folder / MODEL, result.pictures)

    spans.enter("saving")
    _beside(save, link)
    link.report(evaluated)


def _beside(work: Callable[[], None], link: Link) -> None:
    """Do the last of an attempt's work, which writes to a disk that may be slow, while the heart beats on.

    Raises:
        Interrupted: the job is cancelled. Whoever pauses it now finds it done.
    """
    pool = ThreadPoolExecutor(1)
    try:
        done = pool.submit(work)
        while not wait([done], timeout=_POLL_SECONDS).done:
            if link.order() is Order.CANCEL:
                raise Interrupted(Order.CANCEL)
        done.result()
    finally:
        pool.shutdown(wait=False)


def _threads(forward: int) -> int:
    """CPU threads for a training, by the work of a batch's forward pass: sums depend on it, so it depends on the spec
    and the slot alone."""
    enough = 3 * forward >= _FLOPS_WORTH_THREADS  # a backward pass is twice a forward pass
    return int(os.environ["OMP_NUM_THREADS"]) if enough else 1


def _not_stored(error: OSError) -> End:
    """A file could not be read or written. A full disk is nobody's fault, and is waited for."""
    why = error.strerror or type(error).__name__
    if no_room(error):
        text = f"The disk of the data folder has no room ({why}); free some, and the job goes on."
        return _failed(_RESOURCE_EXHAUSTED, "DISK_FULL", text, retry=True)
    text = f"The worker could not read or write a file: {why}."
    return _failed(_UNAVAILABLE, "IO_ERROR", text, retry=True)


def _failed(
    code: int,
    reason: str,
    message: str,
    metadata: dict[str, str] | None = None,
    *,
    retry: bool = False,
) -> End:
    error = JobError(code=code, reason=reason, message=message, metadata=metadata or {})
    return End(error=error, retry=retry)
