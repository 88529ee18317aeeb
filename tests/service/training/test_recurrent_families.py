"""Recurrent encoder-decoders: their size, their forward pass by hand, their plan, what they refuse and say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.service.training import made
from tests.service.training.shorthand import problems
from tests.service.training.test_fit import numbers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm.results import SequenceSummary
from dropnorm_service.training import build_model, fit, load_examples, load_model, plan, save_model
from dropnorm_service.training.data import summarize
from dropnorm_service.training.data.tokens import BOS, PAD, SPECIAL
from dropnorm_service.training.decoding import EncoderDecoder
from dropnorm_service.training.design import Design, design
from dropnorm_service.training.families.recurring import padded_in_front
from dropnorm_service.training.layers import Dropout
from dropnorm_service.training.layers.recurrent import Recurrent

LSTM = dn.Seq2Seq(layers=2, width=12, embedding_width=7)
GRU = dn.RNNEncoderDecoder(width=12, embedding_width=7, maxout_units=5)
BOTH: list[dn.Architecture] = [LSTM, GRU]
SOURCE, TARGET, WORDS, TARGET_WORDS = 6, 8, 15, 13
SEQUENCES = SequenceSummary(
    vocabulary=WORDS, target_vocabulary=TARGET_WORDS, target_length=TARGET + 1
)


def asked(architecture: dn.Architecture, **parts: object) -> dn.TrainingSpec:
    values = {"architecture": architecture, "data": dn.Data(dataset="made"), **parts}
    return dn.TrainingSpec.model_validate(values)


def fitted(architecture: dn.Architecture, **parts: object) -> dn.TrainingSpec:
    optimization = dn.Optimization(optimizer=dn.Adam(lr=5e-3), epochs=1, batch_size=32)
    return asked(architecture, **{"optimization": optimization, **parts})


def drawn(training: dn.TrainingSpec, sequences: SequenceSummary = SEQUENCES) -> Design:
    return design(training, (SOURCE,), sequences.target_vocabulary, sequences)


def network(training: dn.TrainingSpec) -> EncoderDecoder:
    torch.manual_seed(1)
    model = build_model(training, (SOURCE,), TARGET_WORDS, SEQUENCES)
    assert isinstance(model, EncoderDecoder)
    return model.eval()


def batch(samples: int = 3) -> tuple[Tensor, Tensor]:
    """Sources and targets so far, the second shorter on both sides."""
    source = torch.randint(len(SPECIAL), WORDS, (samples, SOURCE))
    given = torch.randint(len(SPECIAL), TARGET_WORDS, (samples, TARGET))
    given[:, 0] = BOS
    source[1, 4:], given[1, 5:] = PAD, PAD
    return source, given


def test_the_paper_has_384_million_parameters() -> None:
    """4 layers of 1000, 160,000 and 80,000 words (Sutskever et al. 2014, section 3.4), counted without memory."""
    training = asked(dn.Seq2Seq())
    facts = SequenceSummary(vocabulary=160_000, target_vocabulary=80_000, target_length=51)
    with torch.device("meta"):
        model = build_model(training, (50,), 80_000, facts)
    counted = sum(each.numel() for each in model.parameters())
    assert counted == pytest.approx(384e6, rel=0.01)
    assert counted == drawn(training, facts).parameters
    recurrent = [each for each in model.modules() if isinstance(each, Recurrent)]
    cells = sum(each.numel() for module in recurrent for each in module.parameters())
    assert cells == pytest.approx(64e6, rel=0.01)  # "64M are pure recurrent connections"


def test_the_formula_of_the_encoder_decoder() -> None:
    w, e, m, s, v = 1000, 100, 500, 15_000, 15_000
    facts = SequenceSummary(vocabulary=s, target_vocabulary=v, target_length=31)
    by_formula = (
        (s + v) * e
        + 3 * w * (e + w + 1)
        + 2 * w * (w + 1)
        + 3 * w * (e + 2 * w + 1)
        + 2 * m * (2 * w + e + 1)
        + m * e
        + v * (e + 1)
    )
    assert drawn(asked(dn.RNNEncoderDecoder()), facts).parameters == by_formula


def test_an_lstm_pair_by_torchs_modules() -> None:
    """Against `nn.LSTM` over each sample alone, backwards and without padding."""
    model = network(asked(LSTM))
    stacks = {}
    for part in ("encoder", "decoder"):
        stack = stacks[part] = nn.LSTM(7, 12, 2, batch_first=True)
        for depth, inputs in enumerate((7, 12)):
            mine = model.get_submodule(f"{part}.layers.{depth}.lstm")
            assert isinstance(mine, Recurrent)
            before, after = mine.weight.detach().split([inputs, 12], dim=1)
            for name, value in {
                "weight_ih": before,
                "weight_hh": after,
                "bias_ih": mine.bias.detach(),
                "bias_hh": torch.zeros(48),
            }.items():
                stack.get_parameter(f"{name}_l{depth}").data.copy_(value)
    source, given = batch()
    scores = model(source, given)
    for sample, length in enumerate((6, 4, 6)):
        words = source[sample : sample + 1, :length].flip(1)
        _, states = stacks["encoder"](model.get_submodule("encoder.embedding")(words))
        embedded = model.get_submodule("decoder.embedding")(given[sample : sample + 1])
        outputs, _ = stacks["decoder"](embedded, states)
        expected = model.get_submodule("decoder.output.scores")(outputs)
        torch.testing.assert_close(scores[sample : sample + 1], expected)


def test_a_gru_pair_by_hand() -> None:
    """The appendix's equations, one sample and one step at a time."""
    model = network(asked(GRU))
    weights = dict(model.named_parameters())

    def cell(name: str, x: Tensor, h: Tensor) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        before, after = weight.split([len(x), len(h)], dim=1)
        r, z, n = (before @ x + bias).chunk(3)
        ur, uz, un = (after @ h).chunk(3)
        gate: Tensor = (z + uz).sigmoid()
        new: Tensor = (n + (r + ur).sigmoid() * un).tanh()
        return gate * h + (1.0 - gate) * new

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    source, given = batch()
    scores = model(source, given)
    for sample in range(3):
        h = torch.zeros(12)
        for word in source[sample]:
            if word != PAD:
                h = cell("encoder.gru", weights["encoder.embedding.tokens.weight"][word], h)
        c = linear("encoder.summary.linear", h).tanh()
        h = linear("start.linear", c).tanh()
        for step, word in enumerate(given[sample]):
            y = weights["decoder.embedding.tokens.weight"][word]
            h = cell("decoder.sum.state.gru", torch.cat([y, c]), h)
            s = linear("decoder.sum.state.linear", h) + linear("decoder.sum.token", y)
            s = (s + linear("decoder.sum.vector.linear", c)).view(5, 2).amax(1)
            expected = linear("decoder.output.scores", linear("decoder.output.rank", s))
            torch.testing.assert_close(scores[sample, step], expected)


