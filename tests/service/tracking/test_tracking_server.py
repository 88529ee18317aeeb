"""The mirror against a tracking server that comes and goes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.ports import free_port
from tests.service.tracking.page import mlflow_server
from tests.service.tracking.story import Story

from dropnorm_service.tracking import TrackingConfig


@pytest.mark.slow
async def test_an_outage_of_the_server_delays_the_mirror_and_nothing_else(
    story: Story,
    tracked,
    config: TrackingConfig,
    client: MlflowClient,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.WARNING)
    port, log = free_port(), tmp_path / "server.log"
    remote = TrackingConfig.resolve(tmp_path, f"http://127.0.0.1:{port}")
    async with tracked(remote) as tracker:
        with mlflow_server(config, port, log):
            await story.submit("through")
            await story.start("through")
            await story.train("through", [1])
            await tracker.caught_up()

        await story.train("through", [2])
        tracker.notify([])
        async with asyncio.timeout(60):
            while "MLflow is unavailable" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.05)
        await story.train("through", [3])
        await story.succeed("through")
        await story.whole("new")

        with mlflow_server(config, port, log):
            await tracker.caught_up()

    found = client.get_experiment_by_name("digits")
    assert found is not None
    runs = {run.info.run_name: run for run in client.search_runs([found.experiment_id])}
    assert runs.keys() == {"through", "new"}
    for name, run in runs.items():
        assert (await story.job(name)).mlflow_run_id == run.info.run_id
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [point.step for point in points] == [1, 2, 3]
        assert len(client.get_metric_history(run.info.run_id, "test_accuracy")) == 1
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert files >= {"evaluation.json", "plots", "spec.yaml"}
