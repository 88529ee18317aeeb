"""From an architecture to one list of layers, with dropout and batch norm in their places.

Every family is lowered to the same form: an MLP is what a Sequential of linear layers and
activations is. What is done with a network (shapes, cost, lints, modules) is written for that form.
"""

from __future__ import annotations

from dropnorm.spec import TrainingSpec
from dropnorm_service.training.elements import Element, with_following
from dropnorm_service.training.families import FAMILIES, Frame
from dropnorm_service.training.layers import Shape
from dropnorm_service.training.placement import regularized, with_stochastic_depth


def lower(training: TrainingSpec, input_shape: Shape, outputs: int) -> tuple[Element, ...]:
    """The layers of a spec in order of execution, the output layer with `outputs` units among them.

    Flatten elements without a field stand where images become vectors; they mean nothing, and are
    left out of the model, where the data is a vector already.

    Args:
        training: the spec.
        input_shape: shape of one sample, to which image families fit their stem and their pooling.
        outputs: number of classes or regression targets.

    Raises:
        InvalidSpecError: the family does not take such samples.
    """
    architecture, regularization = training.architecture, training.regularization
    frame = Frame(regularization, input_shape, outputs)
    depth_rate = regularization.dropout.stochastic_depth_rate if regularization.dropout else 0.0
    body = with_stochastic_depth(FAMILIES[architecture.kind](architecture, frame), depth_rate)
    first = regularized(regularization, "input", "input.")
    last = regularized(regularization, "output", "output.")
    return with_following((*first, *body, *last))
