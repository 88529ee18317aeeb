"""What an error of MLflow means: wait for it to come back, or leave one thing out and go on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ENDPOINT_NOT_FOUND, ErrorCode

from dropnorm_service.tracking.errors import MlflowUnavailable, NotTaken

T = TypeVar("T")

_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|database or disk is full")
# Wrong credentials and overload are the store's state, not the fault of what is written.
_WAIT_FOR = frozenset({401, 403, 408, 425, 429})
# What a 400 or 404 becomes that is not in MLflow's form: it is a proxy's, whose MLflow is away. Of its own MLflow says
# what is invalid or missing.
_BY_OTHERS = frozenset({ErrorCode.Name(BAD_REQUEST), ErrorCode.Name(ENDPOINT_NOT_FOUND)})

# Of one and the same thing, while the store takes others. A part of the store, such as that of files, may well be away
# for an hour by itself; and one outage may last longer between two tries.
_PATIENCE = 2 * 3600.0
_TRIES = 20

PROBE_TAG = "dropnorm.last_probe"
"""Of an experiment: when it was last tried whether the store takes a write, in ns since 1970."""


class Refused(Exception):
    """The store will not take this one thing, however often it is tried."""


@dataclass
class _Failures:
    since: float
    number: int = 0


class Guard:
    """Runs calls to MLflow and sorts their errors, so that neither an outage loses data nor one bad item blocks all."""

    def __init__(
        self,
        client: MlflowClient,
        *,
        progress: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A guard.

        Args:
            client: used to find out whether the store takes anything at all.
            progress: told after each call that it has ended, one way or the other.
            clock: tells seconds.
        """
        self._client = client
        self._progress = progress
        self._clock = clock
        self._failures: dict[str, _Failures] = {}

    def __call__(self, what: str, call: Callable[[], T]) -> T:
        """The call's result.

        Args:
            what: names the thing for people, and is the same whenever it is tried again.
            call: talks to MLflow; safe to repeat.

        Raises:
            NotTaken: the store takes other things; try this one again later.
            MlflowUnavailable: try again later.
            Refused: leave it out.
        """
        try:
            result = call()
        except Exception as error:
            raise self._meaning_of(what, error) from error
        finally:
            self._progress()
        self._failures.pop(what, None)
        return result

    def _meaning_of(self, what: str, error: Exception) -> Refused | MlflowUnavailable:
        why = f"{what}: {error}"
        if _NO_ROOM.search(str(error)):  # it passes, however late, and reads succeed meanwhile
            return MlflowUnavailable(why)
        if _is_refusal(error):
            return Refused(why)
        # Failures of an outage do not count: it may end just between a call's failure and the question.
        if not self._writes():
            return MlflowUnavailable(why)
        return Refused(why) if self._in_vain(what) else NotTaken(why)

    def _in_vain(self, what: str) -> bool:
        """Count a failure; whether the thing has failed too often, for too long, while the store took others.

        What was given up once is given up at once when it comes again, until it succeeds.
        """
        failures = self._failures.setdefault(what, _Failures(since=self._clock()))
        failures.number += 1
        return failures.number >= _TRIES and self._clock() - failures.since >= _PATIENCE

    def _writes(self) -> bool:
        """Whether the store takes a harmless write: where it does not, reads may well be answered."""
        try:
            experiment = self._client.search_experiments(max_results=1)[0]
            now = str(time.time_ns())  # each time another, or there would be nothing to write
            self._client.set_experiment_tag(experiment.experiment_id, PROBE_TAG, now)
        except Exception:  # any error at all is the answer no
            return False
        return True


def _is_refusal(error: Exception) -> bool:
    if not isinstance(error, MlflowException) or error.error_code in _BY_OTHERS:
        return False
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in _WAIT_FOR
