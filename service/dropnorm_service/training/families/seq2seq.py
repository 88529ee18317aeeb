"""From one sequence to another by the states of long short-term memory (Sutskever et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from dropnorm.spec import Seq2Seq
from dropnorm.spec import layers as spec
from dropnorm_service.training.elements import Element
from dropnorm_service.training.families.recurring import Recurring, RecurringPair
from dropnorm_service.training.layout import Frame, Input, Layout, Part, pairs
from dropnorm_service.training.placement import regularized


class ReversingPair(RecurringPair):
    """Reads the source backwards."""

    reverse_source = True


def seq2seq(settings: Seq2Seq, frame: Frame) -> Layout:
    """Two stacks of LSTM layers: each of the decoder's starts from the state of the encoder's at its depth.

    With widths w of the layers and e of embeddings, the decoder's vocabulary v and the source's s, each stack has
    `4 w (e + w + 1) + 4 w (2 w + 1) (layers - 1)` parameters, embeddings have `(s + v) e`, and the scores `v (w + 1)`:
    384.1 million with 4 layers, widths of 1000, and vocabularies of 160,000 and 80,000, as the paper has it.
    """
    sequences = pairs(frame, "seq2seq")
    layers = Recurring(frame.regularization, "architecture.seq2seq")
    (source,), target, width = frame.input_shape, sequences.target_length - 1, settings.width
    vocabulary, embedded = sequences.target_vocabulary, settings.embedding_width
    *reading, _ = _stack("encoder", settings, layers)
    encoder = [
        *layers.embedding("encoder.embedding", sequences.vocabulary, embedded),
        *(element for layer in reading for element in layer),
        # Of the last layer only its state goes on.
        layers.recurrent(f"encoder.layers.{len(reading)}", "lstm", width, depth=len(reading)),
    ]
    decoder = [
        *layers.embedding("decoder.embedding", vocabulary, embedded),
        *(element for layer in _stack("decoder", settings, layers) for element in layer),
        layers.element("decoder.output.scores", spec.Linear(units=vocabulary)),
        *regularized(frame.regularization, "output", "decoder.output."),
    ]
    network = ReversingPair if settings.reverse_source else RecurringPair
    return Layout(
        parts=(
            Part(tuple(encoder), (source,), (source, width)),
            Part(tuple(decoder), (target,), (target, vocabulary)),
        ),
        inputs=(Input((source,), torch.int64), Input((target,), torch.int64)),
        network=partial(network, target_length=sequences.target_length),
    )


def _stack(part: str, settings: Seq2Seq, layers: Recurring) -> Iterator[list[Element]]:
    for depth in range(settings.layers):
        name = f"{part}.layers.{depth}"
        layer = layers.recurrent(name, "lstm", settings.width, depth=depth)
        yield [layer, *layers.after(name)]
