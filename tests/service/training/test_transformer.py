"""The transformer: its size, its forward pass against torch's, what it may look at, what it tells, its plan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from math import exp, inf, isfinite, sqrt
from pathlib import Path

import pytest
import torch
from tests.service.training import made
from tests.service.training.shorthand import problems
from tests.service.training.test_fit import numbers
from tests.service.training.torchs import copy_layer, copy_norm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm.results import SequenceSummary
from dropnorm_service.training import (
    Interrupted,
    Order,
    SplitData,
    build_model,
    fit,
    load_examples,
    load_model,
    plan,
    save_model,
)
from dropnorm_service.training.data import CATALOG, DatasetInfo, Split, summarize
from dropnorm_service.training.data.tokens import BOS, EOS, PAD, SPECIAL
from dropnorm_service.training.decoding import EncoderDecoder, beam_search
from dropnorm_service.training.design import Design, design
from dropnorm_service.training.evaluation.beams import beams
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.layers import Context, DropsBranch
from dropnorm_service.training.layers.embedding import sinusoids
from dropnorm_service.training.objectives import objective_of

SMALL = dn.Transformer(width=16, heads=2, encoder_layers=2, decoder_layers=3, feed_forward=24)
SOURCE, TARGET, WORDS, TARGET_WORDS = 6, 9, 15, 13
SEQUENCES = SequenceSummary(
    vocabulary=WORDS, target_vocabulary=TARGET_WORDS, target_length=TARGET + 1
)


def asked(**parts: object) -> dn.TrainingSpec:
    values = {"architecture": SMALL, "data": dn.Data(dataset="made"), **parts}
    return dn.TrainingSpec.model_validate(values)


def changed(**fields: object) -> dn.Transformer:
    return SMALL.model_copy(update=fields)


def drawn(training: dn.TrainingSpec) -> Design:
    return design(training, (SOURCE,), TARGET_WORDS, SEQUENCES)


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


@pytest.mark.parametrize("position", ["pre", "post"])
def test_parameters_at_the_reference_configuration(position: str) -> None:
    """The paper's base model as `nn.Transformer` counts it: no embeddings, no scores of tokens."""
    training = asked(architecture={"kind": "transformer", "norm_position": position})
    paper = design(training, (20,), 100, SEQUENCES)
    counted = sum(
        layer.blueprint.parameters
        for layer in paper.walk()
        if "embedding" not in layer.element.name and "scores" not in layer.element.name
    )
    assert counted == 44_140_544
    embeddings = (WORDS + TARGET_WORDS) * 512
    assert paper.parameters == counted + embeddings + TARGET_WORDS
    with torch.device("meta"):
        model = build_model(training, (20,), 100, SEQUENCES)
        reference = nn.Transformer(batch_first=True)
    assert sum(each.numel() for each in model.parameters()) == paper.parameters
    assert sum(each.numel() for each in reference.parameters()) == counted


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_is_torchs(position: str, activation: str) -> None:
    """Masks, padding and both orders of norm against `nn.Transformer` with the same weights."""
    model = network(asked(architecture=changed(norm_position=position, activation=activation)))
    theirs = nn.Transformer(
        16, 2, 2, 3, 24, 0.0, activation, batch_first=True, norm_first=position == "pre"
    ).eval()
    for part in ("encoder", "decoder"):
        stack = theirs.get_submodule(part)
        for index, layer in enumerate(stack.get_submodule("layers").children()):
            assert isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer)
            copy_layer(model, f"{part}.layers.{index}", layer)
        norm = stack.get_submodule("norm")
        assert isinstance(norm, nn.LayerNorm)
        copy_norm(model, f"{part}.norm", norm)
    source, given = batch()
    later = torch.ones(TARGET, TARGET, dtype=torch.bool).triu(1)
    states = theirs(
        embedded(model, "encoder", source),
        embedded(model, "decoder", given),
        tgt_mask=later,
        src_key_padding_mask=source == PAD,
        tgt_key_padding_mask=given == PAD,
        memory_key_padding_mask=source == PAD,
    )
    weight = model.get_parameter("decoder.embedding.sum.tokens.weight")
    expected = states @ weight.T + model.get_parameter("decoder.output.scores.bias")
    there = given != PAD
    torch.testing.assert_close(model(source, given)[there], expected[there])


