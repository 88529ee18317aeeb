"""A job as its follower sees it: the journal over one or many connections, and what each event changes. No I/O."""

from __future__ import annotations

import time
from typing import Any

import grpc

from dropnorm import wire
from dropnorm._arguments import request, seconds
from dropnorm._calls import backoff, spread
from dropnorm.errors import (
    Internal,
    JobCancelled,
    JobFailed,
    ResultTimeout,
    Unavailable,
    from_rpc_error,
    retry_after,
)
from dropnorm.results import (
    EpochCompleted,
    EpochMetrics,
    Evaluated,
    Evaluation,
    Event,
    Progressed,
    SharingChanged,
    State,
    StateChanged,
    Tracked,
    TrainingJob,
)
from dropnorm.v1 import training_event_pb2, training_service_pb2

_INTERRUPTIONS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_FINAL = frozenset(state for state in State if state.terminal)
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class Watching:
    """One reading of a job's journal, from one event to the final state, over as many streams as it takes.

    Its driver opens a stream with `request` and `timeout`, gives every message to `accept`, and every failure of the
    stream to `interrupted`, which says how long to wait before the next. The service ends the last stream: after the
    event with the final state there may be one more that came late, such as Tracked.
    """

    def __init__(
        self,
        name: str,
        *,
        after: int,
        address: str,
        patience: float,
        timeout: float | None = None,
    ) -> None:
        self.finished = False
        """The event with the final state has been accepted; what fails now is no loss."""
        self._name = name
        self._last = after
        self._request()  # so that an `after` that cannot be is refused before anything is sent
        self._address = address
        self._patience = patience
        self._timeout = seconds("timeout", timeout)
        self._deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._opened = 0.0
        self._lost_since: float | None = None
        self._failures = 0

    def open(self) -> training_service_pb2.WatchTrainingJobRequest:
        """What the next stream is asked: everything after the last event accepted."""
        self._opened = time.monotonic()
        return self._request()

    @property
    def timeout(self) -> float | None:
        """Seconds that the next stream may last; None: for ever."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def accept(self, message: training_event_pb2.TrainingEvent) -> Event | None:
        """The next event; None when it is known already.

        Raises:
            Internal: the service left events out.
        """
        self._contact()
        if message.sequence <= self._last:
            return None
        if message.sequence != self._last + 1:
            raise Internal(
                f"The service at {self._address} skipped events {self._last + 1} to "
                f"{message.sequence - 1} of {self._name}, which it must never do."
            )
        event = wire.from_message(message, Event)
        self._last = event.sequence
        if isinstance(event.payload, StateChanged):
            self.finished = final(event.payload.state)
        return event

    def interrupted(self, error: grpc.RpcError) -> float:
        """Seconds to wait before the next stream.

        Raises:
            ResultTimeout: the time is up.
            ResourceExhausted: the service tells as many journals as it may, for longer than that patience.
            Unavailable: nothing was heard from the service for longer than the client's patience.
            DropnormError: the failure is not one of the connection.
        """
        now = time.monotonic()
        code = error.code()
        if self._deadline is not None and (
            code is grpc.StatusCode.DEADLINE_EXCEEDED or now >= self._deadline
        ):
            raise ResultTimeout(
                f"{self._name} has not ended within {self._timeout:g} s. It goes on; "
                "wait for it again, or cancel it."
            ) from error
        told = retry_after(error)
        if code not in _INTERRUPTIONS and told is None:
            raise from_rpc_error(error, address=self._address) from error
        if now - self._opened > self._patience:
            self._contact()  # so long a stream was a connection, though nothing came: the job was quiet
        self._failures += 1
        if self._lost_since is None:
            self._lost_since = now
        pause = (
            backoff(self._failures, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
            if told is None
            else spread(told)
        )
        if now + pause - self._lost_since > self._patience and told is not None:
            raise from_rpc_error(error, address=self._address) from error
        if now + pause - self._lost_since > self._patience:
            raise Unavailable(
                f"The connection to {self._address} was lost while {self._name} was watched, and nothing "
                f"was heard from there for {self._patience:g} s. The job may well go on; once the service "
                f"answers again, watch(after={self._last}) continues without a gap. "
                f"({error.details()})"
            ) from error
        left = self.timeout
        return pause if left is None else min(pause, left)

    def _request(self) -> training_service_pb2.WatchTrainingJobRequest:
        return request(
            training_service_pb2.WatchTrainingJobRequest,
            name=self._name,
            after_sequence=self._last,
        )

    def _contact(self) -> None:
        self._lost_since = None
        self._failures = 0


def follow(job: TrainingJob, event: Event) -> TrainingJob:
    """The job after an event; unchanged by an event that is not the next one for it."""
    if event.sequence != job.last_sequence + 1:
        return job
    changes: dict[str, Any] = {
        "last_sequence": event.sequence,
        "update_time": event.time,
        "attempt": event.attempt or job.attempt,
    }
    match event.payload:
        case StateChanged(state=state, error=error):
            changes["state"] = state
            if state is State.FAILED:
                changes["error"] = error
            if state is State.RUNNING and job.start_time is None:
                changes["start_time"] = event.time
            if final(state):
                changes["end_time"] = event.time
        case Progressed(progress=progress):
            changes["progress"] = progress
        case EpochCompleted(metrics=metrics) if job.progress is not None:
            changes["progress"] = job.progress.model_copy(
                update={"epoch": metrics.epoch, "step": metrics.step}
            )
        case Evaluated(evaluation=evaluation):
            changes["evaluation"] = evaluation
        case SharingChanged(shared=shared):
            changes["shared"] = shared
        case Tracked() as tracked:
            changes["mlflow_experiment_id"] = tracked.mlflow_experiment_id
            changes["mlflow_run_id"] = tracked.mlflow_run_id
    return job.model_copy(update=changes)


class Epochs:
    """The epochs that a journal tells of up to an event; one that a second attempt did again counts once.

    Args:
        until: number of the last event that counts.
    """

    def __init__(self, until: int) -> None:
        self._until = until
        self._told: dict[int, EpochMetrics] = {}

    def complete(self, event: Event) -> bool:
        """Take note of the next event; whether it is the last that counts."""
        if isinstance(event.payload, EpochCompleted):
            self._told[event.payload.metrics.epoch] = event.payload.metrics
        return event.sequence >= self._until

    def in_order(self) -> tuple[EpochMetrics, ...]:
        """The epochs, the first one first."""
        return tuple(metrics for _, metrics in sorted(self._told.items()))


def outcome(job: TrainingJob) -> Evaluation:
    """What a job has come to.

    Raises:
        JobFailed: by an error of its own, or too many lost attempts.
        JobCancelled: by request.
        Internal: it has not ended, or has no evaluation.
    """
    if job.state is State.FAILED:
        why = job.error.message if job.error else "the service did not say why"
        raise JobFailed(
            f"{job.name} ({job.display_name}) failed: {why.rstrip('.')}.",
            job=job.name,
            error=job.error,
        )
    if job.state is State.CANCELLED:
        raise JobCancelled(
            f"{job.name} ({job.display_name}) was cancelled; history() has the epochs that it did.",
            job=job.name,
        )
    if job.evaluation is None:
        raise Internal(
            f"The journal of {job.name} ended while it was {job.state}, without a result."
        )
    return job.evaluation


def settled(job: TrainingJob) -> bool:
    """Whether all that `outcome` needs is known."""
    return final(job.state) and (job.state != State.SUCCEEDED or job.evaluation is not None)


def final(state: str) -> bool:
    """Whether nothing follows. A state that only a newer service knows is plain text, and not final."""
    return state in _FINAL