def test_padding_goes_to_the_front() -> None:
    rows = torch.tensor([[5, 6, 7], [5, 6, PAD], [PAD, PAD, PAD]])
    front = torch.tensor([[5, 6, 7], [PAD, 5, 6], [PAD, PAD, PAD]])
    assert torch.equal(padded_in_front(rows), front)


def test_a_source_may_be_read_forwards() -> None:
    backwards = network(asked(LSTM))
    forwards = network(asked(LSTM.model_copy(update={"reverse_source": False})))
    source, given = batch()
    source[:, 4:] = PAD
    torch.testing.assert_close(
        forwards(source, given), backwards(source[:, [3, 2, 1, 0, 4, 5]], given)
    )


@pytest.mark.parametrize("architecture", BOTH)
def test_step_by_step_it_is_what_it_is_at_once(architecture: dn.Architecture) -> None:
    model = network(asked(architecture))
    source, given = batch()
    scores = model(source, given)
    context = model.encode(source)
    for place in range(TARGET):
        found, context = model.step(given[:, place : place + 1], context)
        torch.testing.assert_close(found, scores[:, place])


@pytest.mark.parametrize("architecture", BOTH)
def test_flops_of_the_plan_are_those_of_the_modules(architecture: dn.Architecture) -> None:
    """But for the bias of the encoder's layers, which goes through the matrix product with the padding."""
    training = asked(architecture)
    paper = drawn(training)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build_model(training, (SOURCE,), TARGET_WORDS, SEQUENCES).eval()
        assert model(*paper.example(2)).shape == (2, TARGET, TARGET_WORDS)
    encoder = [
        each for each in model.get_submodule("encoder").modules() if isinstance(each, Recurrent)
    ]
    biases = sum(2 * SOURCE * len(each.bias) for each in encoder)
    assert counter.get_total_flops() == 2 * (paper.forward_flops + biases)


@pytest.mark.parametrize("architecture", BOTH)
def test_gradients_reach_every_weight(architecture: dn.Architecture) -> None:
    model = network(asked(architecture)).train()
    source, given = batch()
    F.cross_entropy(model(source, given).flatten(0, 1), given.flatten()).backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []


