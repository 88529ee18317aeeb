"""A trained model as an MLflow model in `pt2` form: an exported graph that opens with torch and MLflow alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
import mlflow.pytorch
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from packaging.version import Version
from torch import Tensor, nn

from dropnorm.results import TrainingJob
from dropnorm_service.tracking.mirror.guard import Guard
from dropnorm_service.tracking.mirror.locate import JOB_TAG, RunRef
from dropnorm_service.tracking.mirror.logged import NAME, model_of
from dropnorm_service.tracking.mirror.parameters import parameters
from dropnorm_service.training import load_examples, load_model


class ExportError(Exception):
    """The exported model does not do what the trained one does."""


class ModelPublisher:
    """Makes a job's model a model of its run: on its page, at `runs:/<run>/model` and at `models:/<id>`."""

    def __init__(self, client: MlflowClient, guard: Guard) -> None:
        """A publisher.

        Args:
            client: the store.
            guard: sorts the store's errors.
        """
        torch.set_num_threads(1)  # the cores are for training
        self._client = client
        self._guard = guard

    def publish(
        self, run: RunRef, job: TrainingJob, folder: Path, metrics: Sequence[Metric]
    ) -> None:
        """Export the job's model and log it. A repetition replaces the files of the same MLflow model.

        Args:
            run: the job's run.
            job: the job, which has succeeded.
            folder: where the service has saved its model.
            metrics: the run's final metrics, which are the model's too.

        Raises:
            MlflowUnavailable: MLflow does not answer; publish it again later.
            Refused: MLflow does not take it.
            ExportError: the exported model computes something else.
            Exception: the model cannot be loaded or exported, for whatever reason torch has.
        """
        module, examples = load_model(folder), load_examples(folder)
        with tempfile.TemporaryDirectory(prefix="dropnorm-") as name:
            path = Path(name) / NAME
            description = export(module, examples, path)
            model = self._guard(f"the model of {job.name}", lambda: self._find_or_make(run, job))
            description.run_id = run.run_id
            description.artifact_path = model.artifact_location
            description.model_id = description.model_uuid = model.model_id
            description.save(str(path / "MLmodel"))
            self._guard(
                f"model files of {job.name}",
                lambda: self._client.log_model_artifacts(model.model_id, str(path)),
            )
        self._guard(f"model link of {job.name}", lambda: self._link(run, model, metrics))

    def _find_or_make(self, run: RunRef, job: TrainingJob) -> LoggedModel:
        found = model_of(self._client, run.run_id, run.experiment_id)
        return found or self._client.create_logged_model(
            run.experiment_id,
            name=NAME,
            source_run_id=run.run_id,
            params=parameters(job.spec),
            tags={JOB_TAG: job.id},
            model_type=job.spec.architecture.kind,
        )

    def _link(self, run: RunRef, model: LoggedModel, metrics: Sequence[Metric]) -> None:
        found = self._client.get_run(run.run_id)
        linked = (
            [output.model_id for output in found.outputs.model_outputs] if found.outputs else []
        )
        if model.model_id not in linked:
            output = LoggedModelOutput(model.model_id, step=0)
            self._client.log_outputs(run.run_id, [output])
        # The run has these points already, perhaps from before the service's store was set back, and then at another
        # time; this makes them the model's too.
        has = {point.key: Metric.from_proto(point) for point in found.data.to_proto().metrics}
        points = [has.get(metric.key, metric) for metric in metrics]
        self._client.log_batch(
            run.run_id,
            metrics=[
                Metric(p.key, p.value, p.timestamp, p.step, model_id=model.model_id) for p in points
            ],
        )
        self._client.finalize_logged_model(model.model_id, "READY")


def export(module: nn.Module, examples: Tensor, path: Path) -> Model:
    """Save a module as an MLflow model with a dynamic batch, and try it.

    Args:
        module: on the CPU and in eval mode; `[batch, *input_shape]` -> `[batch, outputs]`.
        examples: inputs for it.
        path: the folder to make.

    Raises:
        ExportError: the exported module computes something else.
        Exception: whatever torch.export has against the module.
    """
    if len(examples) == 1:
        examples = torch.cat(
            [examples, examples]
        )  # torch.export takes a batch of one for a constant
    with torch.no_grad():
        expected = module(examples)
    description = Model()
    mlflow.pytorch.save_model(
        module,
        str(path),
        mlflow_model=description,
        serialization_format="pt2",
        input_example=examples.numpy(),
        signature=ModelSignature(inputs=_schema(examples), outputs=_schema(expected)),
        # Said here, because MLflow would find out by loading the model in a process more.
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"torch=={Version(torch.__version__).public}",
        ],
    )
    # An exported graph keeps its device; by default a machine with a GPU would refuse to load it.
    description.flavors["python_function"]["config"] = {"device": "cpu"}
    description.save(str(path / "MLmodel"))
    exported = torch.export.load(path / "data" / "model.pt2").module()
    if not torch.allclose(exported(examples), expected, rtol=1e-4, atol=1e-5):
        raise ExportError("the exported model does not predict what the trained one does")
    return description


def _schema(batch: Tensor) -> Schema:
    # Without a name, so that predict() takes a plain array.
    return Schema([TensorSpec(batch.numpy().dtype, (-1, *batch.shape[1:]))])
