"""Which job is next: by priority, then by age, among those that a free slot suits."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from dropnorm.results import TrainingJob
from dropnorm.spec import Compute, TrainingSpec
from dropnorm_service.jobs.ports import Executor


class _Place(NamedTuple):
    """Sorts as the queue does."""

    urgency: int
    age: float
    job_id: str
    owner: str


@dataclass
class _Line:
    """Jobs that the same slots suit; whether one fits depends on `spec.compute` alone."""

    spec: TrainingSpec
    places: list[_Place] = field(default_factory=list)


class JobQueue:
    """Queued jobs. One line per kind of compute, of which only the first job can be next."""

    def __init__(self) -> None:
        self._lines: dict[Compute, _Line] = {}
        self._places: dict[str, _Place] = {}
        self._owners: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def waiting(self, owner: str) -> int:
        """Jobs of a user in the queue."""
        return self._owners[owner]

    def push(self, job: TrainingJob) -> None:
        """Put a job into its place, unless it is in the queue already."""
        if job.id in self._places:
            return
        place = _Place(-job.priority, job.create_time.timestamp(), job.id, job.owner)
        self._places[job.id] = place
        self._owners[job.owner] += 1
        line = self._lines.setdefault(job.spec.compute, _Line(job.spec))
        heapq.heappush(line.places, place)

    def discard(self, job_id: str) -> None:
        """Take a job out, if it is in."""
        # Its place stays in the line until it comes to the front: `_clean`.
        if place := self._places.pop(job_id, None):
            self._owners[place.owner] -= 1
            self._owners += Counter()  # drops who has none

    def first(self, executor: Executor) -> str | None:
        """The first job for which the executor has room, which stays in the queue; None when it has for none.

        A job that waits for slots, perhaps for several GPUs, is not overtaken by those behind it that
        would take one of the same kind: it would wait for ever. One that can never run holds up nobody.
        """
        self._clean()
        awaited: set[str] = set()
        for line in sorted(self._lines.values(), key=lambda line: line.places[0]):
            device = executor.device(line.spec)
            if device in awaited:
                continue
            if executor.fits(line.spec):
                return line.places[0].job_id
            if executor.obstacle(line.spec) is None:
                awaited.add(device)
        return None

    def _clean(self) -> None:
        for compute, line in list(self._lines.items()):
            while line.places and self._places.get(line.places[0].job_id) is not line.places[0]:
                heapq.heappop(line.places)
            if not line.places:
                del self._lines[compute]
