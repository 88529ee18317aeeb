"""What is read when somebody asks, since it is always there: slots, lag of the mirror, the disk, certificates."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dropnorm.results import Event, Slot
from dropnorm_service.certificates import expiry_in

log = logging.getLogger(__name__)


class Ledger(Protocol):
    """The store's feed."""

    async def newest(self) -> int:
        """Global position of the newest event; 0 when there is none."""

    async def feed(self, *, after: int, limit: int) -> Sequence[tuple[int, Event]]:
        """Events behind a global position."""


class MirrorState(Protocol):
    """A consumer of the feed that writes to MLflow."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def position(self) -> int:
        """Global position up to which everything is mirrored."""

    @property
    def hindered(self) -> bool:
        """Whether its last try failed."""

    @property
    def failed(self) -> Counter[str]:
        """Tries that failed, by reason."""


class CertificateState(Protocol):
    """The server's certificate."""

    @property
    def in_use(self) -> bytes:
        """What new connections get, PEM."""

    @property
    def refused(self) -> bool:
        """Whether there is a newer one that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where to look."""

    ledger: Ledger
    slots: Callable[[], Sequence[Slot]]
    worker_restarts: Callable[[], dict[str, int]]
    """Processes that died without an attempt and were replaced, by kind."""
    audits_lost: Callable[[], int]
    """Records that the file of the audit log did not take."""
    mirrors: Sequence[MirrorState]
    data_dir: Path
    certificate: CertificateState | None = None
    """The server's own; None: it has none."""


@dataclass(frozen=True)
class _Lag:
    events: int
    seconds: float


class Readings(Collector):
    """Reads at a scrape. What waits is read by `refresh`, the rest when the registry collects."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lags: dict[str, _Lag] = {}
        self._unreadable: set[str] = set()

    async def refresh(self) -> None:
        """Look into the store: one row, and one more for each mirror that is behind.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        newest = await self._sources.ledger.newest()
        for mirror in self._sources.mirrors:
            self._lags[mirror.name] = await self._lag(mirror.position, newest)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry. What cannot be read is left out, and hides nothing else."""
        yield from self._readable("slots", self._slots)
        yield from self._readable("worker restarts", self._restarts)
        yield from self._readable("audit log", self._audits)
        yield from self._readable("mirrors", self._mirrors)
        yield from self._readable("disk", self._disk)
        yield from self._readable("certificate", self._certificate)

    def _readable(self, what: str, read: Callable[[], Iterator[Metric]]) -> Sequence[Metric]:
        try:
            families = list(read())
        except Exception:  # whatever it is, it is told once, and the other metrics go on
            if what not in self._unreadable:
                log.exception("the metrics of the %s cannot be read, and are left out", what)
            self._unreadable.add(what)
            return ()
        self._unreadable.discard(what)
        return families

    async def _lag(self, position: int, newest: int) -> _Lag:
        if position >= newest:
            return _Lag(0, 0.0)
        waiting = await self._sources.ledger.feed(after=position, limit=1)
        if not waiting:  # deleted meanwhile
            return _Lag(0, 0.0)
        since = waiting[0][1].time
        return _Lag(newest - position, max(0.0, (datetime.now(UTC) - since).total_seconds()))

    def _slots(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "dropnorm_slots", "Slots by kind of device and use.", labels=["device", "use"]
        )
        slots = self._sources.slots()
        uses = Counter((slot.device, "busy" if slot.training_job else "free") for slot in slots)
        for device in sorted({slot.device for slot in slots}):
            for use in ("busy", "free"):
                family.add_metric([device, use], uses[device, use])
        yield family

    def _restarts(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "dropnorm_worker_restarts",
            "Processes that died while no job was in them and were replaced: the fork server, and workers that waited.",
            labels=["process"],
        )
        for process, number in self._sources.worker_restarts().items():
            family.add_metric([process], number)
        yield family

    def _audits(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "dropnorm_audit_records_lost",
            "Records that the file of the audit log did not take; the ordinary log has them.",
            self._sources.audits_lost(),
        )

    def _mirrors(self) -> Iterator[Metric]:
        behind = GaugeMetricFamily(
            "dropnorm_mirror_lag_events", "Events that MLflow does not have yet.", labels=["mirror"]
        )
        late = GaugeMetricFamily(
            "dropnorm_mirror_lag_seconds",
            "Age in seconds of the oldest event that MLflow does not have yet; 0 when it has all.",
            labels=["mirror"],
        )
        hindered = GaugeMetricFamily(
            "dropnorm_mirror_hindered",
            "1 while the last try to write to MLflow failed, else 0.",
            labels=["mirror"],
        )
        failures = CounterMetricFamily(
            "dropnorm_mirror_failures",
            "Tries to write to MLflow that failed: it was unavailable, its process died, or another error.",
            labels=["mirror", "reason"],
        )
        for mirror in self._sources.mirrors:
            lag = self._lags.get(mirror.name, _Lag(0, 0.0))
            behind.add_metric([mirror.name], lag.events)
            late.add_metric([mirror.name], lag.seconds)
            hindered.add_metric([mirror.name], mirror.hindered)
            for reason, number in sorted(mirror.failed.items()):
                failures.add_metric([mirror.name, reason], number)
        yield from (behind, late, hindered, failures)

    def _disk(self) -> Iterator[Metric]:
        usage = shutil.disk_usage(self._sources.data_dir)
        yield GaugeMetricFamily(
            "dropnorm_disk_free_bytes",
            "Bytes that are free on the disk of the data folder.",
            usage.free,
        )
        yield GaugeMetricFamily(
            "dropnorm_disk_size_bytes", "Size in bytes of the disk of the data folder.", usage.total
        )

    def _certificate(self) -> Iterator[Metric]:
        certificate = self._sources.certificate
        if certificate is None:
            return
        yield GaugeMetricFamily(
            "dropnorm_tls_certificate_expiry_seconds",
            "When the certificate that the server uses expires, in seconds since 1970.",
            expiry_in(certificate.in_use).timestamp(),
        )
        yield GaugeMetricFamily(
            "dropnorm_tls_certificate_refused",
            "1 while the files of certificate and key hold what cannot be used, and what was before is, else 0.",
            certificate.refused,
        )
