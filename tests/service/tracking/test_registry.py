"""Registered models with a real MLflow and the process that asks it."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient
from tests.service.tracking.story import Story

from dropnorm.results import TrainingJob
from dropnorm_service.jobs.errors import ModelUnusable
from dropnorm_service.tracking import MlflowRegistry, TrackingConfig

SHA256 = "5d" * 32


async def mirrored(story: Story, client: MlflowClient, job_id: str) -> tuple[TrainingJob, str]:
    """A job with its run and the model of it, as the mirror makes them, and the model's id."""
    job = await story.submit(job_id)
    found = client.get_experiment_by_name("digits")
    experiment = found.experiment_id if found else client.create_experiment("digits")
    run_id = client.create_run(experiment, tags={"dropnorm.model": "ready"}).info.run_id
    client.create_logged_model(experiment, name="drawn-by-hand", source_run_id=run_id)
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    return job.model_copy(update={"mlflow_run_id": run_id}), model.model_id


async def test_models_with_the_same_weights_are_a_version_for_each_job(
    story: Story, client: MlflowClient, config: TrackingConfig
):
    (a, of_a), (b, of_b) = [await mirrored(story, client, job_id) for job_id in ("a", "b")]
    async with MlflowRegistry(config) as registry:
        said = [
            await registry.register("digits", job, sha256=SHA256, alias=alias)
            for job, alias in ((a, "production"), (b, ""), (a, "production"))
        ]
    assert [each and (each.training_job, each.version, each.aliases) for each in said] == [
        (a.name, 1, ("production",)),
        (b.name, 2, ()),
        (a.name, 1, ("production",)),
    ]
    for version, model in (("1", of_a), ("2", of_b)):
        assert client.get_model_version("digits", version).source == f"models:/{model}"


async def test_a_model_that_was_deleted_in_mlflow_is_said_to_be(
    story: Story, client: MlflowClient, config: TrackingConfig
):
    job, model = await mirrored(story, client, "emptied")
    client.delete_logged_model(model)
    async with MlflowRegistry(config) as registry:
        with pytest.raises(ModelUnusable, match="MLflow does not have it any more") as refused:
            await registry.register("digits", job, sha256=SHA256, alias="")
    assert refused.value.metadata == {"training_job": job.name}
    assert client.search_registered_models() == []
