"""Jobs as a service would write them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dropnorm.results import Event, Payload, State, StateChanged, TrainingJob
from dropnorm.spec import MLP, Data, TrainingSpec
from dropnorm_service.jobs.ports import Change, JobStore, RequestRecord
from dropnorm_service.jobs.projection import project

SPEC = TrainingSpec(architecture=MLP(hidden=(8,)), data=Data(dataset="digits"))
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def draft(job_id: str = "a", *, age: int = 0, **fields: Any) -> TrainingJob:
    """A job before its first event, some seconds older than noon."""
    created = NOON - timedelta(seconds=age)
    job = TrainingJob(
        name=f"trainingJobs/{job_id}",
        display_name=job_id,
        experiment="default",
        spec=SPEC,
        spec_digest=SPEC.digest(),
        state=State.QUEUED,
        create_time=created,
        update_time=created,
    )
    return job.model_copy(update=fields)


def change(
    job: TrainingJob,
    *payloads: Payload,
    insert: bool = False,
    request: RequestRecord | None = None,
    deleted: bool = False,
) -> Change:
    """A change that appends payloads to a job's journal."""
    events = [
        Event(
            training_job=job.name,
            sequence=job.last_sequence + number,
            time=job.create_time + timedelta(seconds=job.last_sequence + number),
            attempt=job.attempt,
            payload=payload,
        )
        for number, payload in enumerate(payloads, start=1)
    ]
    after, _ = project(job, events)
    return Change(job=after, events=tuple(events), insert=insert, request=request, deleted=deleted)


async def insert(store: JobStore, job: TrainingJob) -> TrainingJob:
    """Write a new job with its first event."""
    first = change(job, StateChanged(state=job.state), insert=True)
    await store.commit(first)
    return first.job


async def append(
    store: JobStore, job: TrainingJob, *payloads: Payload, deleted: bool = False
) -> TrainingJob:
    """Write further events of a job."""
    further = change(job, *payloads, deleted=deleted)
    await store.commit(further)
    return further.job


def names(jobs: Sequence[TrainingJob]) -> list[str]:
    """Ids, for short."""
    return [job.id for job in jobs]
