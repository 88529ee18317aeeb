"""Real MLflow stores: an empty database is made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.service.tracking.story import Story

from dropnorm.results import Tracked
from dropnorm_service.store import SqlJobStore
from dropnorm_service.tracking import Tracker, TrackingConfig
from dropnorm_service.tracking.messages import RunMade
from dropnorm_service.tracking.mirror.runs import RunRecorder
from dropnorm_service.tracking.mirror.store import open_store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    config = TrackingConfig.resolve(folder)
    open_store(config.tracking_uri, config.artifact_root, config.store_lock)
    return folder / "mlflow.db"


@pytest.fixture
def config(tmp_path: Path, empty_database: Path) -> TrackingConfig:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return TrackingConfig.resolve(tmp_path)


@pytest.fixture
def client(config: TrackingConfig) -> MlflowClient:
    return open_store(config.tracking_uri, config.artifact_root, config.store_lock)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlJobStore]:
    async with await SqlJobStore.open(f"sqlite:///{tmp_path / 'dropnorm.db'}") as store:
        yield store


@pytest.fixture
def story(store: SqlJobStore, tmp_path: Path) -> Story:
    return Story(store, tmp_path / "jobs")


@pytest.fixture
def made(story: Story) -> list[RunMade]:
    """The runs that the recorder has told of."""
    return []


@pytest.fixture
def recorder(client: MlflowClient, config: TrackingConfig, made: list[RunMade]) -> RunRecorder:
    return RunRecorder(client, config.artifact_root, made.append)


@pytest.fixture
def tracked(
    story: Story, config: TrackingConfig
) -> Callable[[], AbstractAsyncContextManager[Tracker]]:
    """Starts a tracker for the story, as the service does, and stops it in the end."""

    @asynccontextmanager
    async def run(config: TrackingConfig = config) -> AsyncIterator[Tracker]:
        async def record(job_id: str, ids: Tracked) -> None:
            await story.record_tracking(job_id, ids)
            tracker.notify([])

        tracker = Tracker(
            config, store=story.store, folder_of=story.folder_of, record_tracking=record
        )
        tracker.start()
        try:
            yield tracker
        finally:
            await tracker.stop()

    return run
