"""Requests about models, and what their replies come to, for both clients. No input or output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from dropnorm import wire
from dropnorm._arguments import request
from dropnorm._arrays import joined, pieces
from dropnorm._calls import Call
from dropnorm.errors import InvalidRequest
from dropnorm.results import Prediction
from dropnorm.spec import DropoutSampling
from dropnorm.spec._base import problems_of
from dropnorm.v1 import model_pb2, model_service_pb2

_TENSORS = (
    "outputs",
    "probabilities",
    "entropy",
    "standard_deviation",
    "mutual_information",
)


def predict(
    model: str, inputs: Any, *, samples: int | None, seed: int, batch_size: int | None
) -> Iterator[Call[Prediction]]:
    """Predict, a call for each piece of the inputs.

    Raises:
        InvalidRequest: the inputs are no array, or samples or seed out of range.
    """
    sampling = None
    if samples is not None:
        try:
            settings = DropoutSampling(samples=samples, seed=seed)
        except ValidationError as error:
            raise InvalidRequest(problems=problems_of(error)) from error
        sampling = wire.to_message(settings, model_pb2.DropoutSampling)
    for piece in pieces(inputs, batch_size):
        asked = request(model_service_pb2.PredictRequest, model=model)
        asked.inputs.CopyFrom(wire.to_message(piece, model_pb2.Tensor))
        if sampling is not None:
            asked.sampling.CopyFrom(sampling)
        yield Call(method="Predict", request=asked, read=_read_prediction)


def together(parts: Sequence[Prediction]) -> Prediction:
    """The predictions of all pieces as one."""
    first, *others = parts
    if not others:
        return first
    whole = {
        name: joined([getattr(part, name) for part in parts])
        for name in _TENSORS
        if getattr(first, name) is not None
    }
    return first.model_copy(update=whole)


def _read_prediction(message: model_pb2.Prediction) -> Prediction:
    return wire.from_message(message, Prediction)
