"""What plans say of networks whose layers stand in for each other, against every layer and step of the same network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.service.training.shorthand import summary

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary, SequenceSummary
from dropnorm.spec import layers
from dropnorm_service.training import check, plan
from dropnorm_service.training.kept import kept_for_backward
from dropnorm_service.training.memory import StepMemory, _FusedAttention
from dropnorm_service.training.model import model_of

LENGTHS = range(1, 13)
REGULARIZATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "stepwise": {"dropout": {"rate": 0.3, "recurrent_rate": 0.2}},
    "same_over_time": {
        "dropout": {"method": "spatial", "rate": 0.3, "embedding_rate": 0.1, "recurrent_rate": 0.2}
    },
    "layer_norm": {"layer_norm": {}, "dropout": {"rate": 0.3}},
    "batch_norm": {"batch_norm": {}},
    "rms_norm": {"rms_norm": {}, "dropout": {"recurrent_rate": 0.2, "dropconnect_rate": 0.1}},
}


def pairs(source: int, target: int) -> DatasetSummary:
    """Pairs of sequences of so many tokens, of which the decoder is given all but the last."""
    sequences = SequenceSummary(vocabulary=9, target_vocabulary=7, target_length=target + 1)
    return summary(source, outputs=7, task="sequence_to_sequence", sequences=sequences)


def both_ways(
    architecture: dn.Architecture,
    regularization: dict[str, Any],
    dataset: DatasetSummary,
    batch: int,
) -> tuple[int, int]:
    """Bytes of activations by stand-ins, and by all layers and steps."""
    spec = dn.TrainingSpec(
        architecture=architecture,
        data=dn.Data(dataset="reversal"),
        regularization=dn.Regularization.model_validate(regularization),
    )
    paper = check(spec, dataset)
    with torch.device("meta"), _FusedAttention(with_dropout=False):
        network, example = model_of(paper, spec.initialization), paper.example(batch)
        every = kept_for_backward(network, *example)
    return StepMemory(spec, paper, dataset).of(batch).activations, every


@pytest.mark.parametrize("regularization", ["none", "stepwise"])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_is_as_exact_as_all_steps(length: int, regularization: str) -> None:
    dataset = pairs(length, LENGTHS.stop - length)
    network = dn.Seq2Seq(layers=1, width=4, embedding_width=3)
    found, every = both_ways(network, REGULARIZATIONS[regularization], dataset, batch=1)
    assert found == every


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize(
    "network",
    [
        dn.Seq2Seq(layers=2, width=4, embedding_width=3, reverse_source=False),
        dn.Seq2Seq(layers=3, width=4, embedding_width=4),
        dn.RNNEncoderDecoder(width=4, embedding_width=3, maxout_units=2),
    ],
    ids=["two_layers", "three_layers_reversed", "rnn_encoder_decoder"],
)
def test_every_form_is_as_exact_as_all_steps(network: dn.Architecture, regularization: str) -> None:
    found, every = both_ways(network, REGULARIZATIONS[regularization], pairs(7, 5), batch=5)
    assert found == every


EVERYWHERE = {
    "rate": 0.1,
    "attention_rate": 0.1,
    "residual_rate": 0.1,
    "stochastic_depth_rate": 0.1,
    "dropconnect_rate": 0.1,
}
FORMS: list[dict[str, Any]] = [
    {},
    {"batch_norm": {}, "dropout": EVERYWHERE},
    {"layer_norm": {}, "dropout": {"rate": 0.2, "rescaling": "l2_norm"}},
    {"group_norm": {"groups": 2}, "dropout": {"rate": 0.2, "method": "spatial"}},
]
IMAGES, NUMBERS = summary(3, 32, 32), summary(8)
NESTED = layers.Residual(
    layers=(
        layers.Residual(layers=(layers.Linear(units=8), layers.Activation())),
        layers.Activation(function="silu"),
    )
)
TEXT = summary(6, sequences=SequenceSummary(vocabulary=9, target_vocabulary=0, target_length=0))
NETWORKS: list[tuple[dn.Architecture, DatasetSummary]] = [
    (dn.Transformer(width=8, heads=2, encoder_layers=3, decoder_layers=3), pairs(6, 5)),
    (dn.BERT(width=8, heads=2, layers=3, norm_position="pre"), TEXT),
    (dn.MLP(hidden=(8, 8, 8), activation="gelu"), NUMBERS),
    (dn.Sequential(layers=(NESTED,) * 3), NUMBERS),
    (dn.ResNet(blocks=(3, 3), width=4, squeeze=2, bottleneck=True), IMAGES),
    (dn.GoogLeNet(width=0.1, auxiliary_heads=True), summary(3, 64, 64)),
    (dn.GAN(width=4), summary(3, 32, 32, task="generation")),
]


@pytest.mark.parametrize("regularization", FORMS, ids=lambda form: next(iter(form), "none"))
@pytest.mark.parametrize(
    ("network", "dataset"), NETWORKS, ids=lambda each: getattr(each, "kind", "")
)
def test_layers_stand_in_for_those_like_them(
    network: dn.Architecture, dataset: DatasetSummary, regularization: dict[str, Any]
) -> None:
    found, every = both_ways(network, regularization, dataset, batch=4)
    assert found == every


def test_the_longest_pairs_and_the_most_layers_have_a_plan() -> None:
    """Step by step this would take an hour."""
    network = dn.Seq2Seq(layers=128, width=8, embedding_width=8)
    spec = dn.TrainingSpec(
        architecture=network,
        data=dn.Data(dataset="reversal"),
        optimization=dn.Optimization(auto_batch_size=dn.AutoBatchSize()),
    )
    short, long = (
        plan(spec, pairs(length, 4096), memory_limit_bytes=2**60).memory for length in (2048, 4096)
    )
    assert long.activations > short.activations
