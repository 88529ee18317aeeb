"""Replies as bytes. A job that many ask for, or an event that many watch, is converted once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from dropnorm import wire
from dropnorm.results import Event, TrainingJob
from dropnorm.v1 import training_event_pb2, training_job_pb2

# What an entry takes besides its bytes.
_ENTRY_BYTES = 500


class Replies:
    """A bounded cache of serialised jobs and events. Both are immutable, so nothing in it can be stale."""

    def __init__(self, limit_bytes: int = 8 * 2**20) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._cache: OrderedDict[Hashable, bytes] = OrderedDict()

    def job(self, job: TrainingJob, *, full: bool = True) -> bytes:
        """A TrainingJob message; without its evaluation unless `full`."""

        def make() -> bytes:
            shown = job if full else job.model_copy(update={"evaluation": None})
            return wire.to_message(shown, training_job_pb2.TrainingJob).SerializeToString()

        return self._get((job.name, job.create_time, job.last_sequence, full), make)

    def event(self, event: Event) -> bytes:
        """A TrainingEvent message."""

        def make() -> bytes:
            return wire.to_message(event, training_event_pb2.TrainingEvent).SerializeToString()

        return self._get((event.training_job, event.time, event.sequence), make)

    def _get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        known = self._cache.get(key)
        if known is None:
            known = self._cache[key] = make()
            self._bytes += len(known) + _ENTRY_BYTES
            while self._bytes > self._limit:
                _, dropped = self._cache.popitem(last=False)
                self._bytes -= len(dropped) + _ENTRY_BYTES
        else:
            self._cache.move_to_end(key)
        return known
