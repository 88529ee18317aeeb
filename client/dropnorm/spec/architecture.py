"""Which network: the families a TrainingSpec can name. The output layer is sized by the data, not by the spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Problem, SpecModel, Width
from dropnorm.spec.families import VGG, AlexNet, DenseNet, GoogLeNet, ResNet
from dropnorm.spec.generative import GAN, VAE
from dropnorm.spec.layers import MAX_LAYERS, MAX_NESTING, ActivationFunction, Layer, walk
from dropnorm.spec.recurrent import RNNEncoderDecoder, Seq2Seq
from dropnorm.spec.transformers import BERT, Transformer


class MLP(SpecModel):
    """A multilayer perceptron: hidden layers of `linear, activation`, then a linear output layer.

    Images are flattened. `regularization` places its dropout and batch norm around each activation.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], Field(max_length=MAX_LAYERS)]
    """Width of each hidden layer, 1 to 1,048,576 each, at most 512 of them; empty: a linear model."""
    activation: ActivationFunction = "relu"
    """The non-linearity after each hidden layer."""
    bias: Bool = True
    """Learn biases in every linear layer."""


class Sequential(SpecModel):
    """A list of layers, for any feed-forward or convolutional network.

    Unless `output_layer` is false, the service flattens what the list leaves and appends a linear layer with one
    output per class or target, so that one list serves every data set. `regularization` places its dropout and batch
    norm around each `activation`, and at the input and output of the list.
    """

    kind: Literal["sequential"] = "sequential"
    layers: Annotated[
        tuple[Layer, ...], Field(max_length=MAX_LAYERS, json_schema_extra={"minItems": 1})
    ]
    """The layers in order, 1 to 512; nested ones count."""
    output_layer: Bool = True
    """Append the output layer; when false the last layer itself must have one output per class or target."""

    def _rules(self) -> Iterator[Problem]:
        if not self.layers:
            yield Problem("layers", "give at least one layer")
            return
        paths = [path for path, _ in walk(self.layers)]
        if len(paths) > MAX_LAYERS:
            yield Problem(
                "layers", f"at most {MAX_LAYERS} layers, nested ones counted, not {len(paths)}"
            )
        deepest = max(paths, key=lambda path: path.count(".residual"))
        if deepest.count(".residual") > MAX_NESTING:
            yield Problem(deepest, f"residual blocks nest at most {MAX_NESTING} deep")


Architecture = Annotated[
    MLP
    | Sequential
    | AlexNet
    | VGG
    | GoogLeNet
    | ResNet
    | DenseNet
    | VAE
    | GAN
    | Transformer
    | BERT
    | Seq2Seq
    | RNNEncoderDecoder,
    Field(discriminator="kind"),
]
