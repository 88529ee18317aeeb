"""Every family that takes tokens: its plan, its training, what padding and regularization do to it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from tests.service.training import made
from tests.service.training.test_fit import numbers
from torch import nn

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary
from dropnorm_service.training import (
    SplitData,
    build_model,
    fit,
    plan,
)
from dropnorm_service.training.data import Dataset, summarize
from dropnorm_service.training.data.tokens import PAD
from dropnorm_service.training.design import design
from dropnorm_service.training.families import TAKES_TOKENS
from dropnorm_service.training.layers import Dropout
from dropnorm_service.training.network import Network


class Case(NamedTuple):
    """A small network and data for it."""

    architecture: dn.Architecture
    dataset: Dataset


_BERT = dn.BERT(width=16, heads=2, layers=1, feed_forward=24, max_length=20)
_TRANSFORMER = dn.Transformer(
    width=16, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=24, norm_position="pre"
)
SMALL: dict[str, Case] = {
    "bert": Case(_BERT, made.text()),
    "bert, labelled": Case(_BERT, made.text(labelled=True)),
    "transformer": Case(_TRANSFORMER, made.pairs()),
    "seq2seq": Case(dn.Seq2Seq(layers=2, width=16, embedding_width=8), made.pairs()),
    "rnn_encoder_decoder": Case(
        dn.RNNEncoderDecoder(width=16, embedding_width=8, maxout_units=12), made.pairs()
    ),
}
BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.1), batch_norm=dn.BatchNorm())


def asked(
    name: str, regularization: dn.Regularization | None = None, epochs: int = 2
) -> dn.TrainingSpec:
    return dn.TrainingSpec(
        architecture=SMALL[name].architecture,
        regularization=regularization or dn.Regularization(),
        optimization=dn.Optimization(optimizer=dn.Adam(lr=5e-3), epochs=epochs, batch_size=32),
        data=dn.Data(dataset="made"),
    )


def data_of(name: str, training: dn.TrainingSpec) -> SplitData:
    return made.split_of(training, SMALL[name].dataset)


def network(training: dn.TrainingSpec, facts: DatasetSummary) -> Network:
    torch.manual_seed(1)
    return build_model(training, facts.input_shape, facts.outputs, facts.sequences).eval()


def test_every_family_that_takes_tokens_is_here() -> None:
    assert {case.architecture.kind for case in SMALL.values()} == TAKES_TOKENS


@pytest.mark.parametrize("name", SMALL)
def test_a_plan_is_true(name: str) -> None:
    training = asked(name, BOTH)
    facts = summarize(training, SMALL[name].dataset.info)
    paper = design(training, facts.input_shape, facts.outputs, facts.sequences)
    model = network(training, facts)
    assert sum(each.numel() for each in model.parameters()) == paper.parameters
    assert plan(training, facts).parameters == paper.parameters
    ends = model(*paper.example(3))
    assert ends.shape == (3, *paper.layout.parts[-1].output_shape)
    assert set(model.fields) <= {layer.element.name for layer in paper.walk()}


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_and_repeats(name: str) -> None:
    training = asked(name, BOTH, epochs=8)
    data = data_of(name, training)
    first, second = (fit(training, data) for _ in range(2))
    assert numbers(first) == numbers(second)
    history = first.evaluation.history
    assert history[-1].train_loss < 0.9 * history[0].train_loss


@pytest.mark.parametrize("name", SMALL)
def test_padding_of_the_input_changes_nothing(name: str) -> None:
    """Neither in evaluation nor, batch norm included, in training."""
    case = SMALL[name]
    training = asked(name, dn.Regularization(batch_norm=dn.BatchNorm()))
    model = network(training, summarize(training, case.dataset.info))
    tensors = case.dataset.tensors
    lengths = (tensors["x"] != PAD).sum(dim=1)
    length = int(lengths.median())
    short = lengths <= length
    x, y = tensors["x"][short], tensors["y"][short]
    given = (y[:, :-1],) if case.dataset.info.target_length else ()
    there = x[:, :length] != PAD
    if given or case.dataset.info.outputs:
        there = given[0] != PAD if given else torch.ones(len(x), dtype=torch.bool)
    for mode in (model.eval(), model.train()):
        cut, whole = mode(x[:, :length], *given), mode(x, *given)
        torch.testing.assert_close(whole[:, : cut.shape[1]][there], cut[there])


@pytest.mark.parametrize("name", SMALL)
def test_the_same_regularization_acts_in_every_family(name: str) -> None:
    dropout = dn.Dropout(rate=0.25, method="spatial")
    regularization = dn.Regularization(dropout=dropout, rms_norm=dn.RMSNorm())
    facts = summarize(asked(name), SMALL[name].dataset.info)
    bare, model = network(asked(name), facts), network(asked(name, regularization), facts)
    assert not [each for each in bare.modules() if isinstance(each, Dropout | nn.RMSNorm)]
    assert {each.rate for each in model.modules() if isinstance(each, Dropout)} == {0.25}
    assert [each for each in model.modules() if isinstance(each, nn.RMSNorm)]
    assert not [each for each in model.modules() if isinstance(each, nn.LayerNorm)]
