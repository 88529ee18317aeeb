"""Whether a spec fits its data: what a training would stumble over, found before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from dropnorm.results import DatasetSummary
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm.spec import layers as spec
from dropnorm_service.training.augmentation.limits import unsuitable
from dropnorm_service.training.batching import Batching
from dropnorm_service.training.design import Design, design
from dropnorm_service.training.elements import Element
from dropnorm_service.training.evaluation import misfits, too_many_reports
from dropnorm_service.training.inference import inference_batch_size
from dropnorm_service.training.tasks import WITH_ACCURACY, WITH_SMOOTHING
from dropnorm_service.training.timetable import Timetable, part_sizes


def check(training: TrainingSpec, dataset: DatasetSummary) -> Design:
    """The network of a spec, laid out for its data.

    Raises:
        InvalidSpecError: the layers do not fit the data, batch norm would see a single value per channel,
            the metric that selects does not exist, a measurement is not defined for the task, or there
            would be more reports of layers than can be kept; every field at fault is named.
    """
    problems = [
        *_selection(training, dataset),
        *_range_test(training, dataset),
        *_smoothing(training, dataset),
        *unsuitable(training, dataset),
        *misfits(training, dataset),
    ]
    try:
        paper = design(training, dataset.input_shape, dataset.outputs, dataset.sequences)
    except InvalidSpecError as error:
        raise InvalidSpecError([*error.problems, *problems]) from error
    problems += _nothing_to_learn(training, paper)
    problems += too_many_reports(training, paper)
    problems += _single_values_in_training(training, paper, dataset)
    problems += _single_values_in_evaluation(paper, dataset)
    if problems:
        raise InvalidSpecError(problems)
    return paper


def _selection(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    selection = training.evaluation.selection
    if selection == "validation_accuracy" and dataset.task not in WITH_ACCURACY:
        yield Problem(
            "evaluation.selection",
            f"this is a {dataset.task} of {dataset.name}, which has no accuracy; select by validation_loss",
        )


def _range_test(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    if training.optimization.auto_learning_rate and dataset.task == "generation":
        yield Problem(
            "optimization.auto_learning_rate",
            "the losses of two networks that play against each other do not fall, so a range test finds nothing; leave "
            "it out and give the optimizer's lr",
        )


def _smoothing(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    if training.regularization.label_smoothing is not None and dataset.task not in WITH_SMOOTHING:
        yield Problem(
            "regularization.label_smoothing",
            f"this is a {dataset.task} of {dataset.name}, which has no labels to smooth; leave it out",
        )


def _nothing_to_learn(training: TrainingSpec, paper: Design) -> Iterator[Problem]:
    if paper.parameters == 0:
        text = "the network has no weights to learn; give it a linear or a conv layer"
        yield Problem("architecture", text)
        return
    frozen = [layer for layer in paper.walk() if _stands_still(layer.element, training)]
    if sum(layer.blueprint.parameters for layer in frozen) == paper.parameters:
        text = "all that the network can learn are gamma and beta, which this freezes; leave it out"
        yield Problem(frozen[0].element.setting("freeze_affine"), text)


def _stands_still(element: Element, training: TrainingSpec) -> bool:
    """Whether a layer's gamma and beta stand still before the training ends."""
    norm = element.layer
    return (
        isinstance(norm, spec.BatchNorm)
        and norm.freeze_affine
        and norm.freeze_after is not None
        and norm.freeze_after < training.optimization.epochs
    )


def _single_values_in_training(
    training: TrainingSpec, paper: Design, dataset: DatasetSummary
) -> Iterator[Problem]:
    norms = list(_norms_of_vectors(paper))
    if not norms or training.optimization.auto_batch_size:  # checked again when it is found
        return
    optimization, samples = training.optimization, dataset.train_samples
    field, why = "optimization.batch_size", _why(norms[0])
    if samples == 1:
        text = "the training split has a single sample; use more data, or leave batch norm out"
        yield Problem(field, f"{why}, and {text}")
        return
    for batching in Timetable.of(optimization, samples).batchings:
        micro, size, last = (
            optimization.micro_batch_size,
            batching.batch_size,
            batching.last_batch_size,
        )
        if size == 1:
            text = "every batch is one; give a batch_size of at least 2, or leave batch norm out"
        elif last == 1:
            text = (
                f"{samples} training samples in batches of {size} leave a last batch of one; give another "
                "batch_size, or set last_batch to drop"
            )
        elif 1 in (part_sizes(size, micro)[0], part_sizes(last, micro)[0]):
            field = "optimization.micro_batch_size"
            text = (
                f"batches of {size} and {last} samples in parts of at most {micro} leave a part of one; give a "
                "larger micro_batch_size"
            )
        else:
            continue
        yield Problem(field, f"{why}, and {text}")
        return


def _single_values_in_evaluation(paper: Design, dataset: DatasetSummary) -> Iterator[Problem]:
    size = inference_batch_size(paper)
    splits = {
        "training": dataset.train_samples,
        "validation": dataset.validation_samples,
        "test": dataset.test_samples,
    }
    short = [
        name for name, count in splits.items() if Batching.of(count, size).last_batch_size == 1
    ]
    for element in _norms_of_vectors(paper, tracking=False):
        if short:
            yield Problem(
                element.setting("track_running_stats"),
                f"{_why(element)}, and without running statistics evaluation meets one: the {short[0]} split has "
                f"{splits[short[0]]} samples, evaluated {size} at a time; keep running statistics, or change the "
                "size of the split",
            )
            return


def _norms_of_vectors(paper: Design, *, tracking: bool | None = None) -> Iterator[Element]:
    """The batch norms that see one value per channel and sample, all or those of one kind.

    A batch of one leaves them without a variance, and torch refuses it; over an image's pixels there is one.
    """
    for layer in paper.walk():
        settings = layer.element.layer
        if (
            isinstance(settings, spec.BatchNorm)
            and prod(layer.input_shape[1:]) == 1
            and tracking in (None, settings.track_running_stats)
        ):
            yield layer.element


def _why(element: Element) -> str:
    return f"batch norm ({element.name}) has no variance to normalise by in a batch of one sample"
