"""Lints about what changes from epoch to epoch besides the learning rate."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import (
    CurriculumDropoutSchedule,
    Dropout,
    LinearDropoutSchedule,
    OffAfterDropoutSchedule,
)
from dropnorm_service.training.dropout_rates import dropout_factor, is_scheduled
from dropnorm_service.training.lints.subject import Subject

_FIELD = "regularization.dropout.schedule"
_UNFELT = 0.01
"""Share of the rates below which dropout makes no difference that shows."""
_MANY = 4
"""Compilations of a network that a training hardly feels."""


def idle_dropout_schedule(subject: Subject) -> Iterator[Lint]:
    """A dropout schedule that changes nothing, or not all that it should."""
    dropout = subject.training.regularization.dropout
    if dropout is None or dropout.schedule is None:
        return
    if not any(is_scheduled(layer.element) for layer in subject.paper.walk()):
        yield Lint(
            code="DROPOUT_SCHEDULE_WITHOUT_EFFECT",
            field=_FIELD,
            message="it changes the rates of regularization.dropout, and none of them acts in this network; give a "
            "rate, or leave the schedule out",
        )
        return
    epochs, schedule = subject.training.optimization.epochs, dropout.schedule
    if isinstance(schedule, OffAfterDropoutSchedule) and schedule.epochs >= epochs:
        yield Lint(
            code="DROPOUT_SCHEDULE_WITHOUT_EFFECT",
            field=f"{_FIELD}.off_after.epochs",
            message=f"dropout would end after {schedule.epochs} epochs, and training ends after {epochs}; give fewer "
            "epochs here or more to the training",
        )
    if isinstance(schedule, CurriculumDropoutSchedule):
        yield from _idle_curriculum(dropout, epochs)
    if isinstance(schedule, LinearDropoutSchedule) and not _ramp_ends(schedule, epochs):
        last = dropout_factor(dropout, epoch=epochs, epochs=epochs)
        yield Lint(
            code="DROPOUT_SCHEDULE_CUT_SHORT",
            field=f"{_FIELD}.linear",
            message=f"training ends after {epochs} epochs, when the factor on the rates is {last:.3g} and not "
            f"{schedule.end_factor:g}; end the ramp earlier or train longer",
        )


def _idle_curriculum(dropout: Dropout, epochs: int) -> Iterator[Lint]:
    """A curriculum that is over before dropout is felt."""
    last = dropout_factor(dropout, epoch=epochs, epochs=epochs)
    if epochs == 1:
        yield Lint(
            code="DROPOUT_SCHEDULE_WITHOUT_EFFECT",
            field=f"{_FIELD}.curriculum",
            message="a curriculum begins without dropout, and there is a single epoch, so that none ever acts; train "
            "longer",
        )
    elif last < _UNFELT:
        yield Lint(
            code="DROPOUT_SCHEDULE_WITHOUT_EFFECT",
            field=f"{_FIELD}.curriculum.gamma",
            message=f"the factor on the rates rises to {last:.2g} in {epochs} epochs, so that next to nothing is ever "
            "dropped; give a larger gamma, or leave it out for 10 by the number of epochs",
        )


def _ramp_ends(schedule: LinearDropoutSchedule, epochs: int) -> bool:
    return schedule.from_epoch < epochs and (schedule.to_epoch or epochs) <= epochs


def recompilation(subject: Subject) -> Iterator[Lint]:
    """A dropout schedule under torch.compile."""
    dropout, epochs = subject.training.regularization.dropout, subject.training.optimization.epochs
    if dropout is None or dropout.schedule is None or not subject.training.compute.compile:
        return
    versions = _different_rates(dropout, epochs)
    if versions > _MANY:
        yield Lint(
            code="DROPOUT_SCHEDULE_RECOMPILES",
            field="compute.compile",
            message=f"the network is compiled anew for each of the {versions} rates that the dropout schedule comes "
            "to, which may take longer than compiling saves; set compile to false",
        )


def _different_rates(dropout: Dropout, epochs: int) -> int:
    return len({dropout_factor(dropout, epoch=e, epochs=epochs) for e in range(1, epochs + 1)})
