"""Lints about forms of batch norm that change nothing in this training."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element
from dropnorm_service.training.lints.flow import drops
from dropnorm_service.training.lints.subject import Subject, over_fields
from dropnorm_service.training.timetable import largest_part


def single_ghost(subject: Subject) -> Iterator[Lint]:
    """Ghost batches of which a batch has one."""
    batch = largest_part(subject.training.optimization, subject.timetable)
    yield from over_fields(
        "GHOST_BATCHES_WITHOUT_EFFECT",
        [
            element.setting("ghost_batch_size")
            for element, norm in _batch_norms(subject)
            if norm.ghost_batch_size is not None and batch // norm.ghost_batch_size < 2
        ],
        f"the {batch} samples that are computed at once are a single ghost batch, for there is no room for two; give a "
        "smaller ghost_batch_size, or a batch_size of at least twice that",
    )


def idle_freeze(subject: Subject) -> Iterator[Lint]:
    """Batch norms that would stand still when the training is over."""
    epochs = subject.training.optimization.epochs
    yield from over_fields(
        "FREEZE_WITHOUT_EFFECT",
        [
            element.setting("freeze_after")
            for element, norm in _batch_norms(subject)
            if norm.freeze_after is not None and norm.freeze_after >= epochs
        ],
        f"training ends after {epochs} epochs, before anything stands still; give fewer epochs here",
    )


def synchronized_alone(subject: Subject) -> Iterator[Lint]:
    """Synchronised batch norm on one device."""
    yield from over_fields(
        "SYNCHRONIZED_ON_ONE_DEVICE",
        [
            element.setting("synchronized")
            for element, norm in _batch_norms(subject)
            if norm.synchronized
        ],
        "a job trains on one device, which has the whole batch, so there is nothing to synchronise",
    )


def idle_recalibration(subject: Subject) -> Iterator[Lint]:
    """Statistics to be computed anew where there are none, or with dropout where there is none."""
    asked = subject.training.evaluation.recalibrate_batch_norm
    field = "evaluation.recalibrate_batch_norm"
    if asked is None:
        return
    if not any(norm.track_running_stats for _, norm in _batch_norms(subject)):
        yield Lint(
            code="RECALIBRATION_WITHOUT_EFFECT",
            field=field,
            message="no batch norm of the network keeps running statistics; leave it out",
        )
    elif asked == "dropout_on" and not any(drops(layer.element) for layer in subject.paper.walk()):
        yield Lint(
            code="RECALIBRATION_WITHOUT_EFFECT",
            field=field,
            message="the network has no dropout to be on; dropout_off says the same",
        )


def frozen_in_the_end(subject: Subject) -> Iterator[Lint]:
    """Statistics to be computed anew of norms that stand still."""
    kept = [norm for _, norm in _batch_norms(subject) if norm.track_running_stats]
    freezes = [norm.freeze_after for norm in kept if norm.freeze_after is not None]
    if subject.training.evaluation.recalibrate_batch_norm is None or len(freezes) < len(kept):
        return
    last = max(freezes, default=subject.training.optimization.epochs)
    if last < subject.training.optimization.epochs:
        yield Lint(
            code="RECALIBRATION_MAY_NOT_ACT",
            field="evaluation.recalibrate_batch_norm",
            message=f"running statistics stand still after {last} epochs and are not computed anew if the best epoch "
            "comes later; leave this or freeze_after out",
        )


def _batch_norms(subject: Subject) -> Iterator[tuple[Element, spec.BatchNorm]]:
    for layer in subject.paper.walk():
        if isinstance(layer.element.layer, spec.BatchNorm):
            yield layer.element, layer.element.layer
