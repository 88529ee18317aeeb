"""Checkpoints written beside a training: it copies its state, and a thread puts the copy on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dropnorm_service.training.checkpoint import Checkpoints, Snapshot

THREAD = "checkpoint writer"
_COST_LIMIT = 0.01
"""Largest share of the time that periodic checkpoints may take from training."""


@dataclass
class Write:
    """A write; what it came to is there when it has ended."""

    epoch: int
    step: int
    cost: float
    """Seconds that it took from training: the copy, and the processor time of its thread."""
    seconds: float = 0.0
    """From the copy until it was on the disk."""
    size_bytes: int = 0
    error: Exception | None = None


class CheckpointWriter:
    """Writes one checkpoint at a time, so that however slow the disk is there is one copy in memory.

    Args:
        checkpoints: where to.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._write: Write | None = None
        self._thread: threading.Thread | None = None
        self._next = time.perf_counter() + checkpoints.interval_seconds

    @property
    def busy(self) -> bool:
        """Whether a write has begun whose end nobody has asked for yet."""
        return self._write is not None

    @property
    def ended(self) -> bool:
        """Whether that write has ended."""
        return self.busy and (self._thread is None or not self._thread.is_alive())

    def due(self, now: float) -> bool:
        """Whether it is time for a periodic one; `now` is `time.perf_counter()`."""
        return not self.busy and now >= self._next

    def hurry(self) -> None:
        """One is due now."""
        self._next = 0.0

    def begin(self, capture: Callable[[], Snapshot], *, epoch: int, step: int) -> None:
        """Write a snapshot, while no other is written: beside the caller, or before this returns where the system has
        no room for another thread.

        Args:
            capture: takes it; nothing that it holds changes before it is written.
            epoch: epochs done.
            step: optimizer steps done.
        """
        assert not self.busy  # who writes has asked
        started = time.perf_counter()
        snapshot = capture()
        self._write = Write(epoch, step, time.perf_counter() - started)
        arguments = (self._write, snapshot, started)
        thread = threading.Thread(target=self._put, args=arguments, name=THREAD, daemon=True)
        try:
            thread.start()
        except (MemoryError, RuntimeError):  # no memory for its stack, or no more threads allowed
            self._put(*arguments)
        else:
            self._thread = thread

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the write, but no longer than that; whether it has ended."""
        assert self.busy  # who waits has asked
        if self._thread is not None:
            self._thread.join(seconds)
        return self.ended

    def take(self) -> Write:
        """The write that has ended.

        Raises:
            OSError: it could not be written.
            MemoryError: likewise; or the error by which torch says so.
        """
        write = self._write
        assert write is not None  # who takes has asked whether it ended
        self._write = self._thread = None
        interval = self._checkpoints.interval_seconds
        self._next = time.perf_counter() + max(interval, write.cost / _COST_LIMIT)
        if write.error is not None:
            raise write.error
        return write

    def _put(self, write: Write, snapshot: Snapshot, begun: float) -> None:
        started = time.thread_time()
        try:
            write.size_bytes = self._checkpoints.write(snapshot)
        except Exception as error:  # raised again in the thread that trains
            write.error = error
        write.cost += time.thread_time() - started
        write.seconds = time.perf_counter() - begun
