"""The device of a training: which one, how exactly it computes, what it is called and what it used."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dropnorm.spec import Compute, InvalidSpecError, Problem

_CPU_INFO = Path("/proc/cpuinfo")
_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_SIZES = re.compile(r"^(Vm\w+):\s+(\d+) kB$", re.MULTILINE)
_SHORT = 0.75
"""Share of the memory that a process may have, from which on it counts as short of it."""


def choose_device(compute: Compute) -> torch.device:
    """The device a spec asks for; `auto` takes a GPU where this process sees one.

    Raises:
        InvalidSpecError: it asks for a GPU and there is none.
    """
    wanted = "cpu" if compute.gpus == 0 else compute.device
    has_gpu = wanted != "cpu" and torch.cuda.is_available()
    if not has_gpu and (wanted == "cuda" or compute.gpus):
        field = "compute.device" if wanted == "cuda" else "compute.gpus"
        raise InvalidSpecError(
            [Problem(field, "no GPU can be used here; choose device cpu or auto")]
        )
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu else torch.device("cpu")


@contextmanager
def arithmetic(compute: Compute) -> Iterator[None]:
    """Inside the block torch computes as exactly as the spec asks, and afterwards as before.

    Raises:
        InvalidSpecError: an operation has no deterministic form on this device.
    """
    debugging: Any = torch.utils.deterministic  # a module with a property, which types cannot say
    before = (
        torch.get_deterministic_debug_mode(),
        debugging.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    if compute.deterministic:
        # Read by cuBLAS when its first handle is made; without it torch refuses to multiply on a GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not by use_deterministic_algorithms: that one imports the compiler, which takes a second.
    torch.set_deterministic_debug_mode("error" if compute.deterministic else "default")
    debugging.fill_uninitialized_memory = False  # a debugging aid that costs time
    torch.backends.cudnn.benchmark = not compute.deterministic
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        operation = str(error).split(" does not have")[0]
        raise InvalidSpecError(
            [
                Problem(
                    "compute.deterministic",
                    f"{operation} has no deterministic form on this device; set deterministic to "
                    "false, or train on the cpu",
                )
            ]
        ) from error
    finally:
        torch.set_deterministic_debug_mode(before[0])
        debugging.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = before[2]


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's name, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes(device: torch.device) -> int:
    """Memory of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: of the allocator on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def used_memory_bytes(device: torch.device) -> int:
    """Memory in use now: of the allocator on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_bytes()


def resident_bytes() -> int:
    """Resident memory of this process; its peak where the system tells no more."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return peak_memory_bytes(torch.device("cpu"))


def was_short_of_memory() -> bool:
    """Whether this process once had taken three quarters of the memory that the system lets it have.

    False where it may have any, or nobody can tell. What it has given back since counts: an operation that failed has.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        found = dict(_SIZES.findall(_STATUS.read_text(encoding="ascii")))
        peak, size, data = (1024 * int(found[f"Vm{name}"]) for name in ("Peak", "Size", "Data"))
    except (FileNotFoundError, KeyError):
        return False
    return data + peak - size >= _SHORT * limit


def wait_for(device: torch.device) -> None:
    """Return when everything queued on the device is done, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
