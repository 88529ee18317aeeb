"""Attempts, and who runs them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from dropnorm.results import JobError, Payload, Slot
from dropnorm.spec import TrainingSpec

Order = Literal["checkpoint", "pause", "cancel"]
"""What a worker can be told between two steps."""

CHECKPOINTS = "checkpoints"
"""The part of a job's folder that its attempts leave to each other; it goes when the job has succeeded."""

MODEL = "model"
"""The part of a job's folder that its success leaves: the trained model."""

EXPORTS = "exports"
"""The part of a job's folder that holds its model in other forms, each in a folder of its own."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One attempt to be run."""

    job_id: str
    attempt: int
    spec: TrainingSpec
    folder: Path
    """The job's own folder: its CHECKPOINTS and, in the end, its model."""
    epochs_told: int = 0
    """Epochs that the job's journal has; a checkpoint may have more, which the attempt tells first."""


@dataclass(frozen=True)
class Finished:
    """The worker did all it was asked; the Evaluated payload came before this."""


@dataclass(frozen=True)
class Stopped:
    """The worker obeyed `pause` or `cancel`; its checkpoint is written."""

    order: Order


@dataclass(frozen=True)
class Broken:
    """The job's own fault: it would fail the same way again."""

    error: JobError


@dataclass(frozen=True)
class Lost:
    """The world's fault: the worker was killed, hung, or its device broke. Try again."""

    error: JobError


Outcome = Finished | Stopped | Broken | Lost


class Executor(Protocol):
    """Runs attempts in slots."""

    def slots(self) -> Sequence[Slot]:
        """Every slot and what it runs now."""

    def fits(self, spec: TrainingSpec) -> bool:
        """Whether a slot is free now that the spec can run in; it looks at `device` and `gpus` of `spec.compute`."""

    def obstacle(self, spec: TrainingSpec) -> str | None:
        """Why the spec can never run here (too few GPUs), a sentence; None when it can."""

    def device(self, spec: TrainingSpec) -> Literal["cpu", "cuda"]:
        """The kind of slot that the spec takes; it looks at `device` and `gpus` of `spec.compute`."""

    def rest(self) -> float | None:
        """Seconds until a slot is used again that is passed over since its device broke; None: there is none."""

    def run(self, launch: Launch) -> AsyncGenerator[tuple[datetime, Payload] | Outcome, None]:
        """Run one attempt: its payloads, each with its time, and one Outcome as the last item.

        The slot is taken, and the job can be given orders, from the first step of the iteration
        on, before it first waits; the slot is free again when the iteration has ended. Never raises
        for what a worker does. A caller that closes the generator ends the attempt.
        """

    def order(self, job_id: str, order: Order) -> None:
        """Tell the worker of a running job what to do; without effect when the job has none."""
