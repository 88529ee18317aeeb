"""The composition root: the only module that knows every room. Starts them in order, ends them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from grpc import ServerCredentials

from dropnorm.results import TrainingJob
from dropnorm_service.api.observers import CallObserver
from dropnorm_service.api.server import ApiServer, CannotListen
from dropnorm_service.api.tls import Certificates, TlsFiles, UnusableCertificate
from dropnorm_service.datasets.collector import Collector
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.exposure import check_exposure
from dropnorm_service.health import HealthWatch
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.limits import JobLimits
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.registered import RegisteredModels
from dropnorm_service.jobs.retries import RetryPolicy
from dropnorm_service.jobs.room import DiskRoom
from dropnorm_service.jobs.service import JobService, utc_now
from dropnorm_service.lock import (
    FolderInUse,
    FolderOfAnotherStore,
    FolderUnusable,
    bind,
    exclusive,
    removing,
)
from dropnorm_service.observability.endpoint import CannotServeMetrics, MetricsEndpoint
from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.observability.readings import Sources
from dropnorm_service.settings import Settings, SettingsError
from dropnorm_service.store import InvalidDatabaseUrl, SqlJobStore, StoreInUse, StoreTooNew
from dropnorm_service.tracking import (
    MlflowRegistry,
    Tracker,
    TrackingConfig,
    UnsupportedTrackingUri,
    untraced,
)
from dropnorm_service.workers import (
    DataSettings,
    ForkServer,
    LocalExecutor,
    ProcessExporter,
    ProcessInspector,
    ProcessPlanner,
    ProcessPredictor,
    StartFailed,
)

if TYPE_CHECKING:  # it brings OpenTelemetry, which few want
    from dropnorm_service.observability.tracing import Tracing

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

_PARENT_INTERVAL = 0.5
# Of the grace time: what remains for open calls and the mirror after the workers wrote checkpoints, and
# what remains after these for the last processes and the store.
_CLOSING_SHARE = 0.2
_EXIT_SHARE = 0.05
_SIGNALLED = 128  # and the number: the exit status by which shells tell a signal

log = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Run a service until SIGTERM, SIGINT or, where so set, the end of the parent process.

    Prints one line of JSON with the address on standard output as soon as it serves.

    Raises:
        one of STARTUP_ERRORS: it cannot start.
        SettingsError: a setting is wrong in a way that shows only now.
    """
    check_exposure(settings)
    credentials = _credentials(settings)
    with exclusive(settings.data_dir), _stop_signals() as stopping:
        async with AsyncExitStack() as stack:
            metrics = Metrics()
            tracing = _tracing(settings, stack)
            store = await stack.enter_async_context(await _open_store(settings, metrics))
            forks, jobs, datasets, tracker = await _open_jobs(
                settings, store, stack, metrics, tracing
            )
            models = await _open_models(settings, store, forks, jobs, stack)
            authenticator = await _authenticator(settings, store, stack)
            observers: list[CallObserver] = [metrics.rpcs, *([tracing] if tracing else [])]
            server = ApiServer(
                jobs,
                datasets,
                models,
                authenticator,
                observers=observers,
                max_calls=settings.max_calls,
            )
            metrics.jobs.begin(await store.count_states())
            if bind(settings.data_dir, store.identity):
                await jobs.sweep()
            await jobs.start()
            collector = Collector(datasets, store.datasets, settings.dataset_retention)
            stack.push_async_callback(_ended, asyncio.create_task(collector.run()))
            if tracker is not None:
                tracker.start()
            try:
                said = {"address": await server.start(settings.host, settings.port, credentials)}
                said |= await _serve_metrics(settings, metrics, stack)
                _settle()
                print(json.dumps({"event": "serving"} | said), flush=True)
                log.info("serving", extra=said)

                async def report(healthy: bool) -> None:
                    metrics.ready(healthy)
                    await server.report(healthy)

                await _watch_over(
                    settings,
                    HealthWatch(store, forks, report, _room(settings).obstacle),
                    store,
                    stopping,
                )
            finally:
                await _shut_down(settings.grace, server, jobs, forks, tracker)
    log.info("stopped")


def _settle() -> None:
    """Exempt what is loaded by now from garbage collection: looking through all of it takes a tenth of a second."""
    gc.collect()
    gc.freeze()


