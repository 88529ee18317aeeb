import time

import torch

from dropnorm_service.training.device import resident_bytes
from dropnorm_service.workers.child.meter import LoadMeter


def test_a_busy_process_uses_a_core_and_an_idle_one_none() -> None:
    began = time.monotonic()
    meter = LoadMeter(torch.device("cpu"))
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    used = time.process_time()
    busy = meter.read()
    assert busy.cpu_percent >= 100.0 * 0.09 / (time.monotonic() - began)
    time.sleep(0.1)
    idle = meter.read()
    assert idle.cpu_percent <= 100.0 * (time.process_time() - used) / 0.1
    assert idle.gpu_percent is None
    assert idle.gpu_memory_bytes is None


def test_memory_grows_by_what_is_used() -> None:
    before = resident_bytes()
    held = torch.ones(2**24)
    assert resident_bytes() - before > 0.9 * held.nbytes
