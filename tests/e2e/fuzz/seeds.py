"""What a client of good will sends: one valid call of each method, on things that are really there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.e2e.servers import MIRROR_PATIENCE, Server, eventually, spec

import dropnorm as dn
from dropnorm import wire
from dropnorm.datasets import write_bundle
from dropnorm.datasets.arrays import from_arrays
from dropnorm.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from dropnorm.v1.dataset_pb2 import Dataset
from dropnorm.v1.model_pb2 import DropoutSampling, ExportSettings, Model, Tensor
from dropnorm.v1.training_job_pb2 import TrainingJob

SAMPLES = np.linspace(0, 1, 480, dtype=np.float32).reshape(60, 8)
LABELS = np.arange(60) % 3
MASK = FieldMask(paths=["shared"])


def seeds(server: Server, folder: Path) -> Mapping[str, Sequence[Message]]:
    """Requests by method; several where the client streams."""
    job, dataset, model = "trainingJobs/fuzzed", "datasets/fuzzed", "models/fuzzed"
    with server.client() as client:
        client.datasets.upload("fuzzed", SAMPLES, LABELS)
        client.train(spec("fuzzed", epochs=1), job_id="fuzzed").result()
        eventually(lambda: _registered(client, job), "MLflow has the model", within=MIRROR_PATIENCE)
        client.models.export(job, folder / "exported", format="safetensors")
    of_dropnorm = _of_jobs(job) | _of_datasets(dataset, folder / "file") | _of_models(model, job)
    return of_dropnorm | _of_grpc()


def _registered(client: dn.Client, job: str) -> dn.ModelVersion | None:
    try:
        return client.models.register("fuzzed", job, alias="best")
    except dn.Unavailable:  # the mirror has not brought the model there yet
        return None


def _of_grpc() -> dict[str, Sequence[Message]]:
    """Of health and reflection."""
    health = health_pb2.HealthCheckRequest(service="liveness")
    asked = reflection_pb2.ServerReflectionRequest
    return {
        "Check": [health],
        "Watch": [health],
        "List": [health_pb2.HealthListRequest()],  # type: ignore[attr-defined]  # not in the stubs
        "ServerReflectionInfo": [
            asked(list_services="all"),
            asked(file_containing_symbol="dropnorm.v1.TrainingService"),
            asked(all_extension_numbers_of_type="google.protobuf.FieldOptions"),
        ],
    }


def _of_jobs(name: str) -> dict[str, Sequence[Message]]:
    pb = training_service_pb2
    create = pb.CreateTrainingJobRequest(
        training_job_id="another", request_id="r-1", validate_only=True
    )
    create.training_job.labels["key"] = "value"
    create.training_job.spec.CopyFrom(wire.to_message(spec(), type(create.training_job.spec)))
    shared = TrainingJob(name=name, shared=True)
    return {
        "CreateTrainingJob": [create],
        "PlanTrainingJob": [pb.PlanTrainingJobRequest(spec=create.training_job.spec)],
        "GetTrainingJob": [pb.GetTrainingJobRequest(name=name, view=pb.TRAINING_JOB_VIEW_FULL)],
        "ListTrainingJobs": [
            pb.ListTrainingJobsRequest(
                page_size=3,
                filter='state = SUCCEEDED AND labels.key = "value" OR display_name : "x"',
                order_by="create_time desc",
            )
        ],
        "WatchTrainingJob": [pb.WatchTrainingJobRequest(name=name, after_sequence=1)],
        "CancelTrainingJob": [pb.CancelTrainingJobRequest(name=name)],
        "PauseTrainingJob": [pb.PauseTrainingJobRequest(name=name)],
        "ResumeTrainingJob": [pb.ResumeTrainingJobRequest(name=name)],
        "UpdateTrainingJob": [pb.UpdateTrainingJobRequest(training_job=shared, update_mask=MASK)],
        "DeleteTrainingJob": [pb.DeleteTrainingJobRequest(name="trainingJobs/none", force=True)],
        "ListWorkers": [pb.ListWorkersRequest(page_size=3)],
    }


def _of_datasets(name: str, path: Path) -> dict[str, Sequence[Message]]:
    pb = dataset_service_pb2
    sha256 = write_bundle(from_arrays(SAMPLES + 1, LABELS), path)
    content = path.read_bytes()
    header = pb.UploadHeader(dataset_id="sent", size_bytes=len(content), sha256=sha256)
    half = len(content) // 2
    return {
        "UploadDataset": [
            pb.UploadDatasetRequest(header=header),
            pb.UploadDatasetRequest(chunk=content[:half]),
            pb.UploadDatasetRequest(chunk=content[half:]),
        ],
        "QueryUpload": [pb.QueryUploadRequest(sha256=sha256)],
        "ImportDataset": [pb.ImportDatasetRequest(dataset_id="imported", path=str(path))],
        "GetDataset": [pb.GetDatasetRequest(name=name)],
        "ListDatasets": [pb.ListDatasetsRequest(page_size=3, filter="samples >= 1")],
        "UpdateDataset": [
            pb.UpdateDatasetRequest(dataset=Dataset(name=name, shared=True), update_mask=MASK)
        ],
        "DeleteDataset": [pb.DeleteDatasetRequest(name="datasets/none")],
    }


def _of_models(name: str, job: str) -> dict[str, Sequence[Message]]:
    pb = model_service_pb2
    inputs = Tensor(dtype=Tensor.DTYPE_FLOAT32, shape=[2, 8], data=SAMPLES[:2].tobytes())
    export = ExportSettings(format=ExportSettings.EXPORT_FORMAT_SAFETENSORS)
    exported = f"{job}/exports/safetensors"
    return {
        "Predict": [
            pb.PredictRequest(model=job, inputs=inputs, sampling=DropoutSampling(samples=2))
        ],
        "ExportModel": [pb.ExportModelRequest(model=job, settings=export)],
        "GetModelExport": [pb.GetModelExportRequest(name=exported)],
        "DownloadModelExport": [pb.DownloadModelExportRequest(name=exported, offset=1)],
        "RegisterModel": [
            pb.RegisterModelRequest(model_id="another", training_job=job, alias="good")
        ],
        "GetModel": [pb.GetModelRequest(name=name)],
        "ListModels": [pb.ListModelsRequest(page_size=3)],
        "UpdateModel": [
            pb.UpdateModelRequest(model=Model(name=name, shared=True), update_mask=MASK)
        ],
        "SetModelAlias": [pb.SetModelAliasRequest(name=f"{name}@1", alias="good")],
        "DeleteModelAlias": [pb.DeleteModelAliasRequest(name=f"{name}@best")],
    }
