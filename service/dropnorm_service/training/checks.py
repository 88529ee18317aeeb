"""Whether a spec fits its data: what a training would stumble over, found before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from dropnorm.results import DatasetSummary
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm.spec import layers as spec
from dropnorm_service.training.batching import Batching
from dropnorm_service.training.design import Design, design


def check(training: TrainingSpec, dataset: DatasetSummary) -> Design:
    """The network of a spec, laid out for its data.

    Raises:
        InvalidSpecError: the layers do not fit the data, batch norm would see a single value per channel,
            or the metric that selects does not exist; every field at fault is named.
    """
    problems = list(_selection(training, dataset))
    try:
        paper = design(training, dataset.input_shape, dataset.outputs)
    except InvalidSpecError as error:
        raise InvalidSpecError([*error.problems, *problems]) from error
    problems += _single_values(training, paper, dataset)
    if problems:
        raise InvalidSpecError(problems)
    return paper


def _selection(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    selection = training.evaluation.selection
    if selection == "validation_accuracy" and dataset.task == "regression":
        yield Problem(
            "evaluation.selection",
            f"{dataset.name} is a regression, which has no accuracy; select by validation_loss",
        )


def _single_values(
    training: TrainingSpec, paper: Design, dataset: DatasetSummary
) -> Iterator[Problem]:
    """Batch norm over one value per channel: its variance is 0 whatever the value, so torch refuses."""
    by_vector = [
        layer.element
        for layer in paper.walk()
        if isinstance(layer.element.layer, spec.BatchNorm) and prod(layer.input_shape[1:]) == 1
    ]
    if not by_vector:
        return
    optimization, samples = training.optimization, dataset.train_samples
    batching = Batching.of(samples, optimization.batch_size, optimization.last_batch)
    why = (
        f"batch norm ({by_vector[0].name}) has no variance to normalise by in a batch of one sample"
    )
    if batching.batch_size == 1:
        what = (
            "and every batch is one"
            if samples > 1
            else "and the training split has a single sample"
        )
        way_out = "give a batch_size of at least 2" if samples > 1 else "use more data"
        yield Problem(
            "optimization.batch_size", f"{why}, {what}; {way_out}, or leave batch norm out"
        )
    elif batching.last_batch_size == 1:
        yield Problem(
            "optimization.batch_size",
            f"{why}, and {samples} training samples in batches of {batching.batch_size} leave a last batch of "
            "one; give another batch_size, or set last_batch to drop",
        )