def test_dropout_stands_where_the_fields_say() -> None:
    rates = dn.Dropout(rate=0.1, embedding_rate=0.2, recurrent_rate=0.3, method="spatial")
    model = network(asked(LSTM, regularization=dn.Regularization(dropout=rates)))
    dropped = {
        name: module.rate
        for name, module in model.named_modules()
        if isinstance(module, Dropout | Recurrent)
    }
    assert dropped == {
        "encoder.embedding.dropout": 0.2,
        "encoder.layers.0.lstm": 0.3,
        "encoder.layers.0.dropout": 0.1,
        "encoder.layers.1.lstm": 0.3,
        "decoder.embedding.dropout": 0.2,
        "decoder.layers.0.lstm": 0.3,
        "decoder.layers.0.dropout": 0.1,
        "decoder.layers.1.lstm": 0.3,
        "decoder.layers.1.dropout": 0.1,
    }
    x = torch.ones(2, 5, 7)
    found = model.get_submodule("encoder.embedding.dropout").train()(x)
    assert torch.equal(found, found[:, :1].expand_as(found))  # the same over time


def test_lints() -> None:
    facts = summarize(asked(LSTM), made.pairs().info)

    def found(training: dn.TrainingSpec) -> set[tuple[str, str]]:
        return {(lint.code, lint.field) for lint in plan(training, facts).lints}

    unheard = "REGULARIZATION_WITHOUT_EFFECT"
    clean = {"dropout": {"recurrent_rate": 0.25}, "layer_norm": {}}
    assert found(asked(LSTM, regularization=clean)) == set()
    after = {"layer_norm": {"position": "after_activation"}}
    assert found(asked(LSTM, regularization=after)) == {
        (unheard, "regularization.layer_norm.position")
    }
    assert found(asked(GRU, regularization=after)) == set()
    high = {"dropout": {"recurrent_rate": 0.9}}
    assert found(asked(GRU, regularization=high)) == {
        ("HIGH_DROPOUT_RATE", "regularization.dropout.recurrent_rate")
    }
    moving = {
        "dropout": {"rate": 0.0, "embedding_rate": 0.0, "recurrent_rate": 0.2},
        "batch_norm": {},
    }
    assert ("DROPOUT_BEFORE_BATCH_NORM", "regularization.dropout.recurrent_rate") in found(
        asked(LSTM, regularization=moving)
    )
    mlp = plan(
        asked(dn.MLP(hidden=(5,)), regularization=clean),
        summarize(asked(dn.MLP(hidden=(5,))), made.classification(4).info),
    )
    assert (unheard, "regularization.dropout.recurrent_rate") in {
        (lint.code, lint.field) for lint in mlp.lints
    }


@pytest.mark.parametrize("architecture", BOTH)
def test_data_without_pairs_is_refused(architecture: dn.Architecture) -> None:
    training = asked(architecture)
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(training, summarize(training, made.text().info))
    assert "the data has no pairs" in problems(refused.value)[f"architecture.{architecture.kind}"]


@pytest.mark.parametrize("architecture", BOTH)
def test_it_learns_by_every_setting_and_a_saved_model_tells_the_same(
    architecture: dn.Architecture, tmp_path: Path
) -> None:
    """Under a schedule of rates, in half precision, with the scheme of its own."""
    dropout = dn.Dropout(
        rate=0.1, recurrent_rate=0.2, schedule=dn.OffAfterDropoutSchedule(epochs=1)
    )
    training = asked(
        architecture,
        regularization=dn.Regularization(dropout=dropout, layer_norm=dn.LayerNorm(), max_norm=3.0),
        initialization=dn.Initialization(scheme="orthogonal"),
        optimization=dn.Optimization(optimizer=dn.Adam(lr=5e-3), epochs=2, batch_size=32),
        compute=dn.Compute(precision="bfloat16"),
    )
    data = made.split_of(training, made.pairs())
    result = fit(training, data)
    assert numbers(fit(training, data)) == numbers(result)
    assert {each.rate for each in result.model.modules() if isinstance(each, Recurrent)} == {0.0}
    save_model(tmp_path, training, data, result.model)
    told = load_model(tmp_path)(load_examples(tmp_path))
    assert torch.equal(told, result.model(data.test.x[: len(told)]))


def test_more_maxout_pieces_than_a_layer_may_have_are_refused() -> None:
    with pytest.raises(dn.InvalidSpecError) as refused:
        drawn(asked(GRU.model_copy(update={"maxout_units": 600_000})))
    [field] = problems(refused.value)
    assert field == "architecture.rnn_encoder_decoder.maxout_units"
