"""Room on the disk of the data folder: as long as there is too little, nothing more is accepted."""

from __future__ import annotations

import shutil
from pathlib import Path

from dropnorm_service.jobs.errors import LimitReached

_PAUSE = 30.0
_MIB = 2**20


class DiskRoom:
    """The room that is left for checkpoints, models and journals of the jobs that there are.

    Args:
        folder: on the disk.
        reserve: bytes that are kept free of new jobs.
    """

    def __init__(self, folder: Path, reserve: int) -> None:
        self._folder = folder
        self._reserve = reserve

    def obstacle(self) -> str:
        """Why nothing more is to be accepted, a sentence; empty when it is."""
        free = shutil.disk_usage(self._folder).free
        if free >= self._reserve:
            return ""
        return (
            f"The disk of the data folder has {free // _MIB} MiB left, and {self._reserve // _MIB} MiB are kept for "
            "the jobs that there are; free some, then jobs are accepted again."
        )

    def require(self) -> None:
        """Go on if there is room.

        Raises:
            LimitReached: there is not.
        """
        if obstacle := self.obstacle():
            raise LimitReached(
                obstacle,
                setting="disk_reserve",
                limit=self._reserve,
                subject="service",
                retry_after=_PAUSE,
            )
