"""The files of an ended job, and its model, which opens and predicts elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import mlflow.artifacts
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path
from tests.client import samples
from tests.service.tracking.story import Story, a_spec, moved

from dropnorm.results import Evaluated, Evaluation, JobError, State, TrainingJob
from dropnorm.spec import (
    MLP,
    Data,
    Dropout,
    Optimization,
    Regularization,
    Sequential,
    TrainingSpec,
    layers,
)
from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.tracking.messages import Batch, Done, JobContext, RunMade
from dropnorm_service.tracking.mirror import guard
from dropnorm_service.tracking.mirror.artifacts import ArtifactRecorder
from dropnorm_service.tracking.mirror.model import ExportError, export
from dropnorm_service.tracking.mirror.pictures import draw
from dropnorm_service.tracking.mirror.runs import RunRecorder
from dropnorm_service.training import (
    DatasetCache,
    build_model,
    choose_device,
    fit,
    load_data,
    load_examples,
    load_model,
    save_model,
)

# MLflow warns of its own type hints when its pyfunc half is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

# What somebody has who got nothing but the run's id: no dropnorm, not even by accident.
STRANGER = """
import json, sys, os
class NoDropnorm:
    def find_spec(self, name, path=None, target=None):
        assert not name.startswith("dropnorm"), name
sys.meta_path.insert(0, NoDropnorm())
import mlflow, numpy, torch
torch.cuda.is_available = lambda: True  # a machine with a GPU, where MLflow would like to use it
run, model = sys.argv[1:]
answers = []
for uri in (f"runs:/{run}/model", f"models:/{model}"):
    native, generic = mlflow.pytorch.load_model(uri), mlflow.pyfunc.load_model(uri)
    example = numpy.asarray(generic.input_example, dtype="float32")
    one, many = example[:1], numpy.concatenate([example] * 7)
    assert generic.predict(many).shape == (len(many), 10)
    assert native(torch.from_numpy(one)).shape == (1, 10)
    answers += [generic.predict(example).tolist(), native(torch.from_numpy(example)).tolist()]
print(json.dumps({"example": example.tolist(), "answers": answers}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSpec, Evaluation, Path]:
    """A real training on digits, and the folder with its model."""
    folder = tmp_path_factory.mktemp("trained")
    spec = a_spec(dropout=0.2, batch_norm=True)
    data = load_data(spec, DatasetCache(folder / "cache"), choose_device(spec.compute))
    result = fit(spec, data)
    save_model(folder / "model", spec, data, result.model)
    return spec, result.evaluation, folder


@pytest.fixture
def recorder(client: MlflowClient) -> ArtifactRecorder:
    return ArtifactRecorder(client)


async def mirrored(
    story: Story, client: MlflowClient, config: TrackingConfig, job_id: str, folder: Path
) -> tuple[Batch, Run]:
    """A job's run without its files, and the batch that adds them."""
    events = [e for e in await story.store.events(job_id, after=0, limit=100) if e.attempt]
    job = await story.job(job_id)
    jobs = {job.name: JobContext(job=job, folder=folder)}
    made: list[RunMade] = []
    RunRecorder(client, config.artifact_root, made.append).record(
        Batch(events=tuple(events), jobs=jobs)
    )
    return Batch(events=(events[-1],), jobs=jobs), client.get_run(made[0].run_id)


async def succeeded(story: Story, spec: TrainingSpec, evaluation: Evaluation) -> TrainingJob:
    await story.submit("trained", spec, display_name="Dropout and batch norm")
    await story.start("trained")
    await story.train("trained", [1, 2, 3])
    return await story.tell("trained", Evaluated(evaluation=evaluation), moved(State.SUCCEEDED))


def put_a_file_in_the_way(run: Run) -> Path:
    folder = Path(local_file_uri_to_path(run.info.artifact_uri))
    folder.parent.mkdir(parents=True)
    folder.touch()
    return folder


def files(client: MlflowClient, run: Run, folder: str | None = None) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id, folder)}


