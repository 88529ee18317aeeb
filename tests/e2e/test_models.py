"""Trained models in use: a real service, a real training, the model that came of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from tests.e2e.servers import Server, eventually, long, spec

import dropnorm as dn
from dropnorm.results import State
from dropnorm_service.tracking import TrackingConfig

X, Y = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def job(client: dn.Client) -> dn.JobHandle:
    """A small model of iris with dropout and batch norm."""
    asked = spec("iris", epochs=30, batch_size=16)
    regularization = dn.Regularization(dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm())
    job = client.train(asked.model_copy(update={"regularization": regularization}))
    job.result()
    return job


def test_a_finished_job_predicts(job: dn.JobHandle):
    said = job.predict(X)

    assert said.training_job == job.name
    assert np.mean(np.array(said.classes) == Y) > 0.85
    assert said.labels[0] == "setosa"
    assert np.allclose(np.asarray(said.probabilities).sum(axis=1), 1.0, atol=1e-5)
    cut = np.asarray(job.predict(X, batch_size=64))
    assert np.allclose(cut, np.asarray(said), atol=1e-5)  # other batches, other sums


def test_with_dropout_on_it_says_how_sure_it_is(client: dn.Client, job: dn.JobHandle):
    sampled = job.predict(X.tolist(), samples=20, seed=1)

    assert sampled == client.models.predict(job.name, X, samples=20, seed=1)
    assert np.asarray(sampled.standard_deviation).shape == (150, 3)
    assert np.asarray(sampled.mutual_information).max() > 0.0


def test_what_is_dropped_does_not_depend_on_the_cut(job: dn.JobHandle):
    whole = job.predict(X[:20], samples=10, seed=3)
    assert job.predict(X[:20], samples=10, seed=3, batch_size=7) == whole


def test_inputs_are_cut_by_what_the_model_says_of_them(client: dn.Client):
    asked = spec("iris", epochs=1, batch_size=16)
    data = client.datasets.upload("wide", np.random.rand(20, 1), np.random.rand(20, 3000))
    wide = client.train(
        asked.model_copy(
            update={"data": asked.data.model_copy(update={"dataset": data.name.split("/")[-1]})}
        )
    )
    wide.result()
    x = np.random.rand(3000, 1)
    said = wide.predict(x)
    assert said.outputs.shape == (3000, 3000), "three answers, of at most 1,398 inputs each"
    assert wide.predict(x, batch_size=2999) == said
    assert np.allclose(np.asarray(wide.predict(x[-1:])), np.asarray(said)[-1:], atol=1e-4)


def test_inputs_that_are_not_finite_or_too_large_have_no_prediction(job: dn.JobHandle):
    for value in (np.nan, np.inf, 1e300, 3e38):
        x = X.copy()
        x[7, 1] = value
        with pytest.raises(dn.InvalidRequest, match="input 7 ") as caught:
            job.predict(x)
        assert [problem.field for problem in caught.value.problems] == ["inputs.data"]


def test_it_predicts_for_asyncio_too(tracked: Server, job: dn.JobHandle):
    async def predict() -> dn.Prediction:
        async with dn.AsyncClient(tracked.address) as client:
            return await (await client.job(job.id)).predict(X)

    assert asyncio.run(predict()) == job.predict(X)


def test_what_cannot_be_predicted_is_said(client: dn.Client, job: dn.JobHandle):
    with pytest.raises(dn.InvalidRequest, match=r"takes \[inputs, 4\] and was given \[150, 3\]"):
        job.predict(X[:, :3])
    running = client.train(long())
    eventually(lambda: running.refresh().state is State.RUNNING, "a running job")
    with pytest.raises(dn.WrongState, match="only a job that has SUCCEEDED has a model"):
        running.predict(X)
    running.delete(force=True)


@pytest.mark.slow
def test_a_model_leaves_with_its_proof(job: dn.JobHandle, tmp_path: Path):
    export = job.export(tmp_path / "model.pt2", fold_batch_norm=True)

    assert export.name == f"{job.name}/exports/pt2-folded"
    assert (export.folded_norms, export.kept_norms, export.removed_dropouts) == (1, 0, 1)
    assert job.evaluation is not None
    assert export.proof.original_accuracy == job.evaluation.test.accuracy
    assert export.proof.accuracy == export.proof.original_accuracy
    model = torch.export.load(tmp_path / "model.pt2").module()
    outputs = model(torch.tensor(X, dtype=torch.float32)).detach().numpy()
    assert np.allclose(outputs, np.asarray(job.predict(X)), atol=1e-4)


@pytest.mark.slow
def test_onnx_needs_nothing_of_torch(tracked: Server, job: dn.JobHandle, tmp_path: Path):
    async def export() -> dn.ModelExport:
        async with dn.AsyncClient(tracked.address) as client:
            return await (await client.job(job.id)).export(tmp_path, format="onnx")

    assert asyncio.run(export()).folded_norms == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    [outputs] = session.run(None, {"inputs": X.astype(np.float32)})
    assert np.allclose(outputs, np.asarray(job.predict(X)), atol=1e-4)


def test_an_export_that_deviates_is_refused(client: dn.Client, job: dn.JobHandle, tmp_path: Path):
    with pytest.raises(dn.ExportRefused, match="and the tolerance allows") as caught:
        job.export(tmp_path / "a.safetensors", fold_batch_norm=True, tolerance=1e-15)
    assert caught.value.reason == "EXPORT_DEVIATES"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(dn.InvalidRequest, match="a path that ends with one"):
        job.export(tmp_path / "model.bin")
    with pytest.raises(dn.NotFound, match="ExportModel makes one"):
        client.models.download(f"{job.name}/exports/safetensors-folded", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_models_are_registered_in_mlflow_with_aliases(
    client: dn.Client, tracked: Server, job: dn.JobHandle
):
    first = job.register("iris", alias="champion")

    assert (first.name, first.training_job) == ("models/iris@1", job.name)
    assert job.register("iris") == first, "a repeat makes no second version"
    registry = MlflowClient(TrackingConfig.resolve(tracked.data_dir).tracking_uri)
    version = registry.get_model_version_by_alias("iris", "champion")
    assert version.run_id == job.refresh().mlflow_run_id
    assert int(version.version) == 1

    other = client.train(job.spec.model_copy(update={"seed": 8}))
    other.result()
    second = other.register("iris")
    expected = other.predict(X)
    assert client.models.predict("iris", X) == expected, "the newest version"
    assert client.models.predict("iris@champion", X) == job.predict(X)
    model = client.models.set_alias("iris@2", "champion")
    assert model.aliases == {"champion": 2}
    assert [each.version for each in model.versions] == [2, 1]
    assert client.models.get("iris") == model
    assert list(client.models.list()) == [model]

    other.delete()
    eventually(
        lambda: not (tracked.data_dir / "jobs" / other.id).exists(), "the job's files are gone"
    )
    assert client.models.predict(f"{second.name}", X) == expected, "a version outlives its job"
    with pytest.raises(dn.WrongState, match="iris@2 is a version of it that still predicts"):
        client.models.export(second.name, tracked.data_dir / "gone.onnx")
    client.train(job.spec.model_copy(update={"seed": 9}), job_id=other.id).result()
    with pytest.raises(dn.WrongState, match="the job itself, with which exports are kept"):
        client.models.export(second.name, tracked.data_dir / "another.onnx")
    assert client.models.delete_alias("iris@champion").aliases == {}
    for alias in ("champion", "latest"):
        with pytest.raises(dn.NotFound):
            client.models.delete_alias(f"iris@{alias}")
    for name in ("iris@champion", "iris@3", "nobody"):
        with pytest.raises(dn.NotFound, match=f"There is no registered model models/{name}"):
            client.models.predict(name, X)


@pytest.mark.slow
def test_equal_weights_of_other_class_names_are_another_version(client: dn.Client):
    x = np.linspace(-1, 1, 80).reshape(40, 2)
    labels = {}
    for names in (("left", "right"), ("no", "yes")):
        dataset = f"named-{names[0]}"
        client.datasets.upload(dataset, x, np.array(names)[(x[:, 0] > 0).astype(int)])
        trained = client.train(spec(dataset, epochs=1))
        trained.result()
        version = trained.register("named")
        assert version.training_job == trained.name
        labels[version.version] = client.models.predict("named", x).labels
    assert set(labels[1]) <= {"left", "right"}
    assert set(labels[2]) <= {"no", "yes"}


def test_wrong_names_of_models_are_named(client: dn.Client, job: dn.JobHandle):
    with pytest.raises(dn.InvalidRequest) as caught:
        client.models.register("Iris", "Job", alias="v2")
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["model_id", "training_job", "alias"]
    with pytest.raises(dn.InvalidRequest, match="with a number or an alias"):
        client.models.predict("iris@a@b", X)


def test_without_mlflow_there_is_no_registry(make_server: Callable[..., Server]):
    with (
        make_server().start().client() as client,
        pytest.raises(dn.WrongState, match="mirrors nothing to MLflow"),
    ):
        client.models.predict("iris", X)


def test_the_command_predicts_exports_and_lists(tracked: Server, job: dn.JobHandle, tmp_path: Path):
    np.savez(tmp_path / "x.npz", X=X[:3])
    (tmp_path / "x.csv").write_text("a,b,c,d\n" + "\n".join(",".join(map(str, x)) for x in X[:3]))
    (tmp_path / "x.json").write_text(json.dumps(X[:3].tolist()))
    expected = [row["label"] for row in job.predict(X[:3]).rows()]
    for name in ("x.npz", "x.csv", "x.json"):
        rows = command(tracked, "predict", job.name, tmp_path / name, "--json").splitlines()
        assert [json.loads(row)["label"] for row in rows] == expected
    assert "setosa" in command(tracked, "predict", job.name, tmp_path / "x.npz", "--samples", 5)

    file = tmp_path / "model.safetensors"
    shown = command(tracked, "export", job.name, file, "--fold-batch-norm")
    assert "1 norms folded" in " ".join(shown.split())
    assert file.exists()
    copy = tmp_path / "copy.safetensors"
    name = f"{job.name}/exports/safetensors-folded"
    assert json.loads(command(tracked, "download", name, copy, "--json"))["name"] == name
    assert copy.read_bytes() == file.read_bytes()
    assert command(tracked, "list", "--json") == "".join(
        f"{model.model_dump_json()}\n" for model in job._client.models.list()
    )


@pytest.mark.slow
def test_the_command_gives_and_takes_aliases(tracked: Server, job: dn.JobHandle):
    job.register("flowers", alias="champion")
    assert "champion" in command(tracked, "get", "flowers")
    assert json.loads(command(tracked, "get", "flowers", "--json"))["name"] == "models/flowers"
    command(tracked, "unalias", "flowers@champion")
    assert "champion" not in command(tracked, "get", "flowers")


def command(server: Server, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dropnorm.cli", "models", *map(str, arguments)],
        env=os.environ | {"DROPNORM_ADDRESS": server.address, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
