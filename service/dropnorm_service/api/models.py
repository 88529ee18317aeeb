"""ModelService at the edge: convert, call, convert. What is decided is decided in `jobs`."""

from __future__ import annotations

from typing import Any

import grpc

from dropnorm import wire
from dropnorm.spec import DropoutSampling, Tensor
from dropnorm.v1 import model_pb2
from dropnorm.v1 import model_service_pb2 as pb
from dropnorm.v1.model_service_pb2_grpc import ModelServiceServicer
from dropnorm_service.api.names import job_id_of
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