async def _open_store(settings: Settings, metrics: Metrics) -> SqlJobStore:
    try:
        return await SqlJobStore.open(settings.store_url, metrics.committed)
    except InvalidDatabaseUrl as error:
        raise SettingsError(f"database_url: {error}") from error


def _credentials(settings: Settings) -> ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = TlsFiles(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
    )
    try:
        return Certificates(files).credentials()
    except UnusableCertificate as error:
        raise SettingsError(str(error)) from error


async def _authenticator(
    settings: Settings, store: SqlJobStore, stack: AsyncExitStack
) -> Authenticator | None:
    if settings.authentication == "none":
        return None
    authenticator = Authenticator(store.tokens, utc_now)
    stack.push_async_callback(authenticator.close)
    return authenticator


async def _open_jobs(
    settings: Settings,
    store: SqlJobStore,
    stack: AsyncExitStack,
    metrics: Metrics,
    tracing: Tracing | None,
) -> tuple[ForkServer, JobService, DatasetService, Tracker | None]:
    data = _data_settings(settings)
    forks = await stack.enter_async_context(ForkServer())
    executor = await stack.enter_async_context(_executor(settings, forks, data, tracing))
    forks.memory_limit = executor.worker_memory
    planner = await stack.enter_async_context(
        ProcessPlanner(
            forks, data=data, memory_limit=executor.memory_limit, timeout=settings.plan_timeout
        )
    )
    datasets = _datasets(settings, store, forks, planner)
    tracker: Tracker | None = None
    service = JobService(
        store,
        executor,
        planner,
        folder=settings.data_dir / "jobs",
        data_held=datasets.held,
        data_hidden=datasets.hidden,
        read_up_to=lambda: tracker.position if tracker is not None else None,
        retry=RetryPolicy(limit=settings.max_attempts),
        removing=lambda: removing(settings.data_dir),
        retention=settings.job_retention,
        limits=JobLimits(
            queued=settings.max_queued_jobs_per_user,
            all_queued=settings.max_queued_jobs,
            watches=settings.max_watches_per_user,
            all_watches=settings.max_watches,
            seconds=settings.max_job_seconds,
        ),
        require_room=_room(settings).require,
    )
    if settings.tracking:
        tracker = Tracker(
            TrackingConfig.resolve(settings.data_dir, settings.mlflow_tracking_uri),
            store=store,
            folder_of=service.folder_of,
            record_tracking=service.record_tracking,
            delivering=tracing.delivering if tracing else untraced,
        )
        service.on_growth(tracker.notify)
    service.observe(metrics.jobs.observe)
    if tracing is not None:
        service.observe(tracing.observe)
    metrics.read_from(
        Sources(
            ledger=store,
            slots=executor.slots,
            worker_restarts=lambda: {
                "fork_server": forks.restarts,
                "standby": executor.standbys_lost,
            },
            mirrors=tracker.consumers if tracker is not None else (),
            data_dir=settings.data_dir,
            certificate=settings.tls_certificate,
        )
    )
    return forks, service, datasets, tracker


def _executor(
    settings: Settings, forks: ForkServer, data: DataSettings, tracing: Tracing | None
) -> LocalExecutor:
    return LocalExecutor(
        forks,
        data=data,
        cpu_slots=settings.cpu_slots,
        threads_per_slot=settings.threads_per_slot,
        gpus=settings.gpus,
        heartbeat_timeout=settings.heartbeat_timeout,
        checkpoint_interval=settings.checkpoint_interval,
        max_job_seconds=settings.max_job_seconds,
        worker_memory_limit=settings.worker_memory_limit,
        traces=tracing,
    )


def _datasets(
    settings: Settings, store: SqlJobStore, forks: ForkServer, planner: ProcessPlanner
) -> DatasetService:
    limits = Limits(
        bytes=settings.max_dataset_bytes,
        total_bytes=settings.max_datasets_bytes,
        samples=settings.max_dataset_samples,
        values=settings.max_dataset_values,
        user_bytes=settings.max_datasets_bytes_per_user,
        user_uploads=settings.max_uploads_per_user,
    )

    async def jobs_using(dataset_id: str) -> list[TrainingJob]:
        jobs = store.unfinished()
        return [job async for job in jobs if job.spec.data.dataset == dataset_id]

    return DatasetService(
        settings.data_dir / "uploads",
        ProcessInspector(forks, limits),
        jobs_using=jobs_using,
        on_change=planner.forget,
        limits=limits,
        import_dirs=settings.import_dirs,
        retention=settings.upload_retention,
        idle_timeout=settings.upload_idle_timeout,
        removing=lambda: removing(settings.data_dir),
    )


