"""What an error of MLflow means: wait for it to come back, or leave one thing out and go on."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ENDPOINT_NOT_FOUND, ErrorCode

from dropnorm_service.tracking.errors import MlflowUnavailable

T = TypeVar("T")

_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|database or disk is full")
# Wrong credentials and overload are the store's state, not the fault of what is written.
_WAIT_FOR = frozenset({401, 403, 408, 425, 429})
# What a 400 or 404 becomes that is not in MLflow's form: it is a proxy's, whose MLflow is away. Of its own MLflow says
# what is invalid or missing.
_BY_OTHERS = frozenset({ErrorCode.Name(BAD_REQUEST), ErrorCode.Name(ENDPOINT_NOT_FOUND)})

PROBE_TAG = "dropnorm.last_probe"
"""Of an experiment: when it was last tried whether the store takes a write, in ns since 1970."""


class Refused(Exception):
    """The store will not take this one thing, however often it is tried."""


class Guard:
    """Runs calls to MLflow and sorts their errors, so that neither an outage loses data nor one bad item blocks all."""

    def __init__(self, client: MlflowClient, *, patience: int) -> None:
        """A guard.

        Args:
            client: used to find out whether the store takes anything at all.
            patience: failures of one and the same thing, while the store takes others, before it is given up.
        """
        self._client = client
        self._patience = patience
        self._failures: Counter[str] = Counter()

    def __call__(self, what: str, call: Callable[[], T]) -> T:
        """The call's result.

        Args:
            what: names the thing for people, and is the same whenever it is tried again.
            call: talks to MLflow; safe to repeat.

        Raises:
            MlflowUnavailable: try again later.
            Refused: leave it out.
        """
        try:
            result = call()
        except Exception as error:
            if _NO_ROOM.search(str(error)):  # it passes, however late, and reads succeed meanwhile
                raise MlflowUnavailable(f"{what}: {error}") from error
            if _is_refusal(error) or self._in_vain(what):
                self._failures.pop(what, None)
                raise Refused(f"{what}: {error}") from error
            raise MlflowUnavailable(f"{what}: {error}") from error
        self._failures.pop(what, None)
        return result

    def _in_vain(self, what: str) -> bool:
        """Count a failure; whether the thing has failed too often while the store took others.

        Failures of an outage do not count: it may end just between a call's failure and the question.
        """
        if self._writes():
            self._failures[what] += 1
        return self._failures[what] >= self._patience

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
