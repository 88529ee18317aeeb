"""The file of the audit log: whatever becomes of it and of its disk, nobody whose change is recorded is in its way."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from dropnorm_service.audit import Limiter

log = logging.getLogger(__name__)


class AuditFile(logging.Handler):
    """Appends each record as a line. Others may move the file away, and several processes append to it.

    A record that the file does not take is counted, and stays in the ordinary log, which has all of them. That log
    is told why, once a minute at most.

    Args:
        path: made for its owner alone where it is not there.

    Raises:
        OSError: it cannot be written.

    Attributes:
        lost: how many records the file did not take.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.lost = 0
        self._path = path
        self._complaints = Limiter(burst=1, rate=1 / 60)
        self._file = self._opened()

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record."""
        try:
            self._append(f"{self.format(record)}\n".encode())
        except OSError as error:
            self.lost += 1
            if self._complaints.admit() is not None:
                log.error(
                    "the audit log cannot be written; its records are in this log alone",
                    extra={"path": str(self._path), "error": str(error), "lost": self.lost},
                )
        except Exception:  # as every handler does; a call is not to fail for it
            self.handleError(record)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
        super().close()

    def _append(self, line: bytes) -> None:
        if self._moved_away():
            moved, self._file = self._file, self._opened()
            os.close(moved)
        if self._ends_within_a_line():
            line = b"\n" + line
        while line:
            line = line[os.write(self._file, line) :]

    def _opened(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def _moved_away(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return True

    def _ends_within_a_line(self) -> bool:
        """Whether a record has been cut off: the disk was full, or a process was killed."""
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return False
        return os.pread(self._file, 1, status.st_size - 1) != b"\n"