def embedded(model: EncoderDecoder, part: str, tokens: Tensor) -> Tensor:
    """The paper's embedding, by hand."""
    weight = model.get_parameter(f"{part}.embedding.sum.tokens.weight")
    return weight[tokens] * sqrt(16) + sinusoids(tokens.shape[1], 16)


def test_embeddings_start_with_variance_one() -> None:
    model = network(asked(architecture=changed(width=256)))
    tokens = model.get_submodule("encoder.embedding.sum.tokens")
    assert tokens(torch.arange(WORDS)).std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm", "batch_norm"])
def test_a_later_token_changes_no_earlier_score(norm: str) -> None:
    model = network(asked(regularization={norm: {}}))
    source, given = batch()
    scores = model(source, given)
    for place in range(1, TARGET):
        other = given.clone()
        other[:, place] = (given[:, place] - len(SPECIAL) + 1) % 8 + len(SPECIAL)
        found = model(source, other)
        assert torch.equal(found[:, :place], scores[:, :place])
        assert not torch.equal(found[0, place], scores[0, place])
        shorter = model(source, given[:, :place])
        torch.testing.assert_close(shorter, scores[:, :place])


def test_padding_changes_nothing() -> None:
    model = network(asked())
    source, given = batch()
    scores = model(source, given)
    alone = model(source[1:2, :4], given[1:2, :5])
    torch.testing.assert_close(scores[1:2, :5], alone)


def test_it_is_told_by_parts_what_it_is_told_at_once() -> None:
    model = network(asked())
    source, given = batch()
    context = model.encode(source)
    torch.testing.assert_close(model.decode(given[:, :3], context), model(source, given)[:, :3])


@pytest.mark.parametrize("tied", [True, False])
def test_flops_of_the_plan_are_those_of_the_modules(tied: bool) -> None:
    training = asked(architecture=changed(tied_output=tied, positions="learned"))
    paper, model = drawn(training), network(training)
    assert sum(each.numel() for each in model.parameters()) == paper.parameters
    with (
        FlopCounterMode(display=False) as counter,
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    ):
        found = model(*paper.example(2))
    assert found.shape == (2, TARGET, TARGET_WORDS)
    assert counter.get_total_flops() == 2 * paper.forward_flops


def test_stochastic_depth_rises_over_encoder_and_decoder() -> None:
    dropout = dn.Dropout(rate=0.0, stochastic_depth_rate=0.13)
    paper = drawn(asked(regularization=dn.Regularization(dropout=dropout)))
    rates = [
        layer.element.layer.rate
        for layer in paper.walk()
        if isinstance(layer.element.layer, DropsBranch)
    ]
    assert rates == pytest.approx([0.01 * number for number in range(1, 14)])


def test_gradients_reach_every_weight() -> None:
    model = network(asked(architecture=changed(positions="learned"))).train()
    source, given = batch()
    scores = model(source, given)
    F.cross_entropy(scores.flatten(0, 1), given.flatten(), ignore_index=PAD).backward()
    names = [name for name, each in model.named_parameters() if each.grad is None]
    assert names == []


@pytest.mark.parametrize(
    ("training", "facts", "text"),
    [
        (asked(), made.text().info, "the data has no pairs; choose bert"),
        (asked(), made.classification(1, 8, 8).info, "transformer takes tokens"),
    ],
)
def test_data_without_pairs_is_refused(
    training: dn.TrainingSpec, facts: DatasetInfo, text: str
) -> None:
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(training, summarize(training, facts))
    assert text in problems(refused.value)["architecture.transformer"]


def test_bert_refuses_pairs() -> None:
    training = asked(architecture=dn.BERT())
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(training, summarize(training, made.pairs().info))
    assert "the data has pairs of them" in problems(refused.value)["architecture.bert"]


def test_a_plan_of_pairs() -> None:
    found = plan(asked(), summarize(asked(), made.pairs().info))
    assert found.memory.data == 200 * 8 * (6 + 8)
    assert found.layers[-1].output_shape == (7, 15)
    assert "of 6 tokens from 15, targets of 8 from 15" in str(found)


def fitted(epochs: int, **parts: object) -> dn.TrainingSpec:
    adam = dn.Adam(lr=3e-3)
    optimization = dn.Optimization(optimizer=adam, epochs=epochs, batch_size=32)
    architecture = changed(encoder_layers=1, decoder_layers=1, norm_position="pre")
    return asked(**{"architecture": architecture, "optimization": optimization, **parts})


