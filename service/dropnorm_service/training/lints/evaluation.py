"""Lints about measurements that can only come out one way."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm_service.training.lints.flow import drops
from dropnorm_service.training.lints.subject import Subject

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
