"""Networks of attention (Vaswani et al. 2017). They take sequences of tokens, whose vocabulary the data set brings.

`regularization` acts in both alike. Its norm stands at every residual branch, at `norm_position`; where it has none
these are layer norms, so that another is compared by naming it, and `hidden: false` leaves them out. Dropout acts on
the embedded tokens (`embedding_rate`), on attention's weights (`attention_rate`), after the activation of each
feed-forward branch (`rate`) and at the end of each branch (`residual_rate`), which is dropped as a whole by
`stochastic_depth_rate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Int, Problem, SpecModel, Width
from dropnorm.spec.layers import ActivationFunction

Depth = Annotated[Int, Field(ge=1, le=128)]
Heads = Annotated[Int, Field(ge=1, le=1024)]
Length = Annotated[Int, Field(ge=1, le=2**20)]


def _heads_of(width: int, heads: int) -> Iterator[Problem]:
    if width % heads:
        yield Problem("heads", f"{heads} heads do not divide a width of {width}; give a divisor")


class Transformer(SpecModel):
    """An encoder and a decoder of attention (Vaswani et al. 2017), from one sequence of tokens to another.

    Embeddings are multiplied by the root of the width. The norm is the regularization's, absent: layer norm.
    """

    kind: Literal["transformer"] = "transformer"
    width: Width = 512
    """Features of a token, 1 to 1,048,576."""
    heads: Heads = 8
    """Heads of each attention, 1 to 1024; they divide the width."""
    encoder_layers: Depth = 6
    """Layers of the encoder, 1 to 128."""
    decoder_layers: Depth = 6
    """Layers of the decoder, 1 to 128."""
    feed_forward: Width = 2048
    """Width inside the feed-forward branches, 1 to 1,048,576."""
    activation: ActivationFunction = "relu"
    """The non-linearity of the feed-forward branches."""
    norm_position: Literal["pre", "post"] = "post"
    """Where each residual branch is normalised: `post`, its sum with the input (Vaswani et al. 2017); `pre`, what
    enters the branch (Xiong et al. 2020), which trains without warm-up too."""
    final_norms: Bool = True
    """Normalise what encoder and decoder leave."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """How a token knows its place: sines and cosines, or a learned vector for each place."""
    tied_output: Bool = True
    """Score the output's tokens by the vectors that the decoder embeds them with."""

    def _rules(self) -> Iterator[Problem]:
        yield from _heads_of(self.width, self.heads)


class BERT(SpecModel):
    """The encoder of a transformer that sees both sides of each token (Devlin et al. 2018).

    On a text it learns to restore hidden tokens: of each sequence 15 % are chosen, of which 80 % become the mask, 10 %
    another token and 10 % stay; the prediction head shares the embedding's weights. On labelled sequences a pooler and
    a linear layer take the first token. The norm is the regularization's, absent: layer norm.
    """

    kind: Literal["bert"] = "bert"
    width: Width = 768
    """Features of a token, 1 to 1,048,576."""
    heads: Heads = 12
    """Heads of each attention, 1 to 1024; they divide the width."""
    layers: Depth = 12
    """Layers, 1 to 128."""
    feed_forward: Width = 3072
    """Width inside the feed-forward branches, 1 to 1,048,576."""
    max_length: Length = 512
    """Tokens at most, 1 to 1,048,576: each place has a learned vector."""
    segments: Annotated[Int, Field(ge=1, le=1024)] = 2
    """Parts of the input that are told apart by a learned vector, 1 to 1024; each but the last ends with the token
    that ends a sequence."""
    activation: ActivationFunction = "gelu"
    """The non-linearity of the feed-forward branches and of the prediction head."""
    norm_position: Literal["pre", "post"] = "post"
    """Where each residual branch is normalised: `post`, its sum with the input (Devlin et al. 2018); `pre`, what enters
    the branch, with a norm after the last layer."""

    def _rules(self) -> Iterator[Problem]:
        yield from _heads_of(self.width, self.heads)
