"""ModelService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from dropnorm import wire
from dropnorm.results import Model
from dropnorm.spec import DropoutSampling, ExportSettings, Tensor
from dropnorm.v1 import model_pb2
from dropnorm.v1 import model_service_pb2 as pb
from dropnorm.v1.model_service_pb2_grpc import ModelServiceServicer
from dropnorm_service.api.context import caller
from dropnorm_service.api.names import (
    export_ids_of,
    job_id_of,
    model_of,
    registered_id_of,
    version_of,
)
from dropnorm_service.api.updates import changes_of
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.registered import check_alias, check_model_id
from dropnorm_service.jobs.wrong_fields import WrongFields

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(ModelServiceServicer):
    """The rpcs of ModelService."""

    def __init__(self, models: ModelService) -> None:
        self._models = models
        self._registered = models.registered

    async def Predict(self, request: pb.PredictRequest, context: Context) -> Any:
        wrong = WrongFields()
        sampling = None
        with wrong:
            model = model_of(request.model, "model")
        with wrong:
            inputs = wire.from_message(request.inputs, Tensor, path="inputs")
        with wrong:
            if request.HasField("sampling"):
                sampling = wire.from_message(request.sampling, DropoutSampling, path="sampling")
        wrong.settle()
        prediction = await self._models.predict(caller.get(), model, inputs, sampling)
        return wire.to_message(prediction, model_pb2.Prediction)

    async def ExportModel(self, request: pb.ExportModelRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            model = model_of(request.model, "model")
        with wrong:
            settings = wire.from_message(request.settings, ExportSettings, path="settings")
        wrong.settle()
        export = await self._models.export(caller.get(), model, settings)
        return wire.to_message(export, model_pb2.ModelExport)

    async def GetModelExport(self, request: pb.GetModelExportRequest, context: Context) -> Any:
        export = await self._models.get_export(caller.get(), *export_ids_of(request.name))
        return wire.to_message(export, model_pb2.ModelExport)

    async def DownloadModelExport(
        self, request: pb.DownloadModelExportRequest, context: Context
    ) -> AsyncIterator[Any]:
        ids = export_ids_of(request.name)
        async for offset, data in self._models.download(caller.get(), *ids, request.offset):
            yield pb.DownloadModelExportResponse(offset=offset, data=data)

    async def RegisterModel(self, request: pb.RegisterModelRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            check_model_id(request.model_id)
        with wrong:
            job_id = job_id_of(request.training_job, "training_job")
        with wrong:
            check_alias(request.alias, required=False)
        wrong.settle()
        version = await self._registered.register(
            caller.get(), request.model_id, job_id, request.alias, shared=request.shared
        )
        return wire.to_message(version, model_pb2.ModelVersion)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> Any:
        model_id = registered_id_of(request.name)
        return _message(await self._registered.get(caller.get(), model_id))

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            model_id = registered_id_of(request.model.name, "model.name")
        with wrong:
            changes = changes_of(
                request.model, request.update_mask, changeable=("shared",), field="model"
            )
        wrong.settle()
        return _message(await self._registered.share(caller.get(), model_id, **changes))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> Any:
        page = await self._registered.list(caller.get(), request.page_size, request.page_token)
        models = map(_message, page.models)
        return pb.ListModelsResponse(models=models, next_page_token=page.next_page_token)

    async def SetModelAlias(self, request: pb.SetModelAliasRequest, context: Context) -> Any:
        wrong = WrongFields()
        with wrong:
            asked = version_of(request.name)
        with wrong:
            check_alias(request.alias, required=True)
        wrong.settle()
        return _message(await self._registered.set_alias(caller.get(), asked, request.alias))

    async def DeleteModelAlias(self, request: pb.DeleteModelAliasRequest, context: Context) -> Any:
        asked = version_of(request.name)
        if not asked.alias:
            raise InvalidRequest.of("name", "name the alias, models/{id}@{alias}")
        return _message(
            await self._registered.delete_alias(caller.get(), asked.model_id, asked.alias)
        )


def _message(model: Model) -> model_pb2.Model:
    return wire.to_message(model, model_pb2.Model)