async def test_a_model_opens_without_dropnorm_and_predicts_the_same(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder, trained
):
    spec, evaluation, folder = trained
    await succeeded(story, spec, evaluation)
    batch, run = await mirrored(story, client, config, "trained", folder)
    recorder.record(batch)

    run = client.get_run(run.info.run_id)
    assert run.data.tags["dropnorm.model"] == "ready"
    assert run.outputs is not None
    [output] = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.status == "READY"
    assert model.source_run_id == run.info.run_id
    assert model.params["regularization.dropout.rate"] == "0.2"
    assert {metric.key: metric.value for metric in model.metrics or ()}["test_accuracy"] == (
        pytest.approx(evaluation.test.accuracy)
    )

    stranger = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", STRANGER, run.info.run_id, model.model_id],
        env=os.environ | {"MLFLOW_TRACKING_URI": config.tracking_uri},
        cwd=config.folder,
        capture_output=True,
        text=True,
    )
    assert stranger.returncode == 0, stranger.stderr
    told = json.loads(stranger.stdout.splitlines()[-1])
    expected = load_model(folder / "model")(load_examples(folder / "model")).numpy()
    np.testing.assert_allclose(told["example"], load_examples(folder / "model").numpy())
    for answer in told["answers"]:
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


async def test_a_success_has_its_files_and_a_repetition_doubles_none(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder, trained
):
    spec, evaluation, folder = trained
    await succeeded(story, spec, evaluation)
    batch, run = await mirrored(story, client, config, "trained", folder)
    recorder.record(batch)
    before = client.get_run(run.info.run_id)
    ArtifactRecorder(client).record(batch)
    after = client.get_run(run.info.run_id)

    assert after.to_dictionary() == before.to_dictionary()
    assert len(client.search_logged_models([run.info.experiment_id])) == 1
    assert len(client.get_metric_history(run.info.run_id, "test_accuracy")) == 1
    assert files(client, run) >= {"evaluation.json", "plots", "spec.yaml"}
    assert files(client, run, "plots") == {
        "plots/confusion_matrix.png",
        "plots/learning_curves.png",
    }

    local = Path(
        mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, tracking_uri=config.tracking_uri
        )
    )
    assert Evaluation.model_validate_json((local / "evaluation.json").read_text()) == evaluation
    assert TrainingSpec.from_file(local / "spec.yaml") == spec
    for picture in (local / "plots").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert local.is_relative_to(config.folder / "mlflow-artifacts")


async def test_a_model_takes_the_points_that_its_run_has_from_before_the_store_was_set_back(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder, trained
):
    spec, evaluation, folder = trained
    await succeeded(story, spec, evaluation)
    batch, run = await mirrored(story, client, config, "trained", folder)
    [ended] = batch.events
    recorder.record(
        batch.model_copy(
            update={"events": (ended.model_copy(update={"time": ended.time + timedelta(hours=1)}),)}
        )
    )
    [model] = client.search_logged_models([run.info.experiment_id])
    for name in ("test_accuracy", "cost/seconds"):
        [point] = client.get_metric_history(run.info.run_id, name)
        of_model = {metric.key: metric for metric in model.metrics or ()}[name]
        assert (of_model.value, of_model.timestamp) == (point.value, point.timestamp)


async def test_a_failure_leaves_its_error_and_no_model(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder
):
    error = JobError(
        code=10, reason="DIVERGED", message="The loss is NaN.", metadata={"epoch": "2"}
    )
    await story.submit("fails")
    await story.start("fails")
    await story.tell("fails", moved(State.FAILED, error))
    batch, run = await mirrored(story, client, config, "fails", story.folder)
    recorder.record(batch)
    assert files(client, run) == {"error.json", "spec.yaml"}
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/error.json")
    assert JobError.model_validate_json(text) == error


async def test_a_model_that_cannot_be_loaded_is_said_to_be_missing(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder
):
    await story.whole("lost")
    batch, run = await mirrored(story, client, config, "lost", story.folder / "nowhere")
    recorder.record(batch)
    run = client.get_run(run.info.run_id)
    assert run.data.tags["dropnorm.model"].startswith("failed: ")
    assert files(client, run) >= {"evaluation.json", "plots", "spec.yaml"}
    assert client.search_logged_models([run.info.experiment_id]) == []


