"""Lints about what has no meaning for tokens, or in a transformer."""

from __future__ import annotations

from collections.abc import Iterator

from dropnorm.results import Lint
from dropnorm.spec import layers as spec
from dropnorm_service.training.layers import Attend
from dropnorm_service.training.layers.blueprints.recurrent import Maxout, Recurrent
from dropnorm_service.training.lints.subject import Subject


def regularized_tokens(subject: Subject) -> Iterator[Lint]:
    """Dropout or a norm of input features, where samples are tokens and have none."""
    if subject.dataset.sequences is None:
        return
    dropout, norm = subject.training.regularization.dropout, subject.training.regularization.norm
    fields = ["regularization.dropout.input_rate"] if dropout and dropout.input_rate else []
    fields += [f"regularization.{norm[0]}.input"] if norm and norm[1].input else []
    for field in fields:
        yield Lint(
            code="REGULARIZATION_WITHOUT_EFFECT",
            field=field,
            message="this acts on the features of the input, and tokens have none; embedding_rate drops of what they "
            "are embedded as",
        )


def position_without_activation(subject: Subject) -> Iterator[Lint]:
    """Where a norm stands around an activation, in a network of recurrent layers that has none."""
    kinds = [layer.element.layer for layer in subject.paper.walk()]
    if not any(isinstance(kind, Recurrent) for kind in kinds):
        return
    norm = subject.training.regularization.norm
    if any(isinstance(kind, spec.Activation | Maxout) for kind in kinds) or not norm:
        return
    if norm[1].position != "before_activation":
        yield Lint(
            code="REGULARIZATION_WITHOUT_EFFECT",
            field=f"regularization.{norm[0]}.position",
            message="the norms of this network stand after its recurrent layers, whose activations are inside; leave "
            "the position out",
        )


def order_in_a_branch(subject: Subject) -> Iterator[Lint]:
    """Where a norm stands around an activation, and in which order with dropout, in a transformer."""
    kinds = (layer.element.layer for layer in subject.paper.walk())
    if not any(isinstance(kind, Attend) for kind in kinds):
        return
    regularization = subject.training.regularization
    norm, fields = regularization.norm, []
    if norm and norm[1].position != "before_activation":
        fields.append(f"regularization.{norm[0]}.position")
    if regularization.order != "norm_then_dropout":
        fields.append("regularization.order")
    for field in fields:
        yield Lint(
            code="REGULARIZATION_WITHOUT_EFFECT",
            field=field,
            message="the norms of a transformer stand at its branches and not around activations; norm_position of "
            "the architecture moves them",
        )
