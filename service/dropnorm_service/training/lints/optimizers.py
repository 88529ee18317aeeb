"""Lints about the optimizer: decay and momentum that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import SGD
from dropnorm_service.training.lints.subject import Subject

_CODE = "WEIGHT_DECAY_WITHOUT_EFFECT"


def idle_decay(subject: Subject) -> Iterator[Lint]:
    """Settings of a weight decay that is 0, or that is the same either way."""
    optimization = subject.training.optimization
    optimizer = optimization.optimizer
    decoupled = getattr(optimizer, "decoupled", False)
    field = f"optimization.optimizer.{optimizer.kind}.decoupled"
    if optimizer.weight_decay == 0.0:
        zero = f"the weight_decay of {optimizer.kind} is 0, so there is nothing to"
        if decoupled:
            yield Lint(code=_CODE, field=field, message=f"{zero} decouple; give a weight_decay")
        if optimization.decay_biases_and_norms:
            field = "optimization.decay_biases_and_norms"
            yield Lint(code=_CODE, field=field, message=f"{zero} include; give a weight_decay")
    elif decoupled and isinstance(optimizer, SGD) and optimizer.momentum == 0.0:
        yield Lint(
            code=_CODE,
            field=field,
            message="without momentum, decoupled decay and an L2 penalty are the same step (Loshchilov & Hutter 2017, "
            "proposition 1); give a momentum, or leave decoupled out",
        )
