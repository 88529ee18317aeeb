"""Lints about training samples that are changed at random."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm_service.training.lints.subject import Subject, over_fields

_FIELD = "data.augmentation"
_DIGITS = ("mnist", "digits")


def flipped_digits(subject: Subject) -> Iterator[Lint]:
    """Flips of images that mean something else, or nothing, in a mirror."""
    yield from _about(
        subject,
        ("horizontal_flip", "vertical_flip") if subject.dataset.name in _DIGITS else (),
        "FLIPPED_DIGITS",
        f"a 2 or a 6 in a mirror is no digit, so the samples of {subject.dataset.name} would be ones that never come; "
        "shift them instead",
    )


def mixed_alone(subject: Subject) -> Iterator[Lint]:
    """Samples mixed with others of a batch that has no others."""
    alone = all(batching.batch_size == 1 for batching in subject.timetable.batchings)
    yield from _about(
        subject,
        ("mixup_alpha", "cutmix_alpha") if alone else (),
        "AUGMENTATION_WITHOUT_EFFECT",
        "a batch of one sample has no other to mix with; give a larger batch_size",
    )


def _about(subject: Subject, names: tuple[str, ...], code: str, message: str) -> Iterator[Lint]:
    """A lint about those of some settings that are given."""
    settings = subject.training.data.augmentation
    given = [f"{_FIELD}.{name}" for name in names if settings and getattr(settings, name)]
    yield from over_fields(code, given, message)
