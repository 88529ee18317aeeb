"""Every metric of one server, in a registry of its own."""

from __future__ import annotations

import asyncio
import logging
import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

import dropnorm
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.observability.jobs import JobMetrics
from dropnorm_service.observability.readings import Readings, Sources
from dropnorm_service.observability.rpcs import RpcMetrics
from dropnorm_service.store.writer import Commit

_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ORDERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PATIENCE = 2.0
"""Seconds that a scrape waits for the store; then it tells what was last read."""

log = logging.getLogger(__name__)


class Metrics:
    """The metrics of a server: told what happens, read by `exposition`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("dropnorm_build", "The version that runs.", registry=self._registry).info(
            {"version": dropnorm.__version__, "python": platform.python_version()}
        )
        self.rpcs = RpcMetrics(self._registry)
        self.jobs = JobMetrics(self._registry)
        self._ready = Gauge(
            "dropnorm_ready",
            "1 while the store can be read and written, workers can be forked and the disk has room, else 0.",
            registry=self._registry,
        )
        self._commit_seconds = Histogram(
            "dropnorm_store_commit_seconds",
            "Seconds that transactions of the store took until they were on disk.",
            buckets=_COMMIT_SECONDS,
            registry=self._registry,
        )
        self._commit_orders = Histogram(
            "dropnorm_store_commit_changes",
            "Changes that shared a transaction of the store.",
            buckets=_ORDERS,
            registry=self._registry,
        )
        self._commit_failures = Counter(
            "dropnorm_store_commit_failures",
            "Transactions that failed because the store was away, locked, full or broken.",
            registry=self._registry,
        )
        self._readings: Readings | None = None
        self._behind = False

    def read_from(self, sources: Sources) -> None:
        """Where to look at a scrape from now on."""
        self._readings = Readings(sources)
        self._registry.register(self._readings)

    def committed(self, commit: Commit) -> None:
        """The store made a transaction, or could not."""
        if commit.failed:
            self._commit_failures.inc()
        else:
            self._commit_seconds.observe(commit.seconds)
            self._commit_orders.observe(commit.orders)

    def ready(self, ready: bool) -> None:
        """What the health watch found."""
        self._ready.set(ready)

    async def exposition(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics, in the form that an Accept header asks for."""
        if self._readings is not None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._readings.refresh()
                self._behind = False
            except (StoreUnavailable, TimeoutError) as error:
                # Everything else can be told; the store's own metrics say that it is away.
                why = str(error) or f"the store did not answer within {_PATIENCE:g} seconds"
                if not self._behind:  # whoever asks for metrics, and however often
                    log.warning("the lag of the mirror could not be read: %s", why)
                self._behind = True
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)
