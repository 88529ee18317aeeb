"""The transformer (Vaswani et al. 2017): from one sequence of tokens to another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import sqrt

import torch
from torch import Tensor

from dropnorm.spec import Transformer
from dropnorm.spec import layers as spec
from dropnorm_service.training.data.tokens import PAD
from dropnorm_service.training.decoding import EncoderDecoder
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.attending import EMBEDDING_STD, Attending
from dropnorm_service.training.layers import Context, InnerLayer, pass_on
from dropnorm_service.training.layers.blueprints.sequences import (
    Embedding,
    LearnedPositions,
    Memory,
    SinusoidalPositions,
    TiedLinear,
)
from dropnorm_service.training.layout import Frame, Input, Layout, Part, pairs
from dropnorm_service.training.placement import regularized, with_stochastic_depth

_PATH = "architecture.transformer"


def transformer(settings: Transformer, frame: Frame) -> Layout:
    """An encoder of the source, and a decoder that tells each token of the target from those before it.

    44,140,544 parameters at the paper's widths with final norms, without embeddings and the scores of tokens. The
    decoder reads a target without its last token.
    """
    sequences = pairs(frame, "transformer")
    (source,), width = frame.input_shape, settings.width
    target = sequences.target_length - 1
    layers = Attending(
        frame.regularization,
        _PATH,
        width=width,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        activation=settings.activation,
        norm_position=settings.norm_position,
    )
    encoder, decoder = _stacks(settings, layers, Memory(source, width))
    vocabulary = sequences.target_vocabulary
    scores: spec.Layer | InnerLayer = (
        TiedLinear(vocabulary) if settings.tied_output else spec.Linear(units=vocabulary)
    )
    final = settings.final_norms
    reading = [
        *_embedded(settings, layers, "encoder", sequences.vocabulary, source),
        *encoder,
        *(layers.norm("encoder") if final else ()),
    ]
    writing = [
        *_embedded(settings, layers, "decoder", vocabulary, target),
        *decoder,
        *(layers.norm("decoder") if final else ()),
        Element("decoder.output.scores", scores),
        *regularized(frame.regularization, "output", "decoder.output."),
    ]
    return Layout(
        parts=(
            Part(tuple(reading), (source,), (source, width)),
            Part(tuple(writing), (target,), (target, vocabulary)),
        ),
        inputs=(Input((source,), torch.int64), Input((target,), torch.int64)),
        network=partial(AttendingPair, target_length=sequences.target_length),
    )


def _stacks(
    settings: Transformer, layers: Attending, memory: Memory
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """The layers of encoder and decoder; a rate of stochastic depth rises over both."""
    encoder = [
        element
        for index in range(settings.encoder_layers)
        for element in layers.encoder_layer(f"encoder.layers.{index}")
    ]
    decoder = [
        element
        for index in range(settings.decoder_layers)
        for element in layers.decoder_layer(f"decoder.layers.{index}", memory)
    ]
    rates = layers.regularization.dropout
    depth = rates.stochastic_depth_rate if rates else 0.0
    both = with_stochastic_depth([*encoder, *decoder], depth)
    return both[: len(encoder)], both[len(encoder) :]


def _embedded(
    settings: Transformer, layers: Attending, part: str, vocabulary: int, length: int
) -> list[Element]:
    """Embeddings times the root of the width, of variance 1 then, and positions (sections 3.4 and 3.5)."""
    width = settings.width
    scale = sqrt(width)
    positions: InnerLayer = SinusoidalPositions(length, width)
    if settings.positions == "learned":
        positions = LearnedPositions(length, width, EMBEDDING_STD)
    tokens = Embedding(vocabulary, width, std=1.0 / scale, scale=scale)
    return layers.embedding(f"{part}.embedding", {"tokens": tokens, "positions": positions})


class AttendingPair(EncoderDecoder):
    """Encoder and decoder of a transformer: the decoder looks at all that the encoder leaves."""

    def encode(self, source: Tensor) -> Context:
        padding = source == PAD
        memory = pass_on(self.encoder, source, Context(padding=padding))
        return Context(memory=memory, memory_padding=padding)

    def decode(self, given: Tensor, context: Context) -> Tensor:
        embedding = self.decoder.get_submodule("embedding.sum.tokens").get_parameter("weight")
        whole = replace(context, padding=given == PAD, embedding=embedding)
        return pass_on(self.decoder, given, whole)
