"""How often a job whose worker was lost gets another one, and when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dropnorm.results import CheckpointWritten, Event, JobError, State, StateChanged

_JITTER = 0.5


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When a lost attempt is followed by another."""

    limit: int = 3
    """Attempts lost in a row, none of which got further, after which the job fails; 1 or more."""
    crash_limit: int = 10
    """Services that were killed in a row while the job ran, without it getting further, after which it fails; 1 or
    more. Mostly no job is to blame, and all that run then are hit, so there may be more of them."""
    first_delay: float = 1.0
    """Seconds to wait after the first of them at most; doubled after each further one."""
    max_delay: float = 60.0
    """Seconds to wait at most."""


DEFAULT_POLICY = RetryPolicy()

SERVICE_LOST = "SERVICE_LOST"
"""Reason of an attempt that ended because its service was killed."""

NOT_STARTED = "NOT_STARTED"
"""Reason of an attempt for which no process could be made."""

WAITED_FOR = frozenset({"DISK_FULL", NOT_STARTED})
"""Reasons of lost attempts that are nobody's fault, and pass: they are waited for as long as it takes."""


@dataclass
class _Losses:
    counted: int = 0
    in_a_row: int = 0
    crashes: int = 0
    step: int = 0


class Retries:
    """Counts each job's lost attempts. A checkpoint beyond the last one is what counts as progress.

    The counts are in memory, and the journals tell them to the next service.

    Args:
        policy: how many and when.
        random_share: a random number from 0 to 1; jobs that were lost together shall not all come back at once.
    """

    def __init__(
        self, policy: RetryPolicy, random_share: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._random_share = random_share
        self._losses: dict[str, _Losses] = {}

    def lost(self, job_id: str, checkpoint_step: int, reason: str) -> bool:
        """Note a lost attempt; whether another is allowed.

        Args:
            checkpoint_step: optimizer step of the attempt's last checkpoint; 0 without one.
            reason: why; what is WAITED_FOR counts towards no limit.
        """
        losses = self._losses.setdefault(job_id, _Losses())
        counts = reason not in WAITED_FOR
        if not _got_further(losses, checkpoint_step):
            losses.counted += counts
            losses.in_a_row += 1
        elif not counts:
            losses.in_a_row = 1  # it is no better yet
        return losses.counted < self._policy.limit

    def crashed(self, job_id: str, checkpoint_step: int) -> bool:
        """Note an attempt that ended with the service that ran it; whether another is allowed.

        Args:
            checkpoint_step: as in `lost`.
        """
        losses = self._losses.setdefault(job_id, _Losses())
        if not _got_further(losses, checkpoint_step):
            losses.crashes += 1
        return losses.crashes < self._policy.crash_limit

    def recall(self, job_id: str, journal: Iterable[Event]) -> int:
        """Count what a journal tells of attempts before this service began; the step of the last one's checkpoint.

        Args:
            journal: at least the events that tell of states and checkpoints.
        """
        self.forget(job_id)
        step = 0
        for event in journal:
            match event.payload:
                case CheckpointWritten():
                    step = event.payload.step
                case StateChanged(state=State.RUNNING):
                    step = 0
                case StateChanged(state=State.QUEUED, error=JobError(reason=reason)):
                    if reason == SERVICE_LOST:
                        self.crashed(job_id, step)
                    else:
                        self.lost(job_id, step, reason)
        return step

    def delay(self, job_id: str) -> float:
        """Seconds to wait before the job's next attempt."""
        losses = self._losses.get(job_id)
        if losses is None or losses.in_a_row == 0:
            return 0.0
        doublings = min(losses.in_a_row - 1, 62)
        longest = min(self._policy.first_delay * 2.0**doublings, self._policy.max_delay)
        return longest * (1.0 - _JITTER * self._random_share())

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._losses.pop(job_id, None)


def _got_further(losses: _Losses, checkpoint_step: int) -> bool:
    if checkpoint_step <= losses.step:
        return False
    losses.step = checkpoint_step
    losses.counted = losses.in_a_row = losses.crashes = 0
    return True
