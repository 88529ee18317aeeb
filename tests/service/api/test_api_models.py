"""ModelService over a real connection: what is asked for is checked before any model is."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.service.api.details import failure, refused, status_of, violations
from tests.service.jobs.bench import SPEC, Bench, BenchExporter

from dropnorm.results import State, TrainingJob
from dropnorm.spec import Submission
from dropnorm.v1 import model_pb2
from dropnorm.v1 import model_service_pb2 as pb

ONNX = model_pb2.ExportSettings.EXPORT_FORMAT_ONNX
INPUTS = model_pb2.Tensor(shape=[1, 2], dtype=model_pb2.Tensor.DTYPE_FLOAT32, data=bytes(8))


async def trained(bench: Bench) -> TrainingJob:
    job = await bench.service.create(Submission(spec=SPEC), job_id="done")
    (await bench.launched()).succeed()
    return await bench.reached(job, State.SUCCEEDED)


async def test_a_model_is_asked_by_the_name_of_its_job(models: Any, bench: Bench):
    job = await trained(bench)
    said = await models.Predict(pb.PredictRequest(model=job.name, inputs=INPUTS))
    assert (said.training_job, said.outputs) == (job.name, INPUTS)


async def test_predict_names_every_wrong_field(models: Any):
    request = pb.PredictRequest(
        model="digits",
        inputs=model_pb2.Tensor(shape=[1, -2], data=b"x"),
        sampling=model_pb2.DropoutSampling(samples=1),
    )
    assert await refused(models.Predict(request)) == [
        "model",
        "inputs.shape[1]",
        "inputs.dtype",
        "sampling.samples",
    ]


async def test_bytes_that_are_not_of_the_shape_are_named(models: Any):
    request = pb.PredictRequest(model="trainingJobs/done", inputs=INPUTS)
    request.inputs.shape[0] = 2
    error = await failure(models.Predict(request))
    assert [problem.field for problem in violations(status_of(error))] == ["inputs.data"]
    assert "[2, 2] is 16 bytes, not 8" in str(error.details())


async def test_only_a_job_that_has_succeeded_has_a_model(models: Any, bench: Bench):
    job = await bench.service.create(Submission(spec=SPEC))
    error = await failure(models.Predict(pb.PredictRequest(model=job.name, inputs=INPUTS)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION

    gone = pb.PredictRequest(model="trainingJobs/gone", inputs=INPUTS)
    assert (await failure(models.Predict(gone))).code() is grpc.StatusCode.NOT_FOUND


async def test_an_export_is_read_and_downloaded_by_its_name(models: Any, bench: Bench):
    job = await trained(bench)
    settings = model_pb2.ExportSettings(format=ONNX, fold_batch_norm=True)
    export = await models.ExportModel(pb.ExportModelRequest(model=job.name, settings=settings))

    assert export.name == "trainingJobs/done/exports/onnx-folded"
    assert export.settings.tolerance == 1e-4
    assert await models.GetModelExport(pb.GetModelExportRequest(name=export.name)) == export
    for offset in (0, 5, 2**20 + 1, export.size_bytes):
        request = pb.DownloadModelExportRequest(name=export.name, offset=offset)
        pieces = [piece async for piece in models.DownloadModelExport(request)]
        assert b"".join(piece.data for piece in pieces) == BenchExporter.content[offset:]
        assert [piece.offset for piece in pieces[:1]] in ([], [offset])
        assert all(len(piece.data) <= 2**20 for piece in pieces)


async def test_wrong_exports_are_named(models: Any, bench: Bench):
    assert await refused(models.ExportModel(pb.ExportModelRequest(model="x"))) == [
        "model",
        "settings.format",
    ]
    job = await trained(bench)
    for export_id, code in (("pt2", "NOT_FOUND"), ("../x", "INVALID_ARGUMENT")):
        name = f"{job.name}/exports/{export_id}"
        error = await failure(models.GetModelExport(pb.GetModelExportRequest(name=name)))
        assert error.code().name == code
    settings = model_pb2.ExportSettings(format=ONNX)
    export = await models.ExportModel(pb.ExportModelRequest(model=job.name, settings=settings))
    for offset in (-1, export.size_bytes + 1):
        request = pb.DownloadModelExportRequest(name=export.name, offset=offset)
        with pytest.raises(grpc.aio.AioRpcError, match="give 0 to that"):
            _ = [piece async for piece in models.DownloadModelExport(request)]