def data_of(training: dn.TrainingSpec, length: int = 6) -> SplitData:
    return made.split_of(training, made.pairs(length=length))


def inference(model: nn.Module, between_batches: Callable[[], None] = lambda: None) -> Inference:
    off = torch.autocast("cpu", enabled=False)
    return Inference(model, batch_size=16, autocast=off, between_batches=between_batches)


def test_the_loss_is_the_cross_entropy_of_the_target_without_its_padding() -> None:
    training = fitted(1)
    data = data_of(training)
    torch.manual_seed(2)
    model = build_model(training, (6,), 15, data.summary.sequences)
    x, y = data.train.x[:8], data.train.y[:8]
    losses, right, whole = [], [], []
    for source, target in zip(x, y, strict=True):
        scores = model(source[None], target[None, :-1])[0].log_softmax(dim=1)
        there = [place for place in range(len(target) - 1) if target[place + 1] != PAD]
        losses += [-scores[place, target[place + 1]] for place in there]
        correct = [bool(scores[place].argmax() == target[place + 1]) for place in there]
        right += correct
        whole.append(all(correct))
    objective = objective_of(training, data)
    loss = objective.training_loss(model, x, y)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    metrics = objective.metrics(inference(model), Split(x, y))
    assert metrics.loss == pytest.approx(loss.item(), rel=1e-5)
    assert metrics.perplexity == pytest.approx(exp(metrics.loss))
    assert metrics.accuracy == pytest.approx(sum(right) / len(right))
    assert metrics.sequence_accuracy == sum(whole) / len(whole)


def test_greedy_decoding_tells_what_the_metrics_say() -> None:
    """A network that tells some targets: as many as greedy decoding does, token by token."""
    training = fitted(40)
    data = data_of(training, length=3)
    result = fit(training, data)
    told = greedy_by_hand(result.model, data.test.x, data.test.y.shape[1])
    assert torch.equal(result.model(data.test.x), told)
    share = (told == data.test.y).all(dim=1).double().mean().item()
    assert share > 0.0
    assert result.evaluation.test.sequence_accuracy == pytest.approx(share)


def greedy_by_hand(model: nn.Module, source: Tensor, length: int) -> Tensor:
    """One sequence after the other, which ends where its end is told."""
    rows = []
    for sample in source:
        told = [BOS]
        while len(told) < length and told[-1] != EOS:
            scores = model(sample[None], torch.tensor([told]))
            told.append(int(scores[0, -1].argmax()))
        rows.append(told + [PAD] * (length - len(told)))
    return torch.tensor(rows)


def test_it_repeats() -> None:
    rates = dn.Dropout(rate=0.1, attention_rate=0.2, stochastic_depth_rate=0.2)
    training = fitted(3, regularization=dn.Regularization(dropout=rates))
    data = data_of(training)
    first, second = (fit(training, data) for _ in range(2))
    assert numbers(first) == numbers(second)
    assert first.evaluation.history[-1].validation_sequence_accuracy is not None


@pytest.mark.parametrize("norm", ["batch_norm", "group_norm", "rms_norm"])
def test_every_norm_trains_and_bfloat16_does(norm: str) -> None:
    training = fitted(1, regularization={norm: {}}, compute=dn.Compute(precision="bfloat16"))
    evaluation = fit(training, data_of(training)).evaluation
    assert evaluation.task == "sequence_to_sequence"
    assert isfinite(evaluation.test.loss)
    assert "sequence accuracy" in str(evaluation)


def test_a_saved_model_tells_targets(tmp_path: Path) -> None:
    training = fitted(1)
    data = data_of(training)
    result = fit(training, data)
    save_model(tmp_path, training, data, result.model)
    model, examples = load_model(tmp_path), load_examples(tmp_path)
    told = model(examples)
    assert told.dtype == torch.int64
    assert torch.equal(told, result.model(data.test.x[: len(examples)]))


