"""Jobs that wait by themselves, because MLflow does not take something of theirs while it takes others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Behind:
    """How far MLflow is behind with a job. Of its journal, what is still to be written is read again."""

    position: int
    """Global position before the first event that passed while it waited, or that MLflow did not take."""
    done: int
    """Number of the last event of its journal that MLflow has."""
    passed: int
    """Number of the last event that the feed has brought meanwhile."""
    rewriting: bool = False
    """Its run is gone, and the journal is written from its first event on."""
    begun: bool = False
    """Something was written of the journal that is written from its first event on."""
    deaths: int = 0
    """How often the process that writes died of it in a row."""

    def begin_anew(self) -> None:
        """Its whole journal is to be written."""
        self.done, self.rewriting, self.begun = 0, True, False


class Backlog:
    """The jobs that wait, tried in turn; each failure makes the pause before the next try longer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """An empty backlog.

        Args:
            clock: tells seconds.
        """
        self._clock = clock
        self._jobs: dict[str, Behind] = {}
        self._due = 0.0
        self.failures = 0
        """Tries in a row that failed."""

    def __contains__(self, job: str) -> bool:
        return job in self._jobs

    def __getitem__(self, job: str) -> Behind:
        return self._jobs[job]

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def position(self) -> int | None:
        """Global position up to which no job of it waits; None: none waits."""
        return min((each.position for each in self._jobs.values()), default=None)

    def add(self, job: str, behind: Behind) -> None:
        """Let a job wait."""
        self._jobs[job] = behind

    def pass_over(self, job: str, sequence: int) -> None:
        """Note that an event of a job that waits came by."""
        behind = self._jobs[job]
        behind.passed = max(behind.passed, sequence)

    def first(self, others: Backlog | None) -> tuple[str, Behind] | None:
        """The job whose turn it is; None: there is none that does not wait in another backlog too."""
        return next(
            (each for each in self._jobs.items() if not others or each[0] not in others), None
        )

    def pause(self, others: Backlog | None) -> float | None:
        """Seconds until the next try; None: there is nothing to try, before something else happens."""
        return None if self.first(others) is None else max(0.0, self._due - self._clock())

    def succeeded(self, job: str) -> None:
        """MLflow has all of a job: it does not wait any more, and another may be tried at once."""
        del self._jobs[job]
        self.failures, self._due = 0, 0.0

    def failed(self, job: str, pause: float) -> None:
        """MLflow did not take something of a job again: it is the last one's turn now.

        Args:
            job: which.
            pause: seconds before the next try of any.
        """
        self._jobs[job] = self._jobs.pop(job)
        self.failures += 1
        self._due = self._clock() + pause