async def _open_models(
    settings: Settings,
    store: SqlJobStore,
    forks: ForkServer,
    jobs: JobService,
    stack: AsyncExitStack,
) -> ModelService:
    predictor = await stack.enter_async_context(
        ProcessPredictor(forks, timeout=settings.predict_timeout)
    )
    exporter = ProcessExporter(
        forks, data=_data_settings(settings), timeout=settings.export_timeout
    )
    registry: MlflowRegistry | None = None
    if settings.tracking:
        config = TrackingConfig.resolve(settings.data_dir, settings.mlflow_tracking_uri)
        registry = await stack.enter_async_context(MlflowRegistry(config))
    registered = RegisteredModels(jobs, registry, store.models, settings.data_dir / "models")
    return ModelService(jobs, predictor, exporter, registered)


def _room(settings: Settings) -> DiskRoom:
    return DiskRoom(settings.data_dir, settings.disk_reserve)


def _data_settings(settings: Settings) -> DataSettings:
    return DataSettings(
        cache=settings.data_dir / "datasets",
        folder=settings.datasets_dir,
        mirrors=dict(settings.dataset_mirrors),
        uploads=settings.data_dir / "uploads",
    )


def _tracing(settings: Settings, stack: AsyncExitStack) -> Tracing | None:
    """What makes traces, if there shall be any; its libraries are loaded only then."""
    if settings.tracing_endpoint is None:
        return None
    try:
        from dropnorm_service.observability.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tracing_endpoint: traces need {error.name}, which is not installed: pip install 'dropnorm[tracing]'"
        ) from error
    tracing = Tracing(settings.tracing_endpoint, lambda job_id: settings.data_dir / "jobs" / job_id)
    stack.callback(tracing.close)
    return tracing


async def _serve_metrics(
    settings: Settings, metrics: Metrics, stack: AsyncExitStack
) -> dict[str, str]:
    """Open the port of the metrics, if there shall be one; where they are then."""
    if settings.metrics_port is None:
        return {}
    endpoint = MetricsEndpoint(metrics.exposition)
    url = await endpoint.start(settings.metrics_host, settings.metrics_port)
    stack.callback(endpoint.stop)
    return {"metrics": url}


async def _watch_over(
    settings: Settings, health: HealthWatch, store: SqlJobStore, stopping: asyncio.Event
) -> None:
    """Keep the health report true until it is time to stop."""
    taken = asyncio.create_task(store.superseded())
    taken.add_done_callback(lambda _: stopping.set())
    duties = [taken, asyncio.create_task(health.run())]
    if settings.exit_with_parent:
        duties.append(asyncio.create_task(_notice_orphaned(stopping)))
    try:
        await stopping.wait()
        if taken.done():
            raise StoreInUse("another service uses the database now, and this one ends")
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _notice_orphaned(stopping: asyncio.Event) -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel tells nobody but the child's poll
        await asyncio.sleep(_PARENT_INTERVAL)
    log.info("the parent process has ended")
    stopping.set()


async def _shut_down(
    grace: float, server: ApiServer, jobs: JobService, forks: ForkServer, tracker: Tracker | None
) -> None:
    """Accept nothing, write checkpoints, end streams, let MLflow catch up; all within the grace time."""
    log.info("stopping", extra={"grace": grace})
    deadline = time.monotonic() + grace
    await server.refuse()
    await asyncio.gather(jobs.stop(grace * (1 - _CLOSING_SHARE)), forks.release())
    await server.stop(min(1.0, grace * _CLOSING_SHARE))
    if tracker is not None:
        left = deadline - time.monotonic() - grace * _EXIT_SHARE
        await tracker.stop(max(0.0, left))


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process. The handler is the loop's, since
    KeyboardInterrupt reaches no coroutine."""
    stopping, told = asyncio.Event(), False
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        nonlocal told
        if told:
            # Everything accepted and journaled is on disk, and workers notice by themselves: as after a kill.
            log.warning(
                "told to stop a second time: ends at once, its jobs go on after the next start"
            )
            os._exit(_SIGNALLED + number)
        told = True
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