async def test_files_that_mlflow_does_not_take_are_said_to_be_missing_and_the_model_is_there(
    story: Story,
    client: MlflowClient,
    config: TrackingConfig,
    trained,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(guard, "_TRIES", 1)
    monkeypatch.setattr(guard, "_PATIENCE", 0.0)
    spec, evaluation, folder = trained
    await succeeded(story, spec, evaluation)
    batch, run = await mirrored(story, client, config, "trained", folder)
    in_the_way = put_a_file_in_the_way(run)
    recorder = ArtifactRecorder(client)
    recorder.record(batch)
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["dropnorm.files"].startswith("failed: files of trainingJobs/trained: ")
    assert tags["dropnorm.model"] == "ready"

    in_the_way.unlink()  # and the batch comes once more
    recorder.record(batch)
    assert "dropnorm.files" not in client.get_run(run.info.run_id).data.tags
    assert "spec.yaml" in files(client, run)


async def test_files_that_mlflow_does_not_take_now_are_written_later_and_the_model_meanwhile(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder, trained
):
    spec, evaluation, folder = trained
    job = await succeeded(story, spec, evaluation)
    batch, run = await mirrored(story, client, config, "trained", folder)
    in_the_way = put_a_file_in_the_way(run)
    done = recorder.record(batch)
    assert list(done.late) == [job.name]
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["dropnorm.model"] == "ready"
    in_the_way.unlink()
    assert recorder.record(batch) == Done()
    assert "spec.yaml" in files(client, run)
    assert "dropnorm.files" not in client.get_run(run.info.run_id).data.tags


async def test_a_job_that_kills_the_process_is_said_to_miss_its_files(
    story: Story, client: MlflowClient, config: TrackingConfig, recorder: ArtifactRecorder
):
    await story.whole("deadly")
    batch, run = await mirrored(story, client, config, "deadly", story.folder)
    recorder.record(batch.model_copy(update={"fatal": True}))
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["dropnorm.files"].startswith("failed: ")
    assert tags["dropnorm.model"].startswith("failed: ")
    assert files(client, run) == set()


@pytest.mark.parametrize("rescaling", ["inverted", "at_inference", "l2_norm"])
def test_a_convolutional_network_is_exported_whatever_its_dropout(tmp_path: Path, rescaling):
    spec = TrainingSpec(
        architecture=Sequential(
            layers=(
                layers.Conv(channels=4),
                layers.Activation(),
                layers.Residual(
                    layers=(
                        layers.Conv(channels=8, stride=2),
                        layers.BatchNorm(),
                        layers.Activation(),
                    )
                ),
                layers.Pool(mode="global_average"),
            )
        ),
        regularization=Regularization(dropout=Dropout(rate=0.3, rescaling=rescaling)),
        optimization=Optimization(epochs=1),
        data=Data(dataset="mnist"),
    )
    network = build_model(spec, (1, 28, 28), 10).eval()
    examples = torch.rand(1, 1, 28, 28)
    export(network, examples, tmp_path / "model")
    exported = torch.export.load(tmp_path / "model" / "data" / "model.pt2").module()
    batch = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(exported(batch), network(batch))


def test_a_module_that_computes_something_else_once_exported_is_refused(tmp_path: Path):
    class Fickle(torch.nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(ExportError, match="does not predict"):
        export(Fickle().eval(), torch.ones(2, 3), tmp_path / "model")


def test_the_default_network_has_no_hidden_surprises(tmp_path: Path):
    spec = TrainingSpec(architecture=MLP(hidden=()), data=Data(dataset="diabetes"))
    network = build_model(spec, (10,), 1).eval()
    description = export(network, torch.rand(4, 10), tmp_path / "model")
    assert description.signature.inputs.inputs[0].shape == (-1, 10)
    assert description.signature.outputs.inputs[0].shape == (-1, 1)


def test_each_kind_of_measurement_is_a_picture_of_its_own(tmp_path: Path) -> None:
    draw(samples.measured(), "A <title>", tmp_path)
    measured = {"calibration", "mc_dropout", "variance_shift", "robustness"}
    reported = {"gradient_norms", "output_means", "output_variances", "dead_units"}
    names = {"learning_curves", "confusion_matrix"} | measured | reported
    assert {path.stem for path in tmp_path.iterdir()} == names
    for picture in tmp_path.iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
