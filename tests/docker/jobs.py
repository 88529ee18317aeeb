"""What the journal and MLflow in the containers say of a job."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Run
from tests.docker.engine import PATIENCE, Composition
from tests.e2e.servers import eventually

import dropnorm as dn
from dropnorm.results import Event


def next_epoch(job: dn.JobHandle, after: int) -> Event:
    """The first epoch in a job's journal after an event; waits for it."""
    for event in job.watch(after=after):
        if isinstance(event.payload, dn.EpochCompleted):
            return event
    raise AssertionError(f"{job.name} has ended: {job.state}")


def ended_run(team: Composition, job: dn.JobHandle, status: str) -> Run:
    """The run of a job that has ended, once MLflow has all of it."""
    mlflow = MlflowClient(team.mlflow)

    def ended() -> Run | None:
        job.refresh()
        run = mlflow.get_run(job.mlflow_run_id) if job.mlflow_run_id else None
        return run if run is not None and run.info.status == status else None

    return eventually(ended, f"the run of {job.name} is {status} in MLflow", within=PATIENCE)


def runs_of(team: Composition, experiment: str) -> Sequence[Run]:
    mlflow = MlflowClient(team.mlflow)
    found = mlflow.get_experiment_by_name(experiment)
    assert found is not None
    return mlflow.search_runs([found.experiment_id])


def check_mirrored(team: Composition, job: dn.JobHandle, status: str) -> None:
    """MLflow has the job's run, ended, with each epoch once."""
    run = ended_run(team, job, status)
    history = MlflowClient(team.mlflow).get_metric_history(run.info.run_id, "optimizer_steps")
    epochs = {
        event.payload.metrics.epoch
        for event in job.watch()
        if isinstance(event.payload, dn.EpochCompleted)
    }
    assert sorted(metric.step for metric in history) == sorted(epochs)
