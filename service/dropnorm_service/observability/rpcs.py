"""Calls, by method and status."""

from __future__ import annotations

import itertools
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dropnorm_service.api.authorization import RULES
from dropnorm_service.api.observers import Ended, Headers

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)

_ERRORS = ("INTERNAL", "UNKNOWN")

UNKNOWN = "unknown"
"""The method of every call to one that there is not: what callers make up is no label."""


class RpcMetrics:
    """Counts and times calls. Implements `api.observers.CallObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "dropnorm_rpcs",
            "Calls that ended, by method and gRPC status code.",
            ["method", "code"],
            registry=registry,
        )
        # From the start: of a series that begins with 1, an alert sees no increase.
        for method, code in itertools.product(RULES, _ERRORS):
            self._ended.labels(_name(method), code)
        self._seconds = Histogram(
            "dropnorm_rpc_seconds",
            "Seconds that calls took, without watches and uploads, which last as long as their callers wish.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._open = Gauge(
            "dropnorm_rpcs_in_flight",
            "Calls that are open now; those of WatchTrainingJob are the watch streams.",
            ["method"],
            registry=registry,
        )
        self._uploaded = Counter(
            "dropnorm_upload_bytes",
            "Bytes received of uploaded data sets.",
            registry=registry,
        )

    def began(self, method: str, headers: Headers, *, lasting: bool) -> Ended:
        """See `CallObserver.began`."""
        name = _name(method)
        started = time.perf_counter()
        self._open.labels(name).inc()

        def ended(code: str) -> None:
            self._open.labels(name).dec()
            self._ended.labels(name, code).inc()
            if not lasting:
                self._seconds.labels(name).observe(time.perf_counter() - started)

        return ended

    def unknown(self) -> None:
        """See `CallObserver.unknown`."""
        self._ended.labels(UNKNOWN, "UNIMPLEMENTED").inc()

    def received(self, size: int) -> None:
        """See `CallObserver.received`."""
        self._uploaded.inc(size)


def _name(method: str) -> str:
    """`Method` of `/package.Service/Method`."""
    return method.rpartition("/")[2]
