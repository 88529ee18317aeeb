"""A job's data, from its name in the spec to tensors on the device."""

from __future__ import annotations

import time

import torch

from dropnorm.results import DatasetLoaded
from dropnorm.spec import TrainingSpec
from dropnorm_service.training.auto import with_batch_size
from dropnorm_service.training.data import DatasetCache, SplitData, split
from dropnorm_service.training.device import memory_bytes
from dropnorm_service.training.errors import memory_reported
from dropnorm_service.training.reporting import (
    EventSink,
    Orders,
    ProgressReport,
    go_on,
    heeding,
    ignore,
)
from dropnorm_service.training.timetable import Timetable


def load_data(
    spec: TrainingSpec,
    cache: DatasetCache,
    device: torch.device,
    *,
    on_event: EventSink = ignore,
    orders: Orders = go_on,
    memory_limit_bytes: int | None = None,
    time_limit: float | None = None,
) -> SplitData:
    """Load, split and standardise the data of a spec, on the device.

    Args:
        spec: names the data set and says how to split and scale it.
        cache: where data sets come from.
        device: where to.
        on_event: takes the progress, and what was loaded.
        orders: asked while another process parses the same data, and while it is downloaded.
        memory_limit_bytes: as `fit` has it; the number of steps depends on it.
        time_limit: as `fit` has it; looked at where orders are asked.

    Raises:
        InvalidSpecError: there is no such data, or it does not have what the spec asks for.
        BadData: a file is not what it should be.
        DataUnavailable: the mirror cannot be reached.
        OutOfMemory: the device has no memory for it.
        Interrupted: `orders` said pause or cancel.
        TimeLimit: the time is over.
    """
    started = time.perf_counter()
    summary = cache.summarize(spec)
    fitted = spec
    if spec.optimization.auto_batch_size:
        fitted, _ = with_batch_size(spec, summary, memory_limit_bytes or memory_bytes(device))
    timetable = Timetable.of(fitted.optimization, summary.train_samples)
    report = ProgressReport(on_event, epochs=timetable.epochs, steps=timetable.steps)
    report.enter("loading_data", epoch=0, step=0)

    heed = heeding(orders, started, time_limit)
    dataset = cache.load(spec.data.dataset, between_pieces=heed)
    with memory_reported(device):
        data = split(spec, dataset, device, started=started)
    on_event(DatasetLoaded(dataset=data.summary))
    return data
