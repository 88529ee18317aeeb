"""From a spec to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from dropnorm.results import SequenceSummary
from dropnorm.spec import Initialization, TrainingSpec
from dropnorm_service.training.design import Design, design
from dropnorm_service.training.ends import output_layers
from dropnorm_service.training.initialization import (
    initialize,
    initialize_embedding,
    initialize_recurrent,
)
from dropnorm_service.training.layers import Shape, nest, nonlinearity
from dropnorm_service.training.layers.recurrent import Recurrent
from dropnorm_service.training.network import Network


def build_model(
    training: TrainingSpec,
    input_shape: Shape,
    outputs: int,
    sequences: SequenceSummary | None = None,
) -> Network:
    """The model of a spec for samples of `input_shape`: `(F,)` or `(C, H, W)`, float32, or tokens.

    It is built on torch's default device; under `torch.device("meta")` it takes no memory. Weights
    are drawn from torch's global generator, first by every module in order, as torch's own modules
    do, then, unless the scheme is `default`, anew by the scheme in the same order. Dropout and
    batch norm draw nothing, so layers of the same shape start alike with and without them.

    Args:
        training: the spec; its seed is for the caller to set, `torch.manual_seed(training.seed)`.
        input_shape: shape of one sample.
        outputs: number of classes or regression targets.
        sequences: what is known of tokens, where samples are made of them.

    Raises:
        InvalidSpecError: the layers do not fit each other or the data; the layer's field is named.
    """
    return model_of(design(training, input_shape, outputs, sequences), training.initialization)


def model_of(
    paper: Design, initialization: Initialization, between_layers: Callable[[], None] = lambda: None
) -> Network:
    """The model of a network that is laid out already; see `build_model`.

    `between_layers` is called before each layer is made and before it is drawn; what it raises ends the building.
    """

    def made() -> Iterator[tuple[str, nn.Module]]:
        for layer in paper.layers:
            between_layers()
            yield layer.element.name, layer.blueprint.make()

    modules = nest(made())
    fields = {layer.element.name: layer.element.field for layer in paper.walk()}
    network = paper.layout.network(modules, fields)
    network.output_layers = output_layers(paper)
    for layer in paper.walk():
        between_layers()
        module, following = network.get_submodule(layer.element.name), layer.element.following
        if isinstance(module, nn.Embedding):
            initialize_embedding(module, initialization)
        elif isinstance(module, Recurrent):
            initialize_recurrent(module, initialization)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            gain = nonlinearity(following).gain if following else 1.0
            initialize(module, initialization, gain)
        if layer.element.zero:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    return network
