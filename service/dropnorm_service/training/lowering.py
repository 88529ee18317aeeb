"""From an architecture to one list of layers, with dropout and batch norm in their places.

Every family is lowered to the same form: an MLP is what a Sequential of linear layers and
activations is. What is done with a network (shapes, cost, lints, modules) is written for that form.
"""

from __future__ import annotations

from dataclasses import replace

from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm_service.training.elements import with_following
from dropnorm_service.training.families import COMPOSITES, FAMILIES, TAKES_TOKENS
from dropnorm_service.training.layout import Frame, Input, Layout, Part
from dropnorm_service.training.placement import regularized, with_dropconnect, with_stochastic_depth


def lower(training: TrainingSpec, frame: Frame) -> Layout:
    """The layers of a spec, of a feed-forward network with its output layer of `frame.outputs` units.

    Flatten elements without a field stand where images become vectors; they mean nothing, and are
    left out of the model, where the data is a vector already.

    Raises:
        InvalidSpecError: the architecture does not take such samples.
    """
    architecture = training.architecture
    _check_tokens(architecture.kind, frame)
    regularization = frame.regularization
    weights_rate = regularization.dropout.dropconnect_rate if regularization.dropout else 0.0
    if architecture.kind in COMPOSITES:
        layout = COMPOSITES[architecture.kind](architecture, frame)
        parts = (
            replace(part, elements=with_dropconnect(with_following(part.elements), weights_rate))
            for part in layout.parts
        )
        return replace(layout, parts=tuple(parts))
    depth_rate = regularization.dropout.stochastic_depth_rate if regularization.dropout else 0.0
    body = with_stochastic_depth(FAMILIES[architecture.kind](architecture, frame), depth_rate)
    first = regularized(regularization, "input", "input.")
    last = regularized(regularization, "output", "output.")
    elements = with_dropconnect(with_following((*first, *body, *last)), weights_rate)
    return Layout(
        (Part(elements, frame.input_shape, (frame.outputs,)),), (Input(frame.input_shape),)
    )


def _check_tokens(kind: str, frame: Frame) -> None:
    if (kind in TAKES_TOKENS) == (frame.sequences is not None):
        return
    takes, has = ("tokens", "numbers") if kind in TAKES_TOKENS else ("numbers", "tokens")
    text = (
        f"{kind} takes {takes} and the samples of this data set are {has}; choose another "
        "architecture, or another data set"
    )
    raise InvalidSpecError([Problem(f"architecture.{kind}", text)])
