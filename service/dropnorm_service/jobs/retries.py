"""How often a job whose worker was lost gets another one, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """When a lost attempt is followed by another."""

    limit: int = 3
    """Attempts lost in a row, none of which got further, after which the job fails; 1 or more."""
    first_delay: float = 1.0
    """Seconds to wait after the first of them; doubled after each further one."""
    max_delay: float = 60.0
    """Seconds to wait at most."""


DEFAULT_POLICY = RetryPolicy()


@dataclass
class _Losses:
    in_a_row: int = 0
    step: int = 0


class Retries:
    """Counts each job's lost attempts. A checkpoint beyond the last one is what counts as progress."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._losses: dict[str, _Losses] = {}

    def lost(self, job_id: str, checkpoint_step: int) -> bool:
        """Note a lost attempt; whether another is allowed.

        Args:
            checkpoint_step: optimizer step of the attempt's last checkpoint; 0 without one.
        """
        losses = self._losses.setdefault(job_id, _Losses())
        if checkpoint_step > losses.step:
            losses.step = checkpoint_step
            losses.in_a_row = 0
        else:
            losses.in_a_row += 1
        return losses.in_a_row < self._policy.limit

    def delay(self, job_id: str) -> float:
        """Seconds to wait before the job's next attempt."""
        losses = self._losses.get(job_id)
        if losses is None or losses.in_a_row == 0:
            return 0.0
        doublings = losses.in_a_row - 1
        return min(self._policy.first_delay * 2.0**doublings, self._policy.max_delay)

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._losses.pop(job_id, None)
