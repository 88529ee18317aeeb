"""JobHandle: one job of a service, and what can be done with it. For asyncio see `dropnorm.aio`."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from dropnorm import _calls
from dropnorm._calls import Call
from dropnorm._following import Epochs, Watching, final, follow, outcome, settled
from dropnorm._job_view import JobView
from dropnorm._progress import display
from dropnorm.models import EXPORT_TIMEOUT, REGISTER_TIMEOUT
from dropnorm.results import (
    EpochMetrics,
    Evaluation,
    Event,
    ModelExport,
    ModelVersion,
    Prediction,
    TrainingJob,
)
from dropnorm.spec import ExportFormat

if TYPE_CHECKING:
    from dropnorm.client import Client


class JobHandle(JobView):
    """One job of a service: its state as last seen, and what can be done with it."""

    def __init__(self, client: Client, snapshot: TrainingJob) -> None:
        super().__init__(snapshot)
        self._client = client

    def refresh(self, *, timeout: float | None = None) -> Self:
        """Ask the service how the job is."""
        return self._update(_calls.get(self.name), timeout)

    def watch(self, *, after: int = 0) -> Iterator[Event]:
        """The job's journal: every event so far, then each as it happens, until the job has ended.

        A lost connection is taken up again without a gap and without a repeat. The handle follows: `state`,
        `progress`, `evaluation` are those of the last event.

        Args:
            after: leave out the events up to this sequence number.

        Raises:
            Unavailable: the service was lost for longer than the client's patience.
        """
        return self._follow(after, None)

    def result(self, *, progress: bool = False, timeout: float | None = None) -> Evaluation:
        """Wait for the job to end.

        Args:
            progress: show a progress bar meanwhile (plain lines where rich is not installed or there is no terminal).
            timeout: seconds to wait; absent or infinite: as long as it takes.

        Raises:
            JobFailed: the job ended by an error, which it carries.
            JobCancelled: the job was cancelled.
            ResultTimeout: the job has not ended in time. It goes on.
            Unavailable: the service was lost for longer than the client's patience.
        """
        if not final(self.state):
            with display(progress) as show:
                show(self.snapshot)
                for event in self._follow(self.snapshot.last_sequence, timeout):
                    show(self.snapshot, event)
        if not settled(self.snapshot):
            self.refresh()
        return outcome(self.snapshot)

    def history(self, *, timeout: float | None = None) -> tuple[EpochMetrics, ...]:
        """The epochs done so far, of a job that was paused, cancelled or has failed too.

        Raises:
            Unavailable: the service was lost for longer than the client's patience.
        """
        self.refresh(timeout=timeout)
        if self.evaluation is not None:
            return self.evaluation.history
        epochs = Epochs(self.snapshot.last_sequence)
        with closing(self._follow(0, timeout)) as events:
            for event in events:
                if epochs.complete(event):
                    break
        return epochs.in_order()

    def cancel(self, *, timeout: float | None = None) -> Self:
        """End the job for good; its history and last checkpoint are kept. A running job is CANCELLING at first.

        Raises:
            WrongState: it has succeeded or failed; a repeated cancel is no error.
        """
        return self._update(_calls.cancel(self.name), timeout)

    def pause(self, *, timeout: float | None = None) -> Self:
        """Take the job out of its slot, to go on later from a checkpoint. A running job is PAUSING at first.

        Raises:
            WrongState: it has ended or is being cancelled; a repeated pause is no error.
        """
        return self._update(_calls.pause(self.name), timeout)

    def resume(self, *, timeout: float | None = None) -> Self:
        """Queue a paused job again.

        Raises:
            WrongState: it has ended or is being cancelled; a repeated resume is no error.
        """
        return self._update(_calls.resume(self.name), timeout)

    def share(self, *, timeout: float | None = None) -> Self:
        """Let the project's other users see and use the job; they cannot change it."""
        return self._update(_calls.share(self.name, True), timeout)

    def unshare(self, *, timeout: float | None = None) -> Self:
        """Let nobody but admins see the job any more; what others made of it meanwhile stays theirs."""
        return self._update(_calls.share(self.name, False), timeout)

    def predict(
        self,
        inputs: Any,
        *,
        samples: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """What the job's model says of raw inputs; see `Models.predict`."""
        return self._client.models.predict(
            self.name, inputs, samples=samples, seed=seed, batch_size=batch_size, timeout=timeout
        )

    def export(
        self,
        path: str | Path | None = None,
        *,
        format: ExportFormat | None = None,
        fold_batch_norm: bool = False,
        tolerance: float | None = None,
        timeout: float = EXPORT_TIMEOUT,
    ) -> ModelExport:
        """Have the job's model written in another form, with proof, and download it; see `Models.export`."""
        return self._client.models.export(
            self.name,
            path,
            format=format,
            fold_batch_norm=fold_batch_norm,
            tolerance=tolerance,
            timeout=timeout,
        )

    def register(
        self,
        name: str,
        *,
        alias: str | None = None,
        shared: bool = False,
        timeout: float = REGISTER_TIMEOUT,
    ) -> ModelVersion:
        """Make the job's model a version of a registered model in MLflow; see `Models.register`."""
        return self._client.models.register(
            name, self.name, alias=alias, shared=shared, timeout=timeout
        )

    def delete(self, *, force: bool = False, timeout: float | None = None) -> None:
        """Delete the job, its journal and its files; its MLflow run stays.

        Args:
            force: end it first if need be.
            timeout: seconds this call may take.

        Raises:
            WrongState: it has not ended, and `force` is not set.
        """
        self._client._call(_calls.delete(self.name, force=force), timeout)

    def _update(self, call: Call[TrainingJob], timeout: float | None) -> Self:
        self._snapshot = self._client._call(call, timeout)
        return self

    def _follow(self, after: int, timeout: float | None) -> Generator[Event, None, None]:
        client = self._client
        watching = Watching(
            self.name,
            after=after,
            address=client.address,
            patience=client.patience,
            timeout=timeout,
        )
        if after > self.snapshot.last_sequence:
            self.refresh()  # nobody will tell what happened up to there
        while True:
            stream = client._method("WatchTrainingJob")(watching.open(), timeout=watching.timeout)
            try:
                for message in stream:
                    event = watching.accept(message)
                    if event is not None:
                        self._snapshot = follow(self._snapshot, event)
                        yield event
                return
            except grpc.RpcError as error:
                if watching.finished:
                    return
                pause = watching.interrupted(error)
            finally:
                stream.cancel()
            time.sleep(pause)
