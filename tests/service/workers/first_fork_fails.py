"""To be imported by a fork server: the system refuses it the first fork, as one without memory does."""

import errno
import os

_fork = os.fork


def _refuse() -> int:
    os.fork = _fork
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


os.fork = _refuse
