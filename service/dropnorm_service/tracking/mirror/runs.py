"""Writes what goes to the tracking store: runs, parameters, metrics, tags, data sets and states."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from dropnorm.results import EpochCompleted, Event, StateChanged, TrainingJob
from dropnorm_service.log_context import bound
from dropnorm_service.tracking.messages import Batch, RunMade
from dropnorm_service.tracking.mirror.changes import RunChanges, cut
from dropnorm_service.tracking.mirror.guard import Guard, Refused
from dropnorm_service.tracking.mirror.locate import RunLocator, RunRef
from dropnorm_service.tracking.mirror.metrics import milliseconds

_PATIENCE = 28  # about two minutes of the feed's retries
ERROR_TAG = "dropnorm.mirror_error"

log = logging.getLogger(__name__)


class RunRecorder:
    """Brings runs up to date with batches of events. A batch that is written again changes nothing."""

    def __init__(
        self,
        client: MlflowClient,
        artifact_root: Path | None,
        on_run: Callable[[RunMade], None],
    ) -> None:
        """A recorder.

        Args:
            client: the store.
            artifact_root: where new experiments keep their files; None: where the tracking server says.
            on_run: told of each run that its job does not name yet.
        """
        self._client = client
        self._locator = RunLocator(client, artifact_root)
        self._guard = Guard(client, patience=_PATIENCE)
        self._on_run = on_run
        self._epochs: dict[str, dict[int, int]] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def record(self, batch: Batch) -> None:
        """Write a batch: first every run that is missing, so that its id is known soon, then what it holds.

        Raises:
            MlflowUnavailable: the batch is to be recorded again later.
        """
        by_job = defaultdict(list)
        for event in batch.events:
            by_job[event.training_job].append(event)
        located = []
        for context in batch.jobs.values():
            with bound(job=context.job.id):
                located.append((context.job, self._locate(context.job)))
        for job, run in located:
            with bound(job=job.id):
                self._record(job, run, by_job[job.name], fatal=batch.fatal)

    def _record(
        self, job: TrainingJob, run: RunRef | None, events: list[Event], *, fatal: bool
    ) -> None:
        if run is not None and fatal:
            self._leave_out(run, job, [_missing(event) for event in events])
        elif run is not None:
            self._write(run, job, events)
        if any(map(_ends_job, events)):
            if run is not None:
                self._remove_others(job, run)
            self._forget(job, run)

    def _remove_others(self, job: TrainingJob, run: RunRef) -> None:
        try:
            self._guard(f"second runs of {job.name}", lambda: self._locator.remove_others(job, run))
        except Refused as error:
            log.error("a second run may be left: %s", error)

    def _forget(self, job: TrainingJob, run: RunRef | None) -> None:
        self._locator.forget(job)
        if run is not None:
            self._epochs.pop(run.run_id, None)
            self._tags.pop(run.run_id, None)

    def _locate(self, job: TrainingJob) -> RunRef | None:
        try:
            run = self._guard(f"the run of {job.name}", lambda: self._locator.find_or_make(job))
        except Refused as error:
            log.error("%s is not mirrored: %s", job.name, error)
            return None
        if run is not None and run.run_id != job.mlflow_run_id:
            self._on_run(RunMade(job_id=job.id, experiment_id=run.experiment_id, run_id=run.run_id))
        return run

    def _write(self, run: RunRef, job: TrainingJob, events: list[Event]) -> None:
        refused = []
        try:
            changes = RunChanges.of(job, self._without_repeats(run, events))
            changes.final = self._lacking(run, job, changes.final)
        except Refused as error:
            self._leave_out(run, job, [str(error)])
            return
        for what, write in self._writes(run.run_id, changes):
            try:
                self._guard(f"{what} of {job.name}", write)
            except Refused as error:
                refused.append(str(error))
        if refused:
            self._leave_out(run, job, refused)

    def _writes(
        self, run_id: str, changes: RunChanges
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        client = self._client
        if changes.parameters:
            params = [Param(key, value) for key, value in changes.parameters.items()]
            yield "parameters", lambda: client.log_batch(run_id, params=params)
        if metrics := changes.metrics + changes.final:
            yield "metrics", lambda: client.log_batch(run_id, metrics=metrics)
        if changes.datasets:
            yield "data set", lambda: client.log_inputs(run_id, changes.datasets)
        has = self._tags.get(run_id, {})
        if tags := {key: tag for key, tag in changes.tags.items() if has.get(key) != tag}:
            yield "tags", lambda: self._set_tags(run_id, tags)
        if status := changes.status:
            if status.ended is None:
                yield "state", lambda: client.update_run(run_id, status.name)
            else:
                ended = milliseconds(status.ended)
                yield "end", lambda: client.set_terminated(run_id, status.name, ended)

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        self._client.log_batch(run_id, tags=[RunTag(key, cut(tag)) for key, tag in tags.items()])
        self._tags.setdefault(run_id, {}).update(tags)

    def _without_repeats(self, run: RunRef, events: list[Event]) -> list[Event]:
        """The events without epochs that the run has at another time.

        An attempt does them again because it went back to a checkpoint, or because the service's store was set back.
        The first time stays, which MLflow may have, or this very batch: after an outage it has several attempts.
        """
        new = []
        for event in events:
            if isinstance(event.payload, EpochCompleted):
                epoch, time = event.payload.metrics.epoch, milliseconds(event.time)
                if self._recorded(run, event.training_job).setdefault(epoch, time) != time:
                    continue
            new.append(event)
        return new

    def _recorded(self, run: RunRef, job: str) -> dict[int, int]:
        """What the run's curves hold, or are about to: the time of each epoch's point in ms."""
        if run.run_id not in self._epochs:
            history = [] if run.new else self._history(run, job)
            self._epochs[run.run_id] = {metric.step: metric.timestamp for metric in history}
        return self._epochs[run.run_id]

    def _history(self, run: RunRef, job: str) -> list[Metric]:
        return self._guard(
            f"the history of {job}",
            lambda: self._client.get_metric_history(run.run_id, "train_loss"),
        )

    def _lacking(self, run: RunRef, job: TrainingJob, final: list[Metric]) -> list[Metric]:
        """Final metrics that the run does not have: of a store that was set back they come again, at another time."""
        if run.new or not final:
            return final
        has = self._guard(
            f"the metrics of {job.name}", lambda: self._client.get_run(run.run_id).data.metrics
        )
        return [metric for metric in final if metric.key not in has]

    def _leave_out(self, run: RunRef, job: TrainingJob, missing: list[str]) -> None:
        """Say in the log and on the run's page that something is missing there, unless there is no such page."""
        try:
            if not self._guard(
                f"the run of {job.name}", lambda: self._locator.still_there(job, run)
            ):
                return
            for each in missing:
                log.error("left out in MLflow: %s", each)
            message = cut("; ".join(missing))
            self._guard(
                f"error tag of {job.name}",
                lambda: self._client.set_tag(run.run_id, ERROR_TAG, message),
            )
        except Refused as error:
            log.error("the run cannot say so itself: %s", error)


def _ends_job(event: Event) -> bool:
    return isinstance(event.payload, StateChanged) and event.payload.state.terminal


def _missing(event: Event) -> str:
    return f"event {event.sequence} of {event.training_job}: the process that writes it died of it"
