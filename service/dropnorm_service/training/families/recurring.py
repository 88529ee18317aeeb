"""What recurrent encoder-decoders are written with, and the network that they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dropnorm.spec import Regularization
from dropnorm.spec import layers as spec
from dropnorm_service.training.data.tokens import PAD
from dropnorm_service.training.decoding import EncoderDecoder
from dropnorm_service.training.elements import Element
from dropnorm_service.training.layers import Context, InnerLayer, pass_on
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent
from dropnorm_service.training.layers.blueprints.sequences import Embedding
from dropnorm_service.training.placement import dropout_at, recurrent_rate, regularized

EMBEDDING_STD = 1.0
"""Standard deviation of embeddings at the start: torch's own."""


@dataclass(frozen=True)
class Recurring:
    """The layers of a recurrent network.

    Attributes:
        regularization: of the spec.
        path: of the architecture in the spec.
    """

    regularization: Regularization
    path: str

    def embedding(self, name: str, tokens: int, width: int) -> list[Element]:
        """A vector for each token, with its dropout."""
        layer = Embedding(tokens, width, std=EMBEDDING_STD)
        dropout = dropout_at(self.regularization.dropout, "embedding_rate", f"{name}.")
        return [self.element(f"{name}.tokens", layer), *dropout]

    def recurrent(
        self, name: str, cell: Literal["lstm", "gru"], units: int, *, depth: int, summary: int = 0
    ) -> Element:
        """A recurrent layer."""
        rate, field = recurrent_rate(self.regularization.dropout)
        layer = Recurrent(cell, units, depth=depth, summary=summary, rate=rate)
        return replace(self.element(f"{name}.{cell}", layer), rate_field=field)

    def after(self, name: str, activation: Element | None = None) -> list[Element]:
        """Norm and dropout, of what another layer takes in."""
        return regularized(self.regularization, "hidden", f"{name}.", activation)

    def element(self, name: str, layer: spec.Layer | InnerLayer) -> Element:
        """A layer that the architecture asks for."""
        return Element(name, layer, self.path)


def padded_in_front(tokens: Tensor) -> Tensor:
    """Sequences with their padding moved from behind their last token to before their first, `[batch, length]`."""
    length = tokens.shape[1]
    padding = (tokens == PAD).sum(dim=1, keepdim=True)
    places = torch.arange(length, device=tokens.device) - padding
    return tokens.gather(1, places % length)


class RecurringPair(EncoderDecoder):
    """Encoder and decoder of recurrent layers: the decoder goes on from the states that the encoder leaves."""

    reverse_source = False

    def encode(self, source: Tensor) -> Context:
        source = source.flip(1) if self.reverse_source else padded_in_front(source)
        context = Context(padding=source == PAD)
        last = pass_on(self.encoder, source, context)
        return self.summed_up(last, context)

    def summed_up(self, last: Tensor, context: Context) -> Context:
        """What the decoder begins with, of what the encoder leaves and the context it leaves it in."""
        return Context(states=context.states)

    def decode(self, given: Tensor, context: Context) -> Tensor:
        return self._told(given, context)[0]

    def step(self, last: Tensor, context: Context) -> tuple[Tensor, Context]:
        scores, context = self._told(last, context)
        return scores[:, -1], replace(context, padding=None)

    def _told(self, given: Tensor, context: Context) -> tuple[Tensor, Context]:
        # The layers leave their states in the context: the one that was given stays as it is.
        context = replace(context, padding=given == PAD, states=dict(context.states))
        return pass_on(self.decoder, given, context), context
