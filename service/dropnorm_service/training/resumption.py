"""Stopping and going on: a training's state to its checkpoints and back."""

from __future__ import annotations

from dropnorm.results import CheckpointWritten, Warned
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.checkpoint import Checkpoints, Snapshot
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.errors import BadData
from dropnorm_service.training.reporting import EventSink
from dropnorm_service.training.state import TrainingState, capture, restore


class Resumption:
    """Writes and reads the checkpoints of one training, and tells of them.

    Args:
        checkpoints: where they are; None: nowhere, and nothing is ever written.
        spec: what a checkpoint must be of.
        data: likewise.
        on_event: takes what is to tell.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        spec: TrainingSpec,
        data: SplitData,
        on_event: EventSink,
    ) -> None:
        self._checkpoints = checkpoints
        self._spec_digest, self._data = spec.digest(), data.summary
        self._on_event = on_event

    def due(self, now: float) -> bool:
        """Whether it is time for a periodic checkpoint; `now` is `time.perf_counter()`."""
        return self._checkpoints is not None and self._checkpoints.due(now)

    def write(self, state: TrainingState) -> None:
        """Write a checkpoint."""
        if self._checkpoints is None:
            return
        snapshot = capture(state)
        identity = {"spec_digest": self._spec_digest, "data_digest": self._data.digest}
        self._checkpoints.write(Snapshot(snapshot.tensors, {**snapshot.facts, **identity}))
        self._on_event(CheckpointWritten(epoch=len(state.history), step=state.steps_done))

    def resume(self, state: TrainingState) -> None:
        """Bring a fresh state to the newest whole checkpoint, if there is one.

        Raises:
            BadData: the data is not what it was.
            ValueError: the folder belongs to another training.
        """
        if self._checkpoints is None:
            return
        snapshot, problems = self._checkpoints.read()
        for problem in problems:
            self._on_event(Warned(code="CHECKPOINT_DAMAGED", message=problem))
        if snapshot is None:
            return
        if snapshot.facts["spec_digest"] != self._spec_digest:
            raise ValueError(f"{self._checkpoints.folder} holds the checkpoints of another spec")
        if snapshot.facts["data_digest"] != self._data.digest:
            raise BadData(
                f"{self._data.name} has changed since this training was stopped; start it anew.",
                dataset=self._data.name,
            )
        restore(state, snapshot)
