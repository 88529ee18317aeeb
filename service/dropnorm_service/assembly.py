"""Makes the parts of a service from its settings, and joins them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from dropnorm.results import TrainingJob
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.limits import JobLimits
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.registered import RegisteredModels
from dropnorm_service.jobs.retries import RetryPolicy
from dropnorm_service.jobs.room import DiskRoom
from dropnorm_service.jobs.service import JobService, utc_now
from dropnorm_service.lock import Removals
from dropnorm_service.logs import audits_lost
from dropnorm_service.observability.metrics import Metrics
from dropnorm_service.observability.readings import CertificateState, Sources
from dropnorm_service.settings import Settings, SettingsError
from dropnorm_service.store import InvalidDatabaseUrl, SqlJobStore
from dropnorm_service.tracking import MlflowRegistry, Tracker, TrackingConfig, untraced
from dropnorm_service.workers import (
    DataSettings,
    ForkServer,
    LocalExecutor,
    ProcessExporter,
    ProcessInspector,
    ProcessPlanner,
    ProcessPredictor,
)

if TYPE_CHECKING:  # it brings OpenTelemetry, which few want
    from dropnorm_service.observability.tracing import Tracing


class Parts(NamedTuple):
    """A service's parts, joined; nothing has been started yet but the processes that workers come from."""

    metrics: Metrics
    tracing: Tracing | None
    store: SqlJobStore
    forks: ForkServer
    datasets: DatasetService
    jobs: JobService
    models: ModelService
    tracker: Tracker | None
    """None: nothing is recorded in MLflow."""
    authenticator: Authenticator | None
    """None: everyone may do everything."""
    room: DiskRoom


async def assemble(
    settings: Settings, stack: AsyncExitStack, certificate: CertificateState | None = None
) -> Parts:
    """Make the parts; the stack ends them.

    Args:
        settings: what they are made from.
        stack: ends them.
        certificate: the server's, for the metrics; None: it has none.

    Raises:
        SettingsError: a setting is wrong in a way that shows only now.
        StoreInUse, StoreTooNew, StoreUnavailable: the store cannot be opened.
        StartFailed: the fork server does not start.
        UnsupportedTrackingUri: nothing can be recorded there.
    """
    metrics = Metrics()
    tracing = _tracing(settings, stack)
    store = await stack.enter_async_context(await _open_store(settings, metrics))
    data = _data_settings(settings)
    forks = await stack.enter_async_context(ForkServer())
    executor = await stack.enter_async_context(_executor(settings, forks, data, tracing))
    forks.memory_limit = executor.worker_memory
    planner = await stack.enter_async_context(
        ProcessPlanner(
            forks, data=data, memory_limit=executor.memory_limit, timeout=settings.plan_timeout
        )
    )
    room = DiskRoom(settings.data_dir, settings.disk_reserve)
    removals = Removals(settings.data_dir)
    datasets = _datasets(settings, store, forks, planner, removals)
    tracking = _tracking(settings)
    jobs, tracker = _jobs(
        settings, store, executor, planner, datasets, removals, room, tracking, tracing
    )
    jobs.observe(metrics.jobs.observe)
    models = await _models(settings, store, forks, data, jobs, room, tracking, stack)
    metrics.read_from(
        Sources(
            ledger=store,
            slots=executor.slots,
            worker_restarts=lambda: {
                "fork_server": forks.restarts,
                "standby": executor.standbys_lost,
            },
            audits_lost=audits_lost,
            mirrors=tracker.consumers if tracker is not None else (),
            data_dir=settings.data_dir,
            certificate=certificate,
        )
    )
    authenticator = _authenticator(settings, store, stack)
    return Parts(
        metrics, tracing, store, forks, datasets, jobs, models, tracker, authenticator, room
    )


async def _open_store(settings: Settings, metrics: Metrics) -> SqlJobStore:
    try:
        return await SqlJobStore.open(settings.store_url, metrics.committed)
    except InvalidDatabaseUrl as error:
        raise SettingsError(f"database_url: {error}") from error


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


