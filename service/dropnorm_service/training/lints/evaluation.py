"""Lints about measurements that can only come out one way."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import EvaluationSettings
from dropnorm.spec import layers as spec
from dropnorm_service.training.dropout_rates import dropout_factor, is_scheduled
from dropnorm_service.training.lints.flow import drops
from dropnorm_service.training.lints.subject import Subject, over_fields

_CODE = "EVALUATION_WITHOUT_EFFECT"


def idle_mc_dropout(subject: Subject) -> Iterator[Lint]:
    """Passes with dropout on in a network without dropout."""
    if subject.training.evaluation.mc_dropout_passes is None:
        return
    if not any(drops(layer.element) for layer in subject.paper.walk()):
        yield Lint(
            code=_CODE,
            field="evaluation.mc_dropout_passes",
            message="the network has no dropout, so that all passes are the same; give it some, or leave this out",
        )


def idle_layer_report(subject: Subject) -> Iterator[Lint]:
    """A report after more epochs than there are."""
    every, epochs = (
        subject.training.evaluation.layer_report_epochs,
        subject.training.optimization.epochs,
    )
    if every is not None and every > epochs:
        yield Lint(
            code=_CODE,
            field="evaluation.layer_report_epochs",
            message=f"training ends after {epochs} epochs, before the first report; give fewer epochs here",
        )


def idle_variance_shift(subject: Subject) -> Iterator[Lint]:
    """A shift at batch norms in a network without them, or from dropout in a network without it."""
    if not subject.training.evaluation.variance_shift:
        return
    elements = [layer.element for layer in subject.paper.walk()]
    field = "evaluation.variance_shift"
    if not any(
        isinstance(element.layer, spec.BatchNorm) and element.layer.track_running_stats
        for element in elements
    ):
        yield Lint(
            code=_CODE,
            field=field,
            message="no batch norm of the network keeps running statistics, so there is nothing to measure; leave this "
            "out",
        )
    elif not any(map(drops, elements)):
        yield Lint(
            code=_CODE,
            field=field,
            message="the network has no dropout, so that training and evaluation hardly differ; give it some, or leave "
            "this out",
        )


def dropout_over_in_the_end(subject: Subject) -> Iterator[Lint]:
    """A measurement with dropout on, of an epoch in which a schedule may have turned it off."""
    training, dropout = subject.training, subject.training.regularization.dropout
    epochs, asked = training.optimization.epochs, training.evaluation
    if dropout is None or dropout_factor(dropout, epoch=epochs, epochs=epochs) > 0.0:
        return
    dropping = [layer.element for layer in subject.paper.walk() if drops(layer.element)]
    if not dropping or not all(map(is_scheduled, dropping)):
        return
    given = {
        "mc_dropout_passes": asked.mc_dropout_passes is not None,
        "variance_shift": asked.variance_shift,
        "recalibrate_batch_norm": asked.recalibrate_batch_norm == "dropout_on",
    }
    yield from over_fields(
        "DROPOUT_MAY_BE_OVER",
        [f"evaluation.{name}" for name, wanted in given.items() if wanted],
        "this is measured with the dropout of the best epoch, and the schedule turns it off before the end, so that "
        "there may be none; end the schedule with some dropout, or leave this out",
    )


def idle_bins(subject: Subject) -> Iterator[Lint]:
    """Bins of a calibration error that only classifications have."""
    default = EvaluationSettings.model_fields["calibration_bins"].default
    task = subject.dataset.task
    if subject.training.evaluation.calibration_bins != default and task != "classification":
        yield Lint(
            code=_CODE,
            field="evaluation.calibration_bins",
            message=f"a {task} has no confidence to calibrate; leave this out",
        )
