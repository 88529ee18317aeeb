"""Why a training ended: what its errors carry."""

import pytest
import torch

from dropnorm_service.training import BadData, Diverged, OutOfMemory, TrainingError
from dropnorm_service.training.errors import memory_reported

CPU = torch.device("cpu")


def test_every_error_has_its_reason_and_a_code_of_its_own_fault() -> None:
    reasons = {kind.reason: kind.code for kind in TrainingError.__subclasses__()}
    assert reasons == {"DIVERGED": 9, "OUT_OF_MEMORY": 8, "BAD_DATA": 9}


def test_message_and_metadata() -> None:
    error = BadData("x.gz is not gzip", path="x.gz", size=3)
    assert str(error) == error.message == "x.gz is not gzip"
    assert error.metadata == {"path": "x.gz", "size": "3"}


def test_diverged_says_what_and_when() -> None:
    error = Diverged(step=12, metric="train_loss", value=float("nan"))
    assert error.message.startswith("train_loss became nan by step 12")
    assert error.metadata == {"step": "12", "metric": "train_loss", "value": "nan"}


def test_the_cpus_allocator_is_understood() -> None:
    with pytest.raises(OutOfMemory, match="cpu has no memory left") as raised, memory_reported(CPU):
        torch.empty(2**50)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert raised.value.metadata == {"device": "cpu", "asked_for": f"{2**52} bytes"}


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_reported(CPU):
        torch.ones(2, 3) @ torch.ones(2, 3)
