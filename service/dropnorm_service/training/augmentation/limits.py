"""Which changes of samples make sense for which data."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import DatasetSummary
from dropnorm.spec import Problem, TrainingSpec

_FIELD = "data.augmentation"
_OF_IMAGES = ("horizontal_flip", "vertical_flip", "shift", "crop", "cutmix_alpha")
_SUPERVISED = ("classification", "regression")


def unsuitable(training: TrainingSpec, dataset: DatasetSummary) -> Iterator[Problem]:
    """Every setting that the data or its task has no sense for."""
    settings = training.data.augmentation
    if settings is None:
        return
    given = [name for name in type(settings).model_fields if getattr(settings, name) is not None]
    for name in given:
        why = _why_not(name, dataset)
        if why:
            yield Problem(f"{_FIELD}.{name}", f"{why}; leave it out")
    if settings.shift is not None and len(dataset.input_shape) == 3:
        least = min(dataset.input_shape[1:])
        if settings.shift.pixels >= least:
            yield Problem(
                f"{_FIELD}.shift.pixels",
                f"images of {dataset.name} have {least} pixels on their shorter side, so that {settings.shift.pixels} "
                "would move them out of sight; give fewer",
            )


def _why_not(name: str, dataset: DatasetSummary) -> str:
    """What speaks against one setting; empty: nothing."""
    if dataset.sequences is not None:
        return f"samples of {dataset.name} are tokens, which this cannot change"
    if name in _OF_IMAGES and len(dataset.input_shape) != 3:
        return f"samples of {dataset.name} are {dataset.input_shape[0]} features and no images"
    task = f"this is a {dataset.task} of {dataset.name}"
    if name == "cutmix_alpha" and dataset.task != "classification":
        return f"{task}, which has no classes to mix"
    if name == "mixup_alpha" and dataset.task not in _SUPERVISED:
        return f"{task}, which has no targets to mix"
    if name == "noise_std" and dataset.task not in _SUPERVISED:
        return f"{task}, and the noise would be learned as part of the samples"
    return ""
