"""A service whose workers train at the pace of a large training and leave the CPU alone, as on a GPU:
`python -m tests.benchmarks.paced`, with the flags of the service.

All is real, the trainings too; but after each epoch the worker waits until a second is over since the one before, so
that a job's journal grows by an epoch and a report of progress every second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.preloaded import in_fork_server, serve

EPOCH_SECONDS = 1.0

Sink = Callable[[Any], None]


def _paced(on_event: Sink) -> Sink:
    following = time.monotonic()

    def tell(payload: Any) -> None:
        nonlocal following
        on_event(payload)
        if payload.kind == "epoch":
            now = time.monotonic()
            following = max(following + EPOCH_SECONDS, now)
            time.sleep(following - now)

    return tell


def _pace_workers() -> None:
    from dropnorm_service.training import fit
    from dropnorm_service.workers.child import worker

    def paced_fit(spec: Any, data: Any, *, on_event: Sink, **options: Any) -> Any:
        return fit(spec, data, on_event=_paced(on_event), **options)

    worker.fit = paced_fit  # type: ignore[attr-defined, assignment]


if __name__ == "__main__":
    sys.exit(serve("tests.benchmarks.paced"))
elif in_fork_server():
    _pace_workers()
