"""BERT (Devlin et al. 2018): an encoder, and the head that its data asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dropnorm.results import SequenceSummary
from dropnorm.spec import BERT, InvalidSpecError, Problem
from dropnorm.spec import layers as spec
from dropnorm_service.training.data.tokens import EOS, PAD
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.attending import EMBEDDING_STD, Attending
from dropnorm_service.training.layers import Context, pass_on
from dropnorm_service.training.layers.blueprints.sequences import (
    Embedding,
    FirstToken,
    LearnedPositions,
    Segments,
    TiedLinear,
)
from dropnorm_service.training.layout import Frame, Input, Layout, Part
from dropnorm_service.training.masking import chosen_of
from dropnorm_service.training.network import Network
from dropnorm_service.training.placement import regularized, with_stochastic_depth

_PATH = "architecture.bert"


def bert(settings: BERT, frame: Frame) -> Layout:
    """The encoder, with a head that restores hidden tokens or, where samples have labels, one that tells them.

    With a vocabulary of 30,522 the encoder and the pooler have 109,482,240 parameters. The head that restores is
    run over the chosen tokens alone, which is what its share of the FLOPs is.
    """
    sequences = _fitting(settings, frame)
    (length,), width = frame.input_shape, settings.width
    layers = Attending(
        frame.regularization,
        _PATH,
        width=width,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        activation=settings.activation,
        norm_position=settings.norm_position,
    )
    encoder = Part(tuple(_encoder(settings, layers, sequences)), frame.input_shape, (length, width))
    ids = Input(frame.input_shape, torch.int64)
    if frame.outputs:
        head = Part(tuple(_classifier(layers, frame)), (length, width), (frame.outputs,))
        return Layout((encoder, head), (ids,), TokenEncoder)
    chosen = chosen_of(length)
    vocabulary = sequences.vocabulary
    head = Part(tuple(_predictor(layers, frame, vocabulary)), (chosen, width), (chosen, vocabulary))
    return Layout((encoder, head), (ids, Input((chosen,), torch.int64)), TokenEncoder)


def _fitting(settings: BERT, frame: Frame) -> SequenceSummary:
    sequences = frame.sequences
    assert sequences is not None  # whoever takes tokens has been given some
    if sequences.target_length:
        text = (
            "bert reads one sequence and the data has pairs of them; choose transformer, or a text"
        )
        raise InvalidSpecError([Problem(_PATH, text)])
    [length] = frame.input_shape
    if length > settings.max_length:
        text = f"the data has sequences of {length} tokens; give at least as many"
        raise InvalidSpecError([Problem(f"{_PATH}.max_length", text)])
    return sequences


def _encoder(settings: BERT, layers: Attending, sequences: SequenceSummary) -> list[Element]:
    width, std = settings.width, EMBEDDING_STD
    total, *dropout = layers.embedding(
        "encoder.embedding",
        {
            "tokens": Embedding(sequences.vocabulary, width, std),
            "positions": LearnedPositions(settings.max_length, width, std),
            "segments": Segments(settings.segments, width, EOS, std),
        },
    )
    stack = [
        element
        for index in range(settings.layers)
        for element in layers.encoder_layer(f"encoder.layers.{index}")
    ]
    rates = layers.regularization.dropout
    stack = list(with_stochastic_depth(stack, rates.stochastic_depth_rate if rates else 0.0))
    # Under pre-norm the first layer norms the embedding itself, and nothing norms what the last one leaves.
    pre = settings.norm_position == "pre"
    before, after = ([], layers.norm("encoder")) if pre else (layers.norm("encoder.embedding"), [])
    return [total, *before, *dropout, *stack, *after]


def _classifier(layers: Attending, frame: Frame) -> list[Element]:
    """The pooler, `tanh(W h + b)` of the first token, and the output layer (Devlin et al. 2018, section 4.1)."""
    bare = frame.regularization.without_norm()
    tanh = Element("head.pooler.activation", spec.Activation(function="tanh"), _PATH)
    return [
        Element("head.pooler.first", FirstToken(), _PATH),
        layers.linear("head.pooler", layers.width),
        *regularized(bare, "hidden", "head.pooler.", tanh),
        Element("head.output.linear", spec.Linear(units=frame.outputs)),
        *regularized(frame.regularization, "output", "head.output."),
    ]


def _predictor(layers: Attending, frame: Frame, vocabulary: int) -> list[Element]:
    """A layer of each token's own, and scores by the embedding."""
    activation = Element(
        "head.transform.activation", spec.Activation(function=layers.activation), _PATH
    )
    return [
        layers.linear("head.transform", layers.width),
        activation,
        *layers.norm("head.transform"),
        Element("head.output.tied", TiedLinear(vocabulary)),
        *regularized(frame.regularization, "output", "head.output."),
    ]


class TokenEncoder(Network):
    """int64 `[batch, length]` -> `[batch, outputs]`, or scores of every token `[batch, length, vocabulary]`.

    Args:
        modules: `encoder` and `head`.
        fields: see `Network`.
    """

    def __init__(self, modules: nn.Sequential, fields: Mapping[str, str]) -> None:
        super().__init__()
        self.encoder = modules.get_submodule("encoder")
        self.head = modules.get_submodule("head")
        self.fields = dict(fields)

    def forward(self, tokens: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Run the head over all tokens, or over those at the places `chosen`, int64 `[batch, count]`."""
        embedding = self.encoder.get_submodule("embedding.sum.tokens").get_parameter("weight")
        context = Context(padding=tokens == PAD, embedding=embedding)
        states = pass_on(self.encoder, tokens, context)
        if chosen is not None:
            states = states.gather(1, chosen.unsqueeze(2).expand(-1, -1, states.shape[2]))
            context = replace(context, padding=tokens.gather(1, chosen) == PAD)
        return pass_on(self.head, states, context)
