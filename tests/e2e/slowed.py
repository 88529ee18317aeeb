"""A service whose trainings become slow: `python -m tests.e2e.slowed`, with the flags of the service.

All is real, the trainings too; but when an attempt has made as many epochs as the file `SLOW` of the data folder says,
each of its steps waits, for as long as there is that file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.preloaded import in_fork_server, serve

SLOW = ".slow-after"

_STEP_SECONDS = 0.5
_LOOK_SECONDS = 0.02

Sink = Callable[[Any], None]


class _Brake:
    """What a training tells and asks, on its way."""

    def __init__(self, file: Path, on_event: Sink, orders: Callable[[], Any]) -> None:
        self._file, self._on_event, self._orders = file, on_event, orders
        self._epochs = 0

    def tell(self, payload: Any) -> None:
        """Something happened."""
        self._epochs += payload.kind == "epoch"
        self._on_event(payload)

    def order(self) -> Any:
        """What to do, asked between two steps; the heart beats while it waits."""
        end = time.monotonic() + _STEP_SECONDS
        order = self._orders()
        while order.name == "GO_ON" and self._slow and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            order = self._orders()
        return order

    @property
    def _slow(self) -> bool:
        try:
            return self._epochs >= int(self._file.read_text())
        except (FileNotFoundError, ValueError):  # it comes and goes
            return False


def _slow_down_workers() -> None:
    from dropnorm_service.training import fit
    from dropnorm_service.workers.child import worker

    def slowed_fit(spec: Any, data: Any, *, on_event: Sink, orders: Any, **options: Any) -> Any:
        brake = _Brake(options["checkpoint"].folder.parents[2] / SLOW, on_event, orders)
        return fit(spec, data, on_event=brake.tell, orders=brake.order, **options)

    worker.fit = slowed_fit  # type: ignore[attr-defined, assignment]


if __name__ == "__main__":
    sys.exit(serve("tests.e2e.slowed"))
elif in_fork_server():
    _slow_down_workers()
