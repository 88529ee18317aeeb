"""A job's row as a function of its journal: what each event does to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from dropnorm.results import (
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


def project(
    job: TrainingJob, events: Iterable[Event], evaluation: Evaluation | None = None
) -> tuple[TrainingJob, Evaluation | None]:
    """The row after these events, and the evaluation that the row gets when the job succeeds.

    Args:
        job: the row before.
        events: the events that follow it, in order.
        evaluation: the newest evaluation in the journal before them.
    """
    changes: dict[str, Any] = {"update_time": job.update_time, "start_time": job.start_time}
    for event in events:
        changes["last_sequence"] = event.sequence
        changes["attempt"] = event.attempt
        # Workers have clocks of their own, and a row's time does not run backwards.
        changes["update_time"] = max(changes["update_time"], event.time)
        match event.payload:
            case Progressed(progress=progress):
                changes["progress"] = progress
            case Evaluated():
                evaluation = event.payload.evaluation
            case SharingChanged(shared=shared):
                changes["shared"] = shared
            case Tracked() as tracked:
                changes["mlflow_experiment_id"] = tracked.mlflow_experiment_id
                changes["mlflow_run_id"] = tracked.mlflow_run_id
            case StateChanged() as change:
                changes["start_time"] = changes["start_time"] or _start_time(event, change)
                changes |= _moved(event, change, evaluation, job.ttl)
    return job.model_copy(update=changes), evaluation


def _start_time(event: Event, change: StateChanged) -> datetime | None:
    return event.time if change.state is State.RUNNING else None


def _moved(
    event: Event, change: StateChanged, evaluation: Evaluation | None, ttl: int | None
) -> dict[str, Any]:
    changes: dict[str, Any] = {"state": change.state}
    if change.state.terminal:
        changes["end_time"] = event.time
        if ttl is not None:
            changes["expire_time"] = event.time + timedelta(seconds=ttl)
    if change.state is State.FAILED:
        changes["error"] = change.error
    if change.state is State.SUCCEEDED:
        changes["evaluation"] = evaluation
    return changes
