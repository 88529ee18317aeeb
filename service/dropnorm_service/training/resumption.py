"""Stopping and going on: a training's state to its checkpoints and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dropnorm.results import CheckpointWritten, Warned
from dropnorm.spec import InvalidSpecError, TrainingSpec
from dropnorm_service.training.checkpoint import Checkpoints, Snapshot, Unusable
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.device import device_name
from dropnorm_service.training.errors import BadData, is_out_of_memory
from dropnorm_service.training.reporting import EventSink
from dropnorm_service.training.snapshots import capture, restore
from dropnorm_service.training.state import TrainingState
from dropnorm_service.training.writer import CheckpointWriter, Write

_POLL_SECONDS = 0.1


class Resumption:
    """Writes and reads the checkpoints of one training, and tells of them.

    Args:
        checkpoints: where they are.
        spec: what a checkpoint must be of.
        data: likewise.
        on_event: takes what is to tell.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        spec: TrainingSpec,
        data: SplitData,
        on_event: EventSink,
    ) -> None:
        self._checkpoints = checkpoints
        self._writer = CheckpointWriter(checkpoints)
        self._spec, self._data = spec, data.summary
        self._machine = _machine(data.device)
        self._on_event = on_event
        self._failing = False

    def due(self, now: float) -> bool:
        """Whether it is time for a periodic one; `now` is `time.perf_counter()`."""
        return self._writer.due(now)

    def hurry(self) -> None:
        """A checkpoint is asked for, out of turn."""
        self._writer.hurry()

    def attend(self, state: TrainingState, now: float, while_waiting: Callable[[], object]) -> None:
        """Between two steps: begin a checkpoint that is due, tell of one that is written.

        One that cannot be written is warned of, and the training goes on: it has lost nothing yet. Where memory has
        no room for a copy of the state, or for a thread, the training stands still while it is written.

        Args:
            state: the training.
            now: `time.perf_counter()`.
            while_waiting: called now and then while the training stands still.
        """
        if self._writer.ended:
            self._tell()
        if not self._writer.due(now):
            return
        try:
            self._begin(lambda: self._snapshot(state).copied(), state)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._begin(lambda: self._snapshot(state), state)
            self.finish(while_waiting)

    def write(self, state: TrainingState, while_waiting: Callable[[], object]) -> None:
        """Write the checkpoint that a training ends with for now; it is on the disk when this returns.

        Args:
            state: the training, which stands still.
            while_waiting: called now and then, since a disk may be slow.

        Raises:
            OSError: it cannot be written.
        """
        self.finish(while_waiting)
        self._begin(lambda: self._snapshot(state), state)
        self._await(while_waiting)
        self._told(self._writer.take())

    def finish(self, while_waiting: Callable[[], object]) -> None:
        """Wait for a write that has begun, so that nothing is written behind the back of who goes on."""
        if self._writer.busy:
            self._await(while_waiting)
            self._tell()

    def resume(self, state: TrainingState) -> None:
        """Bring a fresh state to the newest checkpoint that is whole and its own, if there is one.

        Raises:
            BadData: the data is not what it was.
        """

        def use(snapshot: Snapshot) -> None:
            self._require_own(snapshot.facts)
            restore(state, snapshot)

        snapshot, warnings = self._checkpoints.read(use)
        for warning in warnings:
            self._on_event(warning)
        if snapshot is None:
            if warnings:
                text = "No checkpoint can be used: the training starts over, and comes to the same numbers."
                self._on_event(Warned(code="CHECKPOINTS_LOST", message=text))
            return
        self._compare_machines(snapshot.facts["machine"])

    def _require_own(self, facts: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another spec, but not one whose spec lacks fields that a later version added.

        Raises:
            Unusable: it is another training's.
            BadData: the data is not what it was.
        """
        try:
            own = TrainingSpec.parse(facts["spec"]) == self._spec
            digest, _ = facts["data_digest"], dict(facts["machine"])
        except (InvalidSpecError, KeyError, TypeError, ValueError):
            own, digest = False, None
        if not own:
            raise Unusable("CHECKPOINT_OF_OTHER_JOB", "is of another spec")
        if digest != self._data.digest:
            raise BadData(
                f"{self._data.name} has changed since this training was stopped; start it anew.",
                dataset=self._data.name,
            )

    def _compare_machines(self, before: Mapping[str, Any]) -> None:
        differences = [
            f"{name} {before.get(name)} before and {value} now"
            for name, value in self._machine.items()
            if before.get(name) != value
        ]
        if differences:
            text = (
                f"The training goes on elsewhere than where its checkpoint was written ({', '.join(differences)}): "
                "its numbers may differ from those of a training without the stop."
            )
            self._on_event(Warned(code="RESUMED_ELSEWHERE", message=text))

    def _snapshot(self, state: TrainingState) -> Snapshot:
        snapshot = capture(state)
        identity = {
            "spec": self._spec.model_dump(mode="json"),
            "data_digest": self._data.digest,
            "machine": self._machine,
        }
        return Snapshot(snapshot.tensors, {**snapshot.facts, **identity})

    def _begin(self, snapshot: Callable[[], Snapshot], state: TrainingState) -> None:
        self._writer.begin(snapshot, epoch=len(state.history), step=state.steps_done)

    def _await(self, while_waiting: Callable[[], object]) -> None:
        while not self._writer.wait(_POLL_SECONDS):
            while_waiting()

    def _tell(self) -> None:
        """Tell what came of a write that has ended."""
        try:
            self._told(self._writer.take())
        except (OSError, MemoryError, RuntimeError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            if not self._failing:  # once, not with every try
                self._failing = True
                text = (
                    f"A checkpoint could not be written ({_why(error)}); the training goes "
                    "on and tries again at each interval. Until then the last one is what it would go on from."
                )
                self._on_event(Warned(code="CHECKPOINT_NOT_WRITTEN", message=text))

    def _told(self, write: Write) -> None:
        self._failing = False
        self._on_event(
            CheckpointWritten(
                epoch=write.epoch,
                step=write.step,
                seconds=write.seconds,
                size_bytes=write.size_bytes,
            )
        )


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "no memory is left"


def _machine(device: torch.device) -> dict[str, Any]:
    """What decides the last digits of a sum, besides spec and data."""
    return {
        "torch": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }
