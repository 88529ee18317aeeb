"""The load that a worker puts on the machine."""

from __future__ import annotations

import time

import torch

from dropnorm.results import SystemMetrics
from dropnorm_service.training.device import resident_bytes


class LoadMeter:
    """Measures this process and its GPU from one reading to the next."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._has_nvml = self._gpu is not None and _nvml_answers(self._gpu)
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def read(self) -> SystemMetrics:
        """The load since the last reading."""
        wall, cpu = time.monotonic(), time.process_time()
        passed, used = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        gpu = self._gpu
        return SystemMetrics(
            cpu_percent=100.0 * used / passed if passed > 0.0 else 0.0,
            memory_bytes=resident_bytes(),
            gpu_percent=float(torch.cuda.utilization(gpu)) if self._has_nvml else None,
            gpu_memory_bytes=None if gpu is None else torch.cuda.memory_allocated(gpu),
        )


def _nvml_answers(gpu: torch.device) -> bool:
    try:
        torch.cuda.utilization(gpu)
    except (ImportError, RuntimeError):
        # Without the optional bindings, or on a GPU (a MIG slice) that does not tell.
        return False
    return True
