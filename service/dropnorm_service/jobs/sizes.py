"""About what results take in memory, as measured on CPython 3.11: enough to keep only so many of them."""

from __future__ import annotations

from dropnorm.results import EpochCompleted, EpochMetrics, Evaluated, Evaluation, Event, Metrics

_EVENT = 1000
_EPOCH = 1800
_LAYER_REPORT = 1100
_CLASS = 600
_COUNT = 8


def epoch_bytes(metrics: EpochMetrics) -> int:
    """An epoch with its reports of layers."""
    return _EPOCH + _LAYER_REPORT * len(metrics.layers)


def evaluation_bytes(evaluation: Evaluation) -> int:
    """An evaluation, which grows with its epochs, their reports of layers, and the classes of each split."""
    splits = (evaluation.train, evaluation.validation, evaluation.test)
    return sum(map(epoch_bytes, evaluation.history)) + sum(map(_classes_bytes, splits))


def event_bytes(event: Event) -> int:
    """An event of a journal."""
    match event.payload:
        case EpochCompleted(metrics=metrics):
            return _EVENT + epoch_bytes(metrics)
        case Evaluated(evaluation=evaluation):
            return _EVENT + evaluation_bytes(evaluation)
    return _EVENT


def _classes_bytes(metrics: Metrics | None) -> int:
    classes = () if metrics is None else metrics.classes
    return sum(_CLASS + _COUNT * len(each.predicted) for each in classes)
