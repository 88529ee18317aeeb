"""How often a journal is told how far its job has come."""

from __future__ import annotations

from datetime import datetime, timedelta

from dropnorm.results import Payload, Phase, Progressed

_SHARE = 0.01
_LONGEST = timedelta(seconds=10)


class ProgressPace:
    """Lets progress of an attempt through, of a long one less and less often: its journal is kept for long.

    Two reports are apart by a hundredth of the time that the attempt has taken, and by ten seconds at most. The first
    of each phase always goes through, as does all else that a worker says; phases that take turns, as training and
    validation do, are news but once. A clock that is set back silences nobody.
    """

    def __init__(self) -> None:
        self._began: datetime | None = None
        self._last: datetime | None = None
        self._met: set[Phase] = set()

    def lets_through(self, time: datetime, payload: Payload) -> bool:
        """Whether something is written that a worker said at a time."""
        self._began = min(self._began or time, time)
        if not isinstance(payload, Progressed):
            return True
        apart = min((time - self._began) * _SHARE, _LONGEST)
        too_soon = self._last is not None and self._last <= time < self._last + apart
        if too_soon and payload.progress.phase in self._met:
            return False
        self._last = time
        self._met.add(payload.progress.phase)
        return True
