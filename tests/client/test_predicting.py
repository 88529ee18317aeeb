"""How a prediction is cut into calls."""

from __future__ import annotations

import numpy as np
import pytest

import dropnorm as dn
from dropnorm._model_calls import Predicting
from dropnorm.v1.model_service_pb2 import PredictRequest


def sizes(inputs: int, samples: int | None, batch_size: int | None = None) -> list[int]:
    """Inputs of each call."""
    x = np.zeros((inputs, 2), np.float32)
    asking = Predicting("model", x, samples=samples, seed=0, batch_size=batch_size)
    found = []
    for call in asking.calls():
        assert isinstance(call.request, PredictRequest)
        (count, _) = call.request.inputs.shape
        found.append(count)
        said = dn.Tensor(shape=(count, 1), dtype="float32", data=b"\0" * 4 * count)
        asking.accept(dn.Prediction(training_job="trainingJobs/a", task="regression", outputs=said))
    return found


@pytest.mark.parametrize(
    ("inputs", "samples", "batch_size", "expected"),
    [
        (100_000, None, None, [100_000]),
        (150_000, None, None, [100_000, 50_000]),
        (12_000, 20, None, [5000, 5000, 2000]),
        (10, 1000, 4, [4, 4, 2]),
        (0, 20, None, [0]),
    ],
    ids=str,
)
def test_a_call_has_as_many_inputs_as_its_time_allows(
    inputs: int, samples: int | None, batch_size: int | None, expected: list[int]
) -> None:
    assert sizes(inputs, samples, batch_size) == expected
