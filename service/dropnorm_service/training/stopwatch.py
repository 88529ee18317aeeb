"""Wall time that can be stopped, kept and taken up again."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds while it runs, on top of those it starts with.

    Args:
        seconds: what it shows at first, standing still.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._kept = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._kept + running

    def add(self, seconds: float) -> None:
        """Show so many more."""
        self._kept += seconds

    def start(self) -> None:
        """Run on."""
        self._kept, self._since = self.seconds, time.perf_counter()

    def stop(self) -> float:
        """Stand still; what it shows then."""
        self._kept, self._since = self.seconds, None
        return self._kept
