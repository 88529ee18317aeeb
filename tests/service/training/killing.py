"""Processes that are killed while they write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

_MOMENTS = ("open", "fsync", "replace", "unlink")


def killed_at(moment: int, act: Callable[[], object]) -> bool:
    """Do something in a process that is killed at its so many-th call that touches the disk; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = moment

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def once(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return once

        for name in _MOMENTS:
            setattr(os, name, dying(getattr(os, name)))
        act()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
