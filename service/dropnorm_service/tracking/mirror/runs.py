"""Writes what goes to the tracking store: runs, parameters, metrics, tags, data sets and states."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from dropnorm.results import EpochCompleted, Event, StateChanged, TrainingJob
from dropnorm_service.log_context import bound
from dropnorm_service.tracking.errors import NotTaken
from dropnorm_service.tracking.messages import Batch, Done, JobContext, RunMade
from dropnorm_service.tracking.mirror.changes import RunChanges, cut
from dropnorm_service.tracking.mirror.guard import Guard, Refused
from dropnorm_service.tracking.mirror.locate import Lack, RunLocator, RunRef
from dropnorm_service.tracking.mirror.metrics import milliseconds

ERROR_TAG = "dropnorm.mirror_error"

log = logging.getLogger(__name__)


class RunRecorder:
    """Brings runs up to date with batches of events. A batch that is written again changes nothing."""

    def __init__(
        self,
        client: MlflowClient,
        artifact_root: Path | None,
        on_run: Callable[[RunMade], None],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """A recorder.

        Args:
            client: the store.
            artifact_root: where new experiments keep their files; None: where the tracking server says.
            on_run: told of each run that its job does not name yet.
            progress: told after each call to the store.
        """
        self._client = client
        self._locator = RunLocator(client, artifact_root)
        self._guard = Guard(client, progress=progress)
        self._on_run = on_run
        self._epochs: dict[str, dict[int, int]] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def record(self, batch: Batch) -> Done:
        """Write a batch: first every run that is missing, so that its id is known soon, then what it holds.

        Returns:
            What could not be written of single jobs.

        Raises:
            MlflowUnavailable: the batch is to be recorded again later.
        """
        by_job = defaultdict(list)
        for event in batch.events:
            by_job[event.training_job].append(event)
        late: dict[str, str] = {}
        gone = []
        located = []
        for context in batch.jobs.values():
            with bound(job=context.job.id), _noting(late, context.job):
                located.append((context, self._locate(context)))
        for context, run in located:
            job = context.job
            if run is Lack.GONE:
                gone.append(job.name)
                continue
            with bound(job=job.id), _noting(late, job):
                if self._record(context, run, by_job[job.name], fatal=batch.fatal) is Lack.GONE:
                    gone.append(job.name)
        return Done(late=late, gone=tuple(gone))

    def _record(
        self, context: JobContext, run: RunRef | Lack, events: list[Event], *, fatal: bool
    ) -> RunRef | Lack:
        """Write a job's events to its run; what that has become."""
        job = context.job
        if isinstance(run, RunRef):
            if fatal:
                run = self._leave_out(run, job, [_missing(event) for event in events])
            else:
                run = self._write(run, job, events)
        if isinstance(run, RunRef) and context.rewriting and context.rewriting.last:
            self._complete(job, run)
        if run is not Lack.GONE and any(map(_ends_job, events)):
            if isinstance(run, RunRef):
                self._remove_others(job, run)
            self._forget(job, run)
        return run

    def _complete(self, job: TrainingJob, run: RunRef) -> None:
        try:
            self._guard(f"the rest of {job.name}", lambda: self._locator.complete(job, run))
        except Refused as error:
            log.error("the run will be written again: %s", error)

    def _remove_others(self, job: TrainingJob, run: RunRef) -> None:
        try:
            self._guard(f"second runs of {job.name}", lambda: self._locator.remove_others(job, run))
        except Refused as error:
            log.error("a second run may be left: %s", error)

    def _forget(self, job: TrainingJob, run: RunRef | Lack) -> None:
        self._locator.forget(job)
        if isinstance(run, RunRef):
            self._epochs.pop(run.run_id, None)
            self._tags.pop(run.run_id, None)

    def _locate(self, context: JobContext) -> RunRef | Lack:
        job = context.job
        try:
            run = self._guard(
                f"the run of {job.name}",
                lambda: self._locator.find_or_make(job, context.rewriting),
            )
        except Refused as error:
            log.error("%s is not mirrored: %s", job.name, error)
            return Lack.DELETED
        if isinstance(run, RunRef) and run.run_id != job.mlflow_run_id:
            self._on_run(RunMade(job_id=job.id, experiment_id=run.experiment_id, run_id=run.run_id))
        return run

    def _write(self, run: RunRef, job: TrainingJob, events: list[Event]) -> RunRef | Lack:
        refused = []
        not_taken: NotTaken | None = None
        try:
            changes = RunChanges.of(job, self._without_repeats(run, events))
            changes.final = self._lacking(run, job, changes.final)
        except Refused as error:
            return self._leave_out(run, job, [str(error)])
        for what, write in self._writes(run.run_id, changes):
            try:
                self._guard(f"{what} of {job.name}", write)
            except Refused as error:
                refused.append(str(error))
            except (
                NotTaken
            ) as error:  # the others are tried meanwhile, so that no wait follows another
                not_taken = error
        if not_taken is not None:
            raise not_taken
        return self._leave_out(run, job, refused) if refused else run

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

    def _leave_out(self, run: RunRef, job: TrainingJob, missing: list[str]) -> RunRef | Lack:
        """Say in the log and on the run's page that something is missing there, unless there is no such page."""
        try:
            found = self._guard(
                f"the run of {job.name}", lambda: self._locator.look_again(job, run)
            )
            if isinstance(found, Lack):
                return found
            for each in missing:
                log.error("left out in MLflow: %s", each)
            message = cut("; ".join(missing))
            self._guard(
                f"error tag of {job.name}",
                lambda: self._client.set_tag(run.run_id, ERROR_TAG, message),
            )
        except Refused as error:
            log.error("the run cannot say so itself: %s", error)
        return run


@contextlib.contextmanager
def _noting(late: dict[str, str], job: TrainingJob) -> Iterator[None]:
    """Within it, what MLflow does not take of a job makes it late, and stops no other."""
    try:
        yield
    except NotTaken as error:
        late[job.name] = cut(str(error))


def _ends_job(event: Event) -> bool:
    return isinstance(event.payload, StateChanged) and event.payload.state.terminal


def _missing(event: Event) -> str:
    return f"event {event.sequence} of {event.training_job}: the process that writes it died of it"
