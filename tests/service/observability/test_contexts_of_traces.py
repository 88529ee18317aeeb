"""What is kept in memory of the traces of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.client import samples

from dropnorm.results import Event, State, StateChanged
from dropnorm_service.jobs.journal import Transition

tracing = pytest.importorskip("dropnorm_service.observability.tracing")


def test_nothing_is_kept_of_a_job_that_has_ended(tmp_path: Path) -> None:
    """Its end is delivered to MLflow after it has ended, and then its trace is asked for once more."""
    traces = tracing.Tracing("http://127.0.0.1:1", lambda job: tmp_path / job)
    queued = samples.job(state=State.QUEUED, attempt=0)
    accepted = _event(queued.name, 1, State.QUEUED, 0)
    ended = traces.began("/dropnorm.v1.TrainingService/CreateTrainingJob", {}, lasting=False)
    traces.observe(Transition(None, queued, [accepted], False))
    ended("OK")
    context = (tmp_path / queued.id / "traceparent").read_text()
    assert traces._jobs == {queued.id: context}

    succeeded = samples.job(state=State.SUCCEEDED)
    last = _event(queued.name, 9, State.SUCCEEDED, 1)
    traces.observe(Transition(succeeded, succeeded, [last], False))
    with traces.delivering("mlflow", [last]):
        assert traces._jobs == {}
    traces.close()


def _event(job: str, sequence: int, state: State, attempt: int) -> Event:
    return Event(
        training_job=job,
        sequence=sequence,
        time=samples.START,
        attempt=attempt,
        payload=StateChanged(state=state),
    )
