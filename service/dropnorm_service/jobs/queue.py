"""Which job is next: by priority, then by age, among those that a free slot suits."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from dropnorm.results import TrainingJob
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.ports import Executor


class _Place(NamedTuple):
    """Sorts as the queue does."""

    urgency: int
    age: float
    job_id: str
    owner: str


class _Need(NamedTuple):
    """What of a spec decides in which slots it can run."""

    device: str
    gpus: int | None


@dataclass
class _Line:
    """Jobs that the same slots suit."""

    spec: TrainingSpec
    places: list[_Place] = field(default_factory=list)
    left: int = 0
    """Places among them whose jobs are not in the queue any more."""


class JobQueue:
    """Queued jobs. One line for each kind of slots that is asked for, of which only the first job can be next."""

    def __init__(self) -> None:
        self._lines: dict[_Need, _Line] = {}
        self._places: dict[str, tuple[_Need, _Place]] = {}
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
        need = _Need(job.spec.compute.device, job.spec.compute.gpus)
        place = _Place(-job.priority, job.create_time.timestamp(), job.id, job.owner)
        self._places[job.id] = need, place
        self._owners[job.owner] += 1
        line = self._lines.setdefault(need, _Line(job.spec))
        heapq.heappush(line.places, place)

    def discard(self, job_id: str) -> None:
        """Take a job out, if it is in."""
        if job_id not in self._places:
            return
        need, place = self._places.pop(job_id)
        self._owners[place.owner] -= 1
        self._owners += Counter()  # drops who has none
        # Its place stays in the line until it comes to the front, or half of the line are such places.
        line = self._lines[need]
        line.left += 1
        if 2 * line.left > len(line.places):
            line.places = list(filter(self._is_taken, line.places))
            heapq.heapify(line.places)
            line.left = 0
        self._tidy(need, line)

    def first(self, executor: Executor) -> str | None:
        """The first job for which the executor has room, which stays in the queue; None when it has for none.

        A job that waits for slots, perhaps for several GPUs, is not overtaken by those behind it that
        would take one of the same kind: it would wait for ever. One that can never run holds up nobody.
        """
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

    def _tidy(self, need: _Need, line: _Line) -> None:
        """See to it that a taken place is at the front of a line."""
        while line.places and not self._is_taken(line.places[0]):
            heapq.heappop(line.places)
            line.left -= 1
        if not line.places:
            del self._lines[need]

    def _is_taken(self, place: _Place) -> bool:
        taken = self._places.get(place.job_id)
        return taken is not None and taken[1] is place
