"""ModelService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from dropnorm import wire
from dropnorm.spec import DropoutSampling, ExportSettings, Tensor
from dropnorm.v1 import model_pb2
from dropnorm.v1 import model_service_pb2 as pb
from dropnorm.v1.model_service_pb2_grpc import ModelServiceServicer
from dropnorm_service.api.names import export_ids_of, job_id_of
from dropnorm_service.jobs.errors import Collector
from dropnorm_service.jobs.models import ModelService

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(ModelServiceServicer):
    """The rpcs of ModelService."""

    def __init__(self, models: ModelService) -> None:
        self._models = models

    async def Predict(self, request: pb.PredictRequest, context: Context) -> Any:
        wrong = Collector()
        sampling = None
        with wrong:
            model = job_id_of(request.model, "model")
        with wrong:
            inputs = wire.from_message(request.inputs, Tensor, path="inputs")
        with wrong:
            if request.HasField("sampling"):
                sampling = wire.from_message(request.sampling, DropoutSampling, path="sampling")
        wrong.settle()
        prediction = await self._models.predict(model, inputs, sampling)
        return wire.to_message(prediction, model_pb2.Prediction)

    async def ExportModel(self, request: pb.ExportModelRequest, context: Context) -> Any:
        wrong = Collector()
        with wrong:
            model = job_id_of(request.model, "model")
        with wrong:
            settings = wire.from_message(request.settings, ExportSettings, path="settings")
        wrong.settle()
        export = await self._models.export(model, settings)
        return wire.to_message(export, model_pb2.ModelExport)

    async def GetModelExport(self, request: pb.GetModelExportRequest, context: Context) -> Any:
        export = await self._models.get_export(*export_ids_of(request.name))
        return wire.to_message(export, model_pb2.ModelExport)

    async def DownloadModelExport(
        self, request: pb.DownloadModelExportRequest, context: Context
    ) -> AsyncIterator[Any]:
        ids = export_ids_of(request.name)
        async for offset, data in self._models.download(*ids, request.offset):
            yield pb.DownloadModelExportResponse(offset=offset, data=data)
