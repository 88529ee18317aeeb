"""Recurrent networks from one sequence of tokens to another. They take pairs of sequences, whose vocabularies the data
set brings.

`regularization` acts in both alike. Dropout acts on the embedded tokens (`embedding_rate`), after each recurrent layer
that another layer follows (`rate`), and on what a recurrent layer takes from its last step (`recurrent_rate`); under
the method `spatial` each mask stays the same over time, which is variational dropout (Gal & Ghahramani 2016). A norm
stands after each recurrent layer that another layer follows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Int, SpecModel, Width


class Seq2Seq(SpecModel):
    """An LSTM that reads a sequence and one that tells another from the states it leaves (Sutskever et al. 2014)."""

    kind: Literal["seq2seq"] = "seq2seq"
    layers: Annotated[Int, Field(ge=1, le=128)] = 4
    """Recurrent layers of the encoder and as many of the decoder, 1 to 128."""
    width: Width = 1000
    """Units of each recurrent layer, 1 to 1,048,576."""
    embedding_width: Width = 1000
    """Features of an embedded token, 1 to 1,048,576."""
    reverse_source: Bool = True
    """Read the source backwards, so that its beginning is near the target's."""


class RNNEncoderDecoder(SpecModel):
    """A gated recurrent unit that sums a sequence up in one vector, and another that tells a sequence from it, looking
    at the vector in each step (Cho et al. 2014).

    Its scores come of the state, the last token and the vector by a layer of maxout units and a linear map of rank
    `embedding_width`, as in the paper's appendix. With w its width, e that of embeddings, m maxout units, and s and v
    tokens of source and target it has `(s + v) e + 3 w (e + w + 1) + 2 w (w + 1) + 3 w (e + 2 w + 1) + 2 m (2 w + e +
    1) + m e + v (e + 1)` parameters.
    """

    kind: Literal["rnn_encoder_decoder"] = "rnn_encoder_decoder"
    width: Width = 1000
    """Units of the encoder, of the decoder and of the vector between them, 1 to 1,048,576."""
    embedding_width: Width = 100
    """Features of an embedded token, 1 to 1,048,576."""
    maxout_units: Width = 500
    """Maxout units before the scores, each the larger of two linear ones, 1 to 1,048,576."""
