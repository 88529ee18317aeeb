"""What changes over a training, and what is computed anew after it, in every architecture alike."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tests.service.training import (
    made,
    test_bert,
    test_families,
    test_generative,
    test_transformer,
)
from tests.service.training.made import classification, split_of
from torch import nn

from dropnorm import spec as dn
from dropnorm.results import SequenceSummary
from dropnorm_service.training import build_model, fit
from dropnorm_service.training.constraints import incoming_weights
from dropnorm_service.training.design import design
from dropnorm_service.training.dropout_rates import DropoutRates, rates_of
from dropnorm_service.training.layers import Shape

ARCHITECTURES: dict[str, dn.Architecture] = {
    "mlp": dn.MLP(hidden=(8, 8)),
    "sequential": dn.Sequential(
        layers=(dn.layers.Flatten(), dn.layers.Linear(units=8), dn.layers.Activation())
    ),
    **test_families.SMALL,
    **test_generative.SMALL,
    "transformer": test_transformer.SMALL,
    "bert": test_bert.SMALL,
    "seq2seq": dn.Seq2Seq(layers=2, width=16, embedding_width=8),
    "rnn_encoder_decoder": dn.RNNEncoderDecoder(width=16, embedding_width=8, maxout_units=12),
}
PAIRS = ("transformer", "seq2seq", "rnn_encoder_decoder")
WITH_NORMS = [name for name in ARCHITECTURES if name not in (*PAIRS, "bert")]
EVERY_RATE = dn.Dropout(
    rate=0.5,
    conv_rate=0.4,
    input_rate=0.1,
    output_rate=0.1,
    stochastic_depth_rate=0.3,
    dropconnect_rate=0.2,
    embedding_rate=0.25,
    attention_rate=0.35,
    residual_rate=0.45,
    recurrent_rate=0.15,
    schedule=dn.LinearDropoutSchedule(start_factor=0.5),
)


def asked(name: str, **parts: object) -> dn.TrainingSpec:
    values = {"architecture": ARCHITECTURES[name], "data": dn.Data(dataset="made"), **parts}
    return dn.TrainingSpec.model_validate(values)


def sizes(name: str) -> tuple[Shape, int, SequenceSummary | None]:
    """Shape of a sample, outputs, and what is known of its tokens."""
    if name in PAIRS:
        summary = test_transformer.SEQUENCES
        return (test_transformer.SOURCE,), summary.target_vocabulary, summary
    if name == "bert":
        return (test_bert.LENGTH,), test_bert.WORDS, test_bert.SEQUENCES
    if name == "gan":
        return (1, 16, 16), 1, None
    return (1, 8, 8), 64 if "vae" in name else 3, None


def test_every_architecture_is_here() -> None:
    kinds = {each.model_fields["kind"].default for each in get_args(get_args(dn.Architecture)[0])}
    assert {architecture.kind for architecture in ARCHITECTURES.values()} == kinds


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_schedule_changes_every_rate(name: str) -> None:
    training = asked(
        name,
        regularization=dn.Regularization(dropout=EVERY_RATE),
        optimization=dn.Optimization(epochs=3),
    )
    with torch.device("meta"):
        network = build_model(training, *sizes(name))
    rates, full = DropoutRates(network, design(training, *sizes(name)), training), rates_of(network)
    assert len(full) >= 2
    assert all(full.values())
    for epoch, factor in ((1, 0.5), (2, 0.75), (3, 1.0)):
        rates.enter(epoch)
        assert rates_of(network) == {module: rate * factor for module, rate in full.items()}


@pytest.mark.parametrize("name", WITH_NORMS)
def test_running_statistics_are_computed_anew(name: str) -> None:
    training = asked(
        name,
        regularization=dn.Regularization(
            dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm(ghost_batch_size=8)
        ),
        optimization=dn.Optimization(epochs=1, batch_size=24),
        evaluation=dn.EvaluationSettings(recalibrate_batch_norm="dropout_on"),
    )
    result = fit(training, split_of(training, classification(*sizes(name)[0], samples=80)))
    found = result.evaluation.recalibration
    assert found is not None
    norms = [
        name
        for name, module in result.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    assert [shift.layer for shift in found.layers] == norms
    moved = [shift.layer for shift in found.layers if shift.largest_mean_shift > 0]
    assert moved == norms


@pytest.mark.parametrize("averaging", [dn.EMA(decay=0.5), dn.SWA(start_epoch=1)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_limits_averages_and_changed_samples(name: str, averaging: dn.Averaging) -> None:
    tokens, supervised = name not in WITH_NORMS, "vae" not in name and name != "gan"
    mixed = {"mixup_alpha": 0.5, "cutmix_alpha": 1.0, "noise_std": 0.1} if supervised else {}
    settings = {"shift": dn.Shift(pixels=1), "crop": dn.Crop(), "vertical_flip": 0.5, **mixed}
    training = asked(
        name,
        regularization=dn.Regularization(
            max_norm=0.5,
            l1=1e-5,
            label_smoothing=0.1 if supervised else None,
            dropout=dn.Dropout(rate=0.2),
            batch_norm=None if tokens else dn.BatchNorm(),
        ),
        optimization=dn.Optimization(epochs=2, batch_size=24, averaging=averaging),
        data={"dataset": "made", "augmentation": None if tokens else settings},
    )
    datasets = {"bert": made.text} | dict.fromkeys(PAIRS, made.pairs)
    image = classification(*sizes(name)[0], samples=80)
    data = split_of(training, datasets[name]() if tokens else image)
    result = fit(training, data)
    for module in result.model.modules():
        incoming = incoming_weights(module)
        if incoming is not None and not isinstance(averaging, dn.EMA):
            weights, axes = incoming  # a mean of vectors within a ball lies within it
            assert torch.linalg.vector_norm(weights, dim=axes).max() < 0.5 * (1 + 1e-4)
    assert len(result.evaluation.history) == 2
