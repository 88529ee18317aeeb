"""Jobs and events as rows, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from dropnorm.results import Evaluated, Event, JobError, Payload, Progress, State, TrainingJob
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import RequestRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_payloads: TypeAdapter[Payload] = TypeAdapter(Payload)


def to_micros(time: datetime) -> int:
    """Whole microseconds since 1970 in UTC."""
    return (time - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The time, in UTC."""
    return _EPOCH + micros * _MICROSECOND


def fixed_values(job: TrainingJob) -> dict[str, Any]:
    """Columns of a job that never change."""
    return {
        "id": job.id,
        "display_name": job.display_name,
        "experiment": job.experiment,
        "labels": json.dumps(job.labels, ensure_ascii=False),
        "priority": job.priority,
        "spec_digest": job.spec_digest,
        "create_time": to_micros(job.create_time),
        "deleted": 0,
        "owner": job.owner,
        "dataset": job.spec.data.dataset,
        "ttl": job.ttl,
    }


def changing_values(job: TrainingJob) -> dict[str, Any]:
    """Columns of a job that its journal changes."""
    return {
        "state": job.state.value,
        "attempt": job.attempt,
        "progress": job.progress and job.progress.model_dump_json(),
        "error": job.error and job.error.model_dump_json(),
        "mlflow_experiment_id": job.mlflow_experiment_id,
        "mlflow_run_id": job.mlflow_run_id,
        "start_time": job.start_time and to_micros(job.start_time),
        "end_time": job.end_time and to_micros(job.end_time),
        "update_time": to_micros(job.update_time),
        "last_sequence": job.last_sequence,
        "shared": int(job.shared),
        "expire_time": job.expire_time and to_micros(job.expire_time),
    }


def event_values(job_id: str, event: Event) -> dict[str, Any]:
    """Columns of an event."""
    return {
        "job_id": job_id,
        "sequence": event.sequence,
        "time": to_micros(event.time),
        "attempt": event.attempt,
        "kind": event.payload.kind,
        "payload": event.payload.model_dump_json(),
    }


def to_job(row: Row[Any], evaluated: str | None = None) -> TrainingJob:
    """The job of a row of `jobs` with its `spec`.

    Args:
        evaluated: payload of the event with its evaluation.
    """
    return TrainingJob(
        name=f"trainingJobs/{row.id}",
        display_name=row.display_name,
        experiment=row.experiment,
        labels=json.loads(row.labels),
        priority=row.priority,
        spec=TrainingSpec.model_validate_json(row.spec),
        spec_digest=row.spec_digest,
        state=State(row.state),
        attempt=row.attempt,
        progress=Progress.model_validate_json(row.progress) if row.progress else None,
        error=JobError.model_validate_json(row.error) if row.error else None,
        evaluation=Evaluated.model_validate_json(evaluated).evaluation if evaluated else None,
        mlflow_experiment_id=row.mlflow_experiment_id,
        mlflow_run_id=row.mlflow_run_id,
        create_time=from_micros(row.create_time),
        start_time=_optional_time(row.start_time),
        end_time=_optional_time(row.end_time),
        update_time=from_micros(row.update_time),
        last_sequence=row.last_sequence,
        owner=row.owner,
        shared=bool(row.shared),
        expire_time=_optional_time(row.expire_time),
        ttl=row.ttl,
    )


def to_event(row: Row[Any]) -> Event:
    """The event of a row of `events`."""
    return Event(
        training_job=f"trainingJobs/{row.job_id}",
        sequence=row.sequence,
        time=from_micros(row.time),
        attempt=row.attempt,
        payload=_payloads.validate_json(row.payload),
    )


def to_request(row: Row[Any]) -> RequestRecord:
    """The record of a row of `requests`."""
    return RequestRecord(
        request_id=row.request_id, digest=row.digest, job_id=row.job_id, owner=row.owner
    )


def _optional_time(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
