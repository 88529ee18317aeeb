"""What a spec comes to, before anything is spent."""

from __future__ import annotations

from dropnorm.results import (
    DatasetSummary,
    MemoryEstimate,
    Plan,
    PlannedBatches,
    PlannedLayer,
)
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm_service.training.auto import with_batch_size
from dropnorm_service.training.design import DesignedLayer
from dropnorm_service.training.dropout_rates import dropout_factor, is_scheduled
from dropnorm_service.training.lints import Subject, lint
from dropnorm_service.training.memory import StepMemory
from dropnorm_service.training.timetable import Stretch, Timetable, largest_part


def plan(
    training: TrainingSpec, dataset: DatasetSummary, *, memory_limit_bytes: int | None = None
) -> Plan:
    """The plan of a spec on its data: layers, steps, memory and lints. Nothing is allocated or computed.

    Args:
        training: the spec.
        dataset: the data and the sizes of its splits.
        memory_limit_bytes: memory of the device it would run on; None: unknown, nothing is refused for it.

    Raises:
        InvalidSpecError: the spec does not fit its data, or its training does not fit into the memory;
            every field at fault is named.
    """
    asked = training
    training, paper = with_batch_size(asked, dataset, memory_limit_bytes)
    timetable = Timetable.of(training.optimization, dataset.train_samples)
    part = largest_part(training.optimization, timetable)
    memory = StepMemory(training, paper, dataset).of(part)
    if memory_limit_bytes is not None and memory.total > memory_limit_bytes:
        raise InvalidSpecError([_too_large(memory, memory_limit_bytes)])
    subject = Subject(training, paper, dataset, timetable, memory, memory_limit_bytes)
    return Plan(
        spec=asked,
        spec_digest=asked.digest(),
        dataset=dataset,
        layers=tuple(_row(layer, training) for layer in paper.walk()),
        parameters=paper.parameters,
        forward_flops=paper.forward_flops,
        steps_per_epoch=timetable.batching(1).steps_per_epoch,
        total_steps=timetable.steps,
        last_batch_size=timetable.batching(1).last_batch_size,
        batches=tuple(map(_batches, timetable.stretches)),
        memory=memory,
        lints=lint(subject),
    )


def _batches(stretch: Stretch) -> PlannedBatches:
    return PlannedBatches(
        first_epoch=stretch.first_epoch,
        batch_size=stretch.batching.batch_size,
        steps_per_epoch=stretch.batching.steps_per_epoch,
        last_batch_size=stretch.batching.last_batch_size,
    )


def _row(layer: DesignedLayer, training: TrainingSpec) -> PlannedLayer:
    return PlannedLayer(
        name=layer.element.name,
        type=layer.blueprint.text + _over_time(layer, training),
        field=layer.element.field,
        output_shape=layer.blueprint.output_shape,
        parameters=layer.blueprint.parameters,
        flops=layer.blueprint.flops,
    )


def _over_time(layer: DesignedLayer, training: TrainingSpec) -> str:
    """What a schedule makes of a layer, behind its text."""
    dropout = training.regularization.dropout
    if dropout is None or dropout.schedule is None or not is_scheduled(layer.element):
        return ""
    epochs = training.optimization.epochs
    first, last = (dropout_factor(dropout, epoch=each, epochs=epochs) for each in (1, epochs))
    return f", times {first:.3g} at first and {last:.3g} at last"


def _too_large(memory: MemoryEstimate, limit: int) -> Problem:
    state = memory.parameters + memory.gradients + memory.optimizer
    field, text, _ = max(
        ("architecture", f"{size(state)} of it for weights, gradients and optimizer", state),
        (
            "optimization.batch_size",
            f"{size(memory.activations)} of it for activations",
            memory.activations,
        ),
        ("data.train_samples", f"{size(memory.data)} of it for the data set", memory.data),
        key=lambda part: part[2],
    )
    return Problem(
        field,
        f"a training step would take about {size(memory.total)}, {text}, and there are {size(limit)}; "
        "ask for less here",
    )


def size(count: int) -> str:
    """Bytes in words: `1.5 GiB`."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1024.0:
            break
        value, unit = value / 1024.0, larger
    return f"{value:.4g} {unit}"
