"""Why a training ended: what its errors carry."""

import errno
import json
import resource
import subprocess
import sys

import pytest
import torch

from dropnorm_service.training import (
    BadData,
    DeviceError,
    Diverged,
    OutOfMemory,
    TrainingError,
    device_reported,
)
from dropnorm_service.training.errors import memory_reported

CPU = torch.device("cpu")


def test_every_error_has_its_reason_and_a_code_of_its_own_fault() -> None:
    reasons = {kind.reason: kind.code for kind in TrainingError.__subclasses__()}
    assert reasons == {
        "DIVERGED": 9,
        "OUT_OF_MEMORY": 8,
        "BAD_DATA": 9,
        "TIME_LIMIT": 4,
        "RESULT_TOO_LARGE": 8,
    }


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
    used = int(raised.value.metadata["used_bytes"])
    assert raised.value.metadata == {
        "device": "cpu",
        "asked_for": f"{2**52} bytes",
        "used_bytes": str(used),
    }
    assert used > 2**25


@pytest.mark.parametrize(
    ("error", "is_the_device"),
    [
        (
            torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCompile with"),
            True,
        ),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), True),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
            True,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (torch.AcceleratorError("CUDA error: invalid configuration argument"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_a_device_that_fails_is_told_from_a_mistake_of_ours(
    error: RuntimeError, is_the_device: bool
) -> None:
    with pytest.raises(DeviceError if is_the_device else RuntimeError) as raised, device_reported():
        raise error
    assert isinstance(raised.value, DeviceError) == is_the_device
    assert "\n" not in str(raised.value) or not is_the_device


def test_memory_of_a_gpu_that_runs_out_anywhere_is_understood() -> None:
    for error in (
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    ):
        with pytest.raises(OutOfMemory), memory_reported(CPU):
            raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_reported(CPU):
        torch.ones(2, 3) @ torch.ones(2, 3)


_ON_A_SHORT_MACHINE = """
import os, resource
import torch
from dropnorm_service.training import OutOfMemory
from dropnorm_service.training.errors import memory_reported

def recur():
    x = torch.randn(64, 50, 32)
    torch.nn.LSTM(32, 64, batch_first=True)(x)[0].sum().backward()

def grow():
    net = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(64, 32, 4, 2, 1), torch.nn.ConvTranspose2d(32, 3, 4, 2, 1)
    )
    net(torch.randn(64, 64, 8, 8)).sum().backward()

def attempt(work, room):
    status = open("/proc/self/status").read()
    used = 1024 * int(status.split("VmData:")[1].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
    try:
        with memory_reported(torch.device("cpu")):
            work()
    except OutOfMemory as error:
        return 1 + ("primitive" in str(error.__cause__))
    except RuntimeError as error:
        print(work.__name__, room, error, flush=True)
        return 3
    return 0

torch.set_num_threads(1)
ends = []
for work in (recur, grow):
    for room in range(4, 26, 2):
        if (pid := os.fork()) == 0:
            try:
                end = attempt(work, room << 20)
            finally:
                os._exit(end)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(ends)
"""


def test_where_onednn_has_no_memory_for_an_operation_that_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_SHORT_MACHINE], capture_output=True, text=True, check=True
    )
    *mistaken, ends = done.stdout.splitlines()
    assert mistaken == []
    found = json.loads(ends)
    assert set(found) <= {0, 1, 2}, done.stderr
    assert 0 in found, "in the end there is room"
    assert 1 in found or 2 in found, "at first there is none"


@pytest.mark.parametrize("unlimited", [True, False])
def test_where_there_is_memory_onednn_failed_of_something_else(
    unlimited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = resource.RLIM_INFINITY if unlimited else 2**40
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    with pytest.raises(RuntimeError, match="primitive"), memory_reported(CPU):
        raise RuntimeError("could not create a primitive")


def test_the_system_may_say_it_too() -> None:
    with pytest.raises(OutOfMemory), memory_reported(CPU):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(OSError, match="No space"), memory_reported(CPU):
        raise OSError(errno.ENOSPC, "No space left on device")
