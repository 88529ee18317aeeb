"""Results as MLflow metrics, at the time of their event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from mlflow.entities import Metric
from pydantic import BaseModel

from dropnorm.results import EpochCompleted, Evaluation, Metrics, Recalibration

_NOT_MEASURED = frozenset({"epoch", "step", "layers", "dropout_rates"})


def milliseconds(time: datetime) -> int:
    """A time as MLflow has it."""
    return round(time.timestamp() * 1000)


def epoch_metrics(epoch: EpochCompleted, time: datetime) -> list[Metric]:
    """An epoch's metrics: those of `EpochMetrics` by their names there, `dropout_rates/*`, `optimizer_steps`,
    `layers/*` and `system/*`.

    Their step is the epoch, so that curves of different batch sizes can be compared.
    """
    values = {
        name: value
        for name, value in epoch.metrics
        if name not in _NOT_MEASURED and value is not None
    }
    values |= {f"dropout_rates/{name}": rate for name, rate in epoch.metrics.dropout_rates.items()}
    values["optimizer_steps"] = epoch.metrics.step
    for layer in epoch.metrics.layers:
        values |= _flat(f"layers/{layer.layer}", layer)
    if system := epoch.system:
        values["system/process_cpu_utilization_percentage"] = system.cpu_percent
        values["system/process_memory_usage_megabytes"] = system.memory_bytes / 1e6
        if system.gpu_percent is not None:
            values["system/gpu_utilization_percentage"] = system.gpu_percent
        if system.gpu_memory_bytes is not None:
            values["system/gpu_memory_usage_megabytes"] = system.gpu_memory_bytes / 1e6
    return _entities(values, epoch.metrics.epoch, time)


def final_metrics(evaluation: Evaluation, time: datetime) -> list[Metric]:
    """An evaluation's metrics: `test_*`, `best/train_*`, `best/validation_*` and `cost/*`, and of what was
    asked for, `recalibration/*` (by layer too), `auto/*`, `mc_dropout/*`, `temperature_scaling/*`, `beam_search/*`,
    `variance_shift/*` by layer and `robustness/*` by corruption and strength.

    Their step is 0, which MLflow's page takes for a single number: it draws bars, not a curve of one point.
    """
    values: dict[str, float] = {
        "best_epoch": evaluation.best_epoch,
        "generalization_gap": evaluation.generalization_gap,
        **{f"test_{name}": value for name, value in _numbers(evaluation.test)},
        **{f"best/train_{name}": value for name, value in _numbers(evaluation.train)},
        **{f"best/validation_{name}": value for name, value in _numbers(evaluation.validation)},
        **{
            f"cost/{name}": value
            for name, value in evaluation.cost
            if isinstance(value, int | float)
        },
    }
    if evaluation.recalibration is not None:
        values |= _recalibration(evaluation.recalibration)
    if auto := evaluation.auto:
        chosen = {"learning_rate": auto.learning_rate, "batch_size": auto.batch_size}
        values |= {f"auto/{name}": value for name, value in chosen.items() if value is not None}
    values |= _flat("mc_dropout", evaluation.mc_dropout)
    values |= _flat("temperature_scaling", evaluation.temperature_scaling)
    values |= _flat("beam_search", evaluation.beam_search)
    for shift in evaluation.variance_shift:
        values |= _flat(f"variance_shift/{shift.layer}", shift)
    for row in evaluation.robustness:
        values |= _flat(f"robustness/{row.corruption}/{row.strength}", row)
    return _entities(values, 0, time)


def _flat(prefix: str, found: BaseModel | None) -> Iterator[tuple[str, float]]:
    """The numbers of a result and of its parts: `temperature_scaling/test_after/nll`."""
    for name, value in found or ():
        if isinstance(value, BaseModel):
            yield from _flat(f"{prefix}/{name}", value)
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", value


def _recalibration(found: Recalibration) -> Iterator[tuple[str, float]]:
    """How far each layer has moved, what is largest of all, and validation as it was before."""
    for layer in found.layers:
        yield from _flat(f"recalibration/{layer.layer}", layer)
    for name in ("largest_mean_shift", "largest_variance_shift"):
        if found.layers:
            yield f"recalibration/{name}", max(getattr(layer, name) for layer in found.layers)
    for name, value in _numbers(found.validation_before):
        yield f"recalibration/validation_{name}_before", value


def _numbers(metrics: Metrics) -> Iterator[tuple[str, float]]:
    for name, value in metrics:
        if isinstance(value, int | float) and name != "samples":
            yield name, value


def _entities(values: Mapping[str, float], step: int, time: datetime) -> list[Metric]:
    timestamp = milliseconds(time)
    return [Metric(key, float(value), timestamp, step) for key, value in values.items()]