def _authenticator(
    settings: Settings, store: SqlJobStore, stack: AsyncExitStack
) -> Authenticator | None:
    if settings.authentication == "none":
        return None
    authenticator = Authenticator(store.tokens, utc_now)
    stack.push_async_callback(authenticator.close)
    return authenticator


def _data_settings(settings: Settings) -> DataSettings:
    return DataSettings(
        cache=settings.data_dir / "datasets",
        folder=settings.datasets_dir,
        mirrors=dict(settings.dataset_mirrors),
        uploads=settings.data_dir / "uploads",
    )


def _tracking(settings: Settings) -> TrackingConfig | None:
    """The MLflow store; None: nothing is recorded in any."""
    if not settings.tracking:
        return None
    return TrackingConfig.resolve(settings.data_dir, settings.mlflow_tracking_uri)


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
    settings: Settings,
    store: SqlJobStore,
    forks: ForkServer,
    planner: ProcessPlanner,
    removals: Removals,
) -> DatasetService:
    limits = Limits(
        bytes=settings.max_dataset_bytes,
        total_bytes=settings.max_datasets_bytes,
        samples=settings.max_dataset_samples,
        values=settings.max_dataset_values,
        user_bytes=settings.max_datasets_bytes_per_user,
        user_uploads=settings.max_uploads_per_user,
        datasets=settings.max_datasets,
        user_datasets=settings.max_datasets_per_user,
    )

    async def jobs_using(dataset_id: str) -> list[TrainingJob]:
        return [job async for job in store.unfinished(dataset_id)]

    return DatasetService(
        settings.data_dir / "uploads",
        ProcessInspector(forks, limits),
        jobs_using=jobs_using,
        on_change=planner.forget,
        limits=limits,
        import_dirs=settings.import_dirs,
        retention=settings.upload_retention,
        idle_timeout=settings.upload_idle_timeout,
        removing=removals.begin,
    )


def _jobs(
    settings: Settings,
    store: SqlJobStore,
    executor: LocalExecutor,
    planner: ProcessPlanner,
    datasets: DatasetService,
    removals: Removals,
    room: DiskRoom,
    tracking: TrackingConfig | None,
    tracing: Tracing | None,
) -> tuple[JobService, Tracker | None]:
    """The jobs, and what records them in MLflow, if anything does. Each knows the other."""
    tracker: Tracker | None = None
    jobs = JobService(
        store,
        executor,
        planner,
        folder=settings.data_dir / "jobs",
        data_held=datasets.held,
        data_hidden=datasets.hidden,
        read_up_to=lambda: tracker.position if tracker is not None else None,
        retry=RetryPolicy(limit=settings.max_attempts),
        removing=removals.begin,
        retention=settings.job_retention,
        limits=JobLimits(
            queued=settings.max_queued_jobs_per_user,
            all_queued=settings.max_queued_jobs,
            watches=settings.max_watches_per_user,
            all_watches=settings.max_watches,
            heavy_calls=settings.max_heavy_calls_per_user,
            creates=settings.max_creates_per_user,
            seconds=settings.max_job_seconds,
        ),
        require_room=room.require,
    )
    if tracking is not None:
        tracker = Tracker(
            tracking,
            store=store,
            folder_of=jobs.folder_of,
            record_tracking=jobs.record_tracking,
            delivering=tracing.delivering if tracing else untraced,
        )
        jobs.on_growth(tracker.notify)
    if tracing is not None:
        jobs.observe(tracing.observe)
    return jobs, tracker


async def _models(
    settings: Settings,
    store: SqlJobStore,
    forks: ForkServer,
    data: DataSettings,
    jobs: JobService,
    room: DiskRoom,
    tracking: TrackingConfig | None,
    stack: AsyncExitStack,
) -> ModelService:
    predictor = await stack.enter_async_context(
        ProcessPredictor(forks, timeout=settings.predict_timeout)
    )
    exporter = ProcessExporter(forks, data=data, timeout=settings.export_timeout)
    registry: MlflowRegistry | None = None
    if tracking is not None:
        registry = await stack.enter_async_context(MlflowRegistry(tracking))
    registered = RegisteredModels(jobs, registry, store.models, settings.data_dir / "models")
    return ModelService(jobs, predictor, exporter, registered, require_room=room.require)
