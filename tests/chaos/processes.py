"""The processes of a service, found by a mark in their environment, whoever is their parent by now."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence

import psutil

MARK = "CHAOS_MARK"
"""Variable that a service is started with; all it starts inherits it."""

ROLES = ("server", "fork server", "worker", "mirror")


class Processes:
    """All processes that bear a mark."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def by_role(self) -> Mapping[str, Sequence[int]]:
        """Process ids by what they are in the service; those that end are left out."""
        found = defaultdict(list)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get(MARK) == self._mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found[_role(process)].append(process.pid)
        return found

    def kill(self, pids: Sequence[int]) -> int:
        """Kill processes; how many were still there."""
        killed = 0
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    def alive(self) -> Sequence[int]:
        """Every process, of whatever role."""
        return [pid for pids in self.by_role().values() for pid in pids]


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "tracking.mirror" in command:
        return "mirror"
    if "forkserver" in command:  # what it forks has its command line, and its session
        return "fork server" if os.getsid(process.pid) == process.pid else "worker"
    return "server" if "dropnorm_service" in command else "other"
