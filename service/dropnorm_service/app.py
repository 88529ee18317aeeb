"""The service as a whole: its parts are assembled, started in order, watched over, and ended in reverse."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from contextlib import AsyncExitStack

from dropnorm_service.api.observers import CallObserver
from dropnorm_service.api.places import CallLimits
from dropnorm_service.api.server import ApiServer, CannotListen
from dropnorm_service.api.tls import Certificates, TlsFiles, UnusableCertificate
from dropnorm_service.assembly import Parts, assemble
from dropnorm_service.datasets.collector import Collector
from dropnorm_service.endings import notice_orphaned, stop_signals
from dropnorm_service.exposure import check_exposure, exposure_of_metrics
from dropnorm_service.health import HealthWatch
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.lock import (
    FolderInUse,
    FolderOfAnotherStore,
    FolderUnusable,
    bind,
    exclusive,
)
from dropnorm_service.observability.endpoint import CannotServeMetrics, MetricsEndpoint
from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.settings import Settings, SettingsError
from dropnorm_service.store import StoreInUse, StoreTooNew
from dropnorm_service.tracking import UnsupportedTrackingUri
from dropnorm_service.workers import StartFailed

STARTUP_ERRORS = (
    CannotListen,
    CannotServeMetrics,
    FolderInUse,
    FolderOfAnotherStore,
    FolderUnusable,
    StartFailed,
    StoreInUse,
    StoreTooNew,
    StoreUnavailable,
    UnsupportedTrackingUri,
)
"""What can keep a service from starting; each message is for people."""

# Of the grace time: what remains for open calls and the mirror after the workers wrote checkpoints, and
# what remains after these for the last processes and the store.
_CLOSING_SHARE = 0.2
_EXIT_SHARE = 0.05
_COLLECTING = (10_000, 10, 20)  # Python's own: 700, 10, 10

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Run a service until SIGTERM, SIGINT or, where so set, the end of the parent process.

    Prints one line of JSON with the address on standard output as soon as it serves.

    Raises:
        one of STARTUP_ERRORS: it cannot start.
        SettingsError: a setting is wrong in a way that shows only now.
    """
    check_exposure(settings)
    certificates = _certificates(settings)
    credentials = certificates.credentials() if certificates is not None else None
    with exclusive(settings.data_dir), stop_signals() as stopping:
        async with AsyncExitStack() as stack:
            parts = await assemble(settings, stack, certificates)
            server = _server(settings, parts)
            await _begin(settings, parts, stack)
            try:
                said = {"address": await server.start(settings.host, settings.port, credentials)}
                said |= await _serve_metrics(settings, parts.metrics, stack)
                _settle()
                print(json.dumps({"event": "serving"} | said), flush=True)
                log.info("serving", extra=said)
                await _watch_over(settings, parts, server, stopping)
            finally:
                await _shut_down(settings.grace, server, parts)
    log.info("stopped")


def _server(settings: Settings, parts: Parts) -> ApiServer:
    observers: list[CallObserver] = [parts.metrics.rpcs]
    if parts.tracing is not None:
        observers.append(parts.tracing)
    return ApiServer(
        parts.jobs,
        parts.datasets,
        parts.models,
        parts.authenticator,
        observers=observers,
        limits=CallLimits(
            calls=settings.max_calls,
            user_calls=settings.max_calls_per_user,
            user_sending=settings.max_uploads_per_user,
        ),
    )


async def _begin(settings: Settings, parts: Parts, stack: AsyncExitStack) -> None:
    """Take up the jobs that are there, and what goes on beside them."""
    parts.metrics.jobs.begin(await parts.store.count_states())
    if bind(settings.data_dir, parts.store.identity):
        await parts.jobs.sweep()
    await parts.models.registered.sweep()
    await parts.jobs.start()
    collector = Collector(parts.datasets, parts.store.datasets, settings.dataset_retention)
    stack.push_async_callback(_ended, asyncio.create_task(collector.run()))
    if parts.tracker is not None:
        parts.tracker.start()


def _settle() -> None:
    """Exempt what is loaded by now from garbage collection: looking through all of it takes a tenth of a second.

    What 500 streams hold takes half as long, and every call waits meanwhile. Hardly anything is in cycles here, so
    they are looked for less often than Python does by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTING)


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = TlsFiles(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
    )
    try:
        certificates = Certificates(files)
    except UnusableCertificate as error:
        raise SettingsError(str(error)) from error
    if certificates.warning:
        log.warning("%s", certificates.warning)
    return certificates


async def _serve_metrics(
    settings: Settings, metrics: Metrics, stack: AsyncExitStack
) -> dict[str, str]:
    """Open the port of the metrics, if there shall be one; where they are then."""
    if settings.metrics_port is None:
        return {}
    if told := exposure_of_metrics(settings):
        log.warning("%s", told)
    endpoint = MetricsEndpoint(metrics.exposition)
    url = await endpoint.start(settings.metrics_host, settings.metrics_port)
    stack.callback(endpoint.stop)
    return {"metrics": url}


async def _watch_over(
    settings: Settings, parts: Parts, server: ApiServer, stopping: asyncio.Event
) -> None:
    """Keep the health report true until it is time to stop."""

    def report(healthy: bool) -> None:
        parts.metrics.ready(healthy)
        server.report(healthy)

    health = HealthWatch(parts.store, parts.forks, report, parts.room.obstacle)
    taken = asyncio.create_task(parts.store.superseded())
    taken.add_done_callback(lambda _: stopping.set())
    duties = [taken, asyncio.create_task(health.run())]
    if settings.exit_with_parent:
        duties.append(asyncio.create_task(notice_orphaned(stopping)))
    try:
        await stopping.wait()
        if taken.done():
            raise StoreInUse(f"the service ends: {taken.result()}")
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _shut_down(grace: float, server: ApiServer, parts: Parts) -> None:
    """Accept nothing, write checkpoints, end streams, let MLflow catch up; all within the grace time."""
    log.info("stopping", extra={"grace": grace})
    deadline = time.monotonic() + grace
    server.refuse()
    await asyncio.gather(parts.jobs.stop(grace * (1 - _CLOSING_SHARE)), parts.forks.release())
    await server.stop(min(1.0, grace * _CLOSING_SHARE))
    if parts.tracker is not None:
        left = deadline - time.monotonic() - grace * _EXIT_SHARE
        await parts.tracker.stop(max(0.0, left))
