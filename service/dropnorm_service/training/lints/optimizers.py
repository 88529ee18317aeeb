"""Lints about the optimizer: decay and momentum that change nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import SGD, Muon
from dropnorm.spec import layers as spec
from dropnorm_service.training.design import DesignedLayer
from dropnorm_service.training.ends import output_layers
from dropnorm_service.training.layers import Upsampling
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent
from dropnorm_service.training.layers.blueprints.sequences import Embedding, TiedLinear
from dropnorm_service.training.lints.subject import Subject
from dropnorm_service.training.placement import NormLayer

_CODE = "WEIGHT_DECAY_WITHOUT_EFFECT"
_SHARED = "optimization.decay_biases_and_norms"
_NO_MATRICES = (spec.Conv, Upsampling, NormLayer, Embedding, TiedLinear)


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
            yield Lint(code=_CODE, field=_SHARED, message=f"{zero} include; give a weight_decay")
    elif decoupled and isinstance(optimizer, SGD) and optimizer.momentum == 0.0:
        yield Lint(
            code=_CODE,
            field=field,
            message="without momentum, decoupled decay and an L2 penalty are the same step (Loshchilov & Hutter 2017, "
            "proposition 1); give a momentum, or leave decoupled out",
        )


def nothing_else_to_decay(subject: Subject) -> Iterator[Lint]:
    """Weight decay of biases and norms where there are none."""
    optimization = subject.training.optimization
    if (
        optimization.decay_biases_and_norms
        and optimization.optimizer.weight_decay > 0.0
        and not any(_has_vectors(layer) for layer in subject.paper.walk())
    ):
        yield Lint(
            code=_CODE,
            field=_SHARED,
            message="the network has no biases and no norms that learn, so that weights are all that decays; leave it "
            "out",
        )


def _has_vectors(layer: DesignedLayer) -> bool:
    """Whether it learns parameters of one dimension."""
    kind = layer.element.layer
    if isinstance(kind, spec.Linear | spec.Conv | Upsampling):
        return kind.bias
    return isinstance(kind, NormLayer | TiedLinear | Recurrent) and layer.blueprint.parameters > 0


def muon_without_matrices(subject: Subject) -> Iterator[Lint]:
    """Muon in a network that leaves it nothing to move."""
    if not isinstance(subject.training.optimization.optimizer, Muon):
        return
    learned = (layer.element for layer in subject.paper.walk() if layer.blueprint.parameters)
    last = output_layers(subject.paper)
    if all(isinstance(each.layer, _NO_MATRICES) or each.name in last for each in learned):
        yield Lint(
            code="MUON_WITHOUT_MATRICES",
            field="optimization.optimizer.muon",
            message="the network has no hidden linear layers, so that all is moved by AdamW, and momentum and nesterov "
            "have no effect; adamw says the same",
        )