@pytest.mark.parametrize("name", ["reversal", "addition"])
def test_made_up_pairs(name: str) -> None:
    info = CATALOG[name]
    assert info.vocabulary is not None
    assert info.target_vocabulary is not None
    tensors = info.source.parse((), info)
    x, y = tensors["x"], tensors["y"]
    assert x.shape == (info.samples, *info.input_shape)
    assert y.shape == (info.samples, info.target_length)
    assert len(x.unique(dim=0)) == len(x)
    assert (y[:, 0] == BOS).all()
    assert ((y == EOS).sum(dim=1) == 1).all()
    for source, target in zip(x[:50].tolist(), y[:50].tolist(), strict=True):
        asked, told = info.vocabulary.text(source), info.target_vocabulary.text(target)
        if name == "reversal":
            assert told == asked[::-1]
        else:
            assert int(told) == sum(map(int, asked.split("+")))
    again = info.source.parse((), info)
    assert torch.equal(again["x"], x)


class Table(EncoderDecoder):
    """A network whose scores depend on the tokens told so far alone, and are drawn at random."""

    def __init__(self, target_length: int) -> None:
        empty = nn.Sequential(OrderedDict(encoder=nn.Identity(), decoder=nn.Identity()))
        super().__init__(empty, {}, target_length=target_length)

    def encode(self, source: Tensor) -> Context:
        return Context(memory=source.float().unsqueeze(2), memory_padding=source == PAD)

    def decode(self, given: Tensor, context: Context) -> Tensor:
        assert context.memory is not None
        keys = (
            given.double().cumsum(dim=1) * 7.3 + (given.double() * 1.7).cumsum(dim=1).sin() * 31.0
        )
        keys = keys + context.memory.sum(dim=(1, 2)).double().unsqueeze(1)
        scores = (keys.unsqueeze(2) * torch.arange(1, 8)).sin().mul(2.0).float()
        scores[..., [PAD, BOS]] = float("-inf")
        return scores


def test_a_wide_beam_finds_the_likeliest_target_of_all() -> None:
    network, length = Table(target_length=5), 5
    source = torch.tensor([[3], [4], [6]])
    found = beam_search(network, source, 1000)
    for row, sample in enumerate(source):
        best, target = -inf, [0]
        for told in product(range(EOS, 7), repeat=length - 1):
            ends = told.index(EOS) + 1 if EOS in told else length - 1
            if EOS in told and any(told[ends:][i] != EOS for i in range(length - 1 - ends)):
                continue  # one of the many ways to go on behind the end
            tokens = [BOS, *told[:ends]]
            context = network.encode(sample[None])
            scores = network.decode(torch.tensor([tokens[:-1]]), context)[0].log_softmax(dim=1)
            total = sum(scores[i, token].item() for i, token in enumerate(tokens[1:]))
            if total / ((5 + ends) / 6) ** 0.6 > best:
                best, target = total / ((5 + ends) / 6) ** 0.6, tokens
        assert found[row].tolist() == target + [PAD] * (length - len(target))


def test_the_narrowest_beam_is_greedy_and_wider_ones_are_reported() -> None:
    training = fitted(3, evaluation=dn.EvaluationSettings(beam_width=3))
    data = data_of(training)
    result = fit(training, data)
    model = result.model
    assert isinstance(model, EncoderDecoder)
    with torch.no_grad():
        assert torch.equal(beam_search(model, data.test.x, 1), model(data.test.x))
        told = beam_search(model, data.test.x, 3)
    found = result.evaluation.beam_search
    assert found is not None
    assert found.width == 3
    share = (told == data.test.y).all(dim=1).double().mean().item()
    assert found.sequence_accuracy == pytest.approx(share)
    assert "beam search of width 3" in str(result.evaluation)


def test_between_the_steps_of_a_beam_search_orders_are_heard() -> None:
    training = fitted(1)
    data = data_of(training)
    torch.manual_seed(2)
    model = build_model(training, (6,), 15, data.summary.sequences)
    assert isinstance(model, EncoderDecoder)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Interrupted(Order.CANCEL)

    decoded = []
    hook = model.decoder.register_forward_hook(lambda *_: decoded.append(looks))
    with pytest.raises(Interrupted):
        beams(inference(model, look), data, width=4)
    hook.remove()
    assert decoded == [0, 1, 2], "a look between each step and the next"


def test_a_beam_width_is_for_pairs() -> None:
    training = asked(architecture=dn.BERT(), evaluation=dn.EvaluationSettings(beam_width=4))
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(training, summarize(training, made.text().info))
    message = problems(refused.value)["evaluation.beam_width"]
    assert "defined for sequence to sequence only" in message
