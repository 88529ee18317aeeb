"""From one sequence to another by way of one vector, with gated recurrent units (Cho et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from dropnorm.spec import RNNEncoderDecoder
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element, Meet, Way
from dropnorm_service.training.families.recurring import Recurring, RecurringPair
from dropnorm_service.training.layers import Context, pass_on
from dropnorm_service.training.layers.blueprints.recurrent import LastToken, Maxout, Summary
from dropnorm_service.training.layout import Frame, Input, Layout, Part, check_width, pairs
from dropnorm_service.training.placement import regularized


def rnn_encoder_decoder(settings: RNNEncoderDecoder, frame: Frame) -> Layout:
    """A vector `c = tanh(V h)` of the encoder's last state h, and a decoder that starts from `tanh(V' c)`.

    Each step of the decoder takes the last token y and c. Its scores are `G s` of maxout units s, each the larger of
    two of `O_h h + O_y y + O_c c`, with G a product of two matrices (appendix A). With widths w of the units and e of
    embeddings, m maxout units, and vocabularies s and v of source and target, there are

    | part              | parameters              |
    |-------------------|-------------------------|
    | embeddings        | `(s + v) e`             |
    | encoder           | `3 w (e + w + 1)`       |
    | c, and from it h' | `2 w (w + 1)`           |
    | decoder           | `3 w (e + 2 w + 1)`     |
    | maxout            | `2 m (2 w + e + 1)`     |
    | scores            | `m e + v (e + 1)`       |

    A bias each for gates, maxout and scores, which the paper leaves out for brevity.
    """
    kind = "rnn_encoder_decoder"
    check_width(2 * settings.maxout_units, f"architecture.{kind}.maxout_units")
    sequences = pairs(frame, kind)
    layers = Recurring(frame.regularization, f"architecture.{kind}")
    (source,), target, width = frame.input_shape, sequences.target_length - 1, settings.width
    vocabulary, embedded = sequences.target_vocabulary, settings.embedding_width
    encoder = [
        *layers.embedding("encoder.embedding", sequences.vocabulary, embedded),
        layers.recurrent("encoder", "gru", width, depth=0),
        layers.element("encoder.last", LastToken()),
        *_vector(layers, "encoder.summary", width),
        *layers.after("encoder.summary"),
    ]
    decoder = [
        *layers.embedding("decoder.embedding", vocabulary, embedded),
        _maxout_inputs(settings, layers),
        *layers.after("decoder.maxout", layers.element("decoder.maxout.larger", Maxout())),
        layers.element("decoder.output.rank", spec.Linear(units=embedded, bias=False)),
        layers.element("decoder.output.scores", spec.Linear(units=vocabulary)),
        *regularized(frame.regularization, "output", "decoder.output."),
    ]
    return Layout(
        parts=(
            Part(tuple(encoder), (source,), (width,)),
            Part(tuple(_vector(layers, "start", width)), (width,), (width,)),
            Part(tuple(decoder), (target,), (target, vocabulary)),
        ),
        inputs=(Input((source,), torch.int64), Input((target,), torch.int64)),
        network=partial(SummingPair, target_length=sequences.target_length),
    )


def _vector(layers: Recurring, name: str, width: int) -> list[Element]:
    return [
        layers.element(f"{name}.linear", spec.Linear(units=width)),
        layers.element(f"{name}.activation", spec.Activation(function="tanh")),
    ]


def _maxout_inputs(settings: RNNEncoderDecoder, layers: Recurring) -> Element:
    """The sum of what state, last token and vector come to."""
    block, width, pieces = "decoder.sum", settings.width, 2 * settings.maxout_units
    state, token, vector = (f"{block}.{name}" for name in ("state", "token", "vector"))
    ways = (
        Way(
            "state",
            (
                layers.recurrent(state, "gru", width, depth=0, summary=width),
                *layers.after(state),
                layers.element(f"{state}.linear", spec.Linear(units=pieces)),
            ),
        ),
        Way("token", (layers.element(token, spec.Linear(units=pieces, bias=False)),)),
        Way(
            "vector",
            (
                layers.element(f"{vector}.summary", Summary(width)),
                layers.element(f"{vector}.linear", spec.Linear(units=pieces, bias=False)),
            ),
        ),
    )
    return Element(block, Meet("add"), layers.path, ways)


class SummingPair(RecurringPair):
    """The decoder has one vector of the source, its memory, from which its first state is made too."""

    def __init__(
        self, modules: nn.Sequential, fields: Mapping[str, str], *, target_length: int
    ) -> None:
        super().__init__(modules, fields, target_length=target_length)
        self.start = modules.get_submodule("start")

    def summed_up(self, last: Tensor, context: Context) -> Context:
        return Context(memory=last.unsqueeze(1), states={0: (pass_on(self.start, last, None),)})
