"""BERT: its size, its layers against torch's, the masking rule, the loss, results, saved models."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.service.training import made
from tests.service.training.shorthand import problems
from tests.service.training.test_fit import numbers
from tests.service.training.torchs import copy_layer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm.results import SequenceSummary
from dropnorm_service.training import (
    SplitData,
    build_model,
    fit,
    load_examples,
    load_model,
    plan,
    save_model,
)
from dropnorm_service.training.data import CATALOG, DatasetInfo, Split, summarize
from dropnorm_service.training.data.text import CHARACTERS
from dropnorm_service.training.data.tokens import BOS, EOS, MASK, PAD, SPECIAL, UNKNOWN, Vocabulary
from dropnorm_service.training.design import Design, design
from dropnorm_service.training.families.bert import TokenEncoder
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.layers import Context, DropsBranch, pass_on
from dropnorm_service.training.masking import Masked, chosen_of, mask
from dropnorm_service.training.objectives import objective_of

SMALL = dn.BERT(width=16, heads=2, layers=2, feed_forward=24, max_length=12)
LENGTH, WORDS = 12, 15
SEQUENCES = SequenceSummary(vocabulary=WORDS, target_vocabulary=0, target_length=0)
EVERY_RATE = dn.Dropout(
    rate=0.1,
    embedding_rate=0.2,
    attention_rate=0.3,
    residual_rate=0.4,
    stochastic_depth_rate=0.5,
)


def asked(
    architecture: dn.Architecture = SMALL, epochs: int = 2, **parts: object
) -> dn.TrainingSpec:
    optimization = dn.Optimization(optimizer=dn.Adam(lr=1e-2), epochs=epochs, batch_size=32)
    values = {"optimization": optimization, "data": dn.Data(dataset="made"), **parts}
    return dn.TrainingSpec.model_validate({"architecture": architecture, **values})


def drawn(training: dn.TrainingSpec, outputs: int = 0) -> Design:
    return design(training, (LENGTH,), outputs, SEQUENCES)


def network(training: dn.TrainingSpec, outputs: int = 0) -> TokenEncoder:
    torch.manual_seed(1)
    model = build_model(training, (LENGTH,), outputs, SEQUENCES)
    assert isinstance(model, TokenEncoder)
    return model.eval()


def data_of(training: dn.TrainingSpec, *, labelled: bool = False) -> SplitData:
    return made.split_of(training, made.text(labelled=labelled))


def inference(model: nn.Module) -> Inference:
    off = torch.autocast("cpu", enabled=False)
    return Inference(model, batch_size=64, autocast=off, between_batches=lambda: None)


def words(samples: int = 4, length: int = LENGTH) -> Tensor:
    return torch.randint(len(SPECIAL), WORDS, (samples, length))


@pytest.mark.parametrize("position", ["pre", "post"])
def test_parameters_at_the_reference_configuration(position: str) -> None:
    """BERT base, uncased, with its pooler; pre-norm moves one norm and adds none."""
    base = asked(dn.BERT.model_validate({"norm_position": position}))
    vocabulary = SEQUENCES.model_copy(update={"vocabulary": 30_522})
    output = 2 * 768 + 2
    assert design(base, (512,), 2, vocabulary).parameters - output == 109_482_240
    with torch.device("meta"):
        model = build_model(base, (512,), 2, vocabulary)
    assert sum(each.numel() for each in model.parameters()) - output == 109_482_240


def test_the_prediction_head_shares_the_embedding() -> None:
    paper, width = drawn(asked()), SMALL.width
    encoder = sum(
        layer.blueprint.parameters for layer in paper.walk() if layer.element.name[0] == "e"
    )
    assert paper.parameters - encoder == width * width + width + 2 * width + WORDS
    model = network(asked())
    assert sum(each.numel() for each in model.parameters()) == paper.parameters
    embedding = model.get_parameter("encoder.embedding.sum.tokens.weight")
    tokens = words()
    transformed = model.get_submodule("head.transform")(model.encoder(tokens))
    expected = transformed @ embedding.T + model.get_parameter("head.output.tied.bias")
    torch.testing.assert_close(model(tokens), expected)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_its_layers_are_torchs(position: str) -> None:
    """Forward pass with padding against `nn.TransformerEncoder` with the same weights."""
    training = asked(SMALL.model_copy(update={"norm_position": position, "activation": "gelu"}))
    model, width = network(training), SMALL.width
    layer = nn.TransformerEncoderLayer(
        width, 2, 24, 0.0, "gelu", batch_first=True, norm_first=position == "pre"
    )
    final = nn.LayerNorm(width) if position == "pre" else None
    theirs = nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False).eval()
    for index, target in enumerate(theirs.layers):
        assert isinstance(target, nn.TransformerEncoderLayer)
        copy_layer(model, f"encoder.layers.{index}", target)
    tokens = words()
    tokens[1, 7:] = PAD
    embedded = model.get_submodule("encoder.embedding.sum")(tokens)
    if position == "post":
        embedded = model.get_submodule("encoder.embedding.norm")(embedded)
    padding = tokens == PAD
    expected = theirs(embedded, src_key_padding_mask=padding)
    found = pass_on(model.encoder, tokens, Context(padding=padding))
    torch.testing.assert_close(found[~padding], expected[~padding])


@pytest.mark.parametrize("outputs", [0, 3])
def test_padding_changes_nothing(outputs: int) -> None:
    for norm in ("layer_norm", "rms_norm", "group_norm", "batch_norm"):
        regularization = dn.Regularization.model_validate({norm: {}})
        model = network(asked(regularization=regularization), outputs)
        tokens = words(length=7)
        padded = F.pad(tokens, (0, 5), value=PAD)
        expected, found = model(tokens), model(padded)
        torch.testing.assert_close(found if outputs else found[:, :7], expected)


def test_batch_norm_sees_no_padding_in_training() -> None:
    model = network(asked(regularization=dn.Regularization(batch_norm=dn.BatchNorm()))).train()
    tokens = words(length=7)
    torch.testing.assert_close(model(F.pad(tokens, (0, 5)))[:, :7], model(tokens))


def test_segments_are_told_apart() -> None:
    model = network(asked())
    one, two = words(), words()
    one[:, 5] = UNKNOWN
    two.copy_(one)
    two[:, 5] = EOS
    block = model.get_submodule("encoder.embedding.sum.segments")
    assert not torch.equal(block(two)[:, 6], block(one)[:, 6])
    assert torch.equal(block(two)[:, :6], block(one)[:, :6])


@pytest.mark.parametrize("outputs", [0, 3])
def test_flops_of_the_plan_are_those_of_the_modules(outputs: int) -> None:
    training = asked()
    paper, model = drawn(training, outputs), network(training, outputs)
    inputs = paper.example(2)
    with (
        FlopCounterMode(display=False) as counter,
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    ):
        model(*inputs)
    assert counter.get_total_flops() == 2 * paper.forward_flops


def test_the_masking_rule() -> None:
    torch.manual_seed(0)
    tokens = words(2000, 40)
    masked = mask(tokens, WORDS, torch.rand)
    assert masked.chosen.shape == (2000, 6)
    assert masked.chosen.sort(dim=1).values.diff(dim=1).min() > 0  # none twice
    assert torch.equal(masked.targets, tokens.gather(1, masked.chosen))
    untouched = torch.ones_like(tokens, dtype=torch.bool).scatter(1, masked.chosen, False)
    assert torch.equal(masked.tokens[untouched], tokens[untouched])
    shown = masked.tokens.gather(1, masked.chosen)
    hidden, same = shown == MASK, shown == masked.targets
    assert hidden.double().mean().item() == pytest.approx(0.8, abs=0.02)
    # Of the tenth that another token replaces, one in ten words is the token itself.
    assert same.double().mean().item() == pytest.approx(0.1 + 0.1 / 10, abs=0.02)
    assert shown[~hidden].min() >= len(SPECIAL)
    assert shown.max() < WORDS
    counts = torch.bincount(masked.chosen.flatten(), minlength=40).double()
    assert counts.std() / counts.mean() < 0.1  # every place is as likely


def test_special_tokens_are_never_chosen_and_short_sequences_give_fewer() -> None:
    torch.manual_seed(0)
    tokens = words(500, 40)
    tokens[:, 0], tokens[:, 21:], tokens[:, 20] = BOS, PAD, EOS
    tokens[0, 1:] = PAD
    masked = mask(tokens, WORDS, torch.rand)
    asked_for = masked.targets != PAD
    assert masked.targets[asked_for].min() >= len(SPECIAL)
    assert asked_for.sum(dim=1).tolist() == [0] + [round(0.15 * 19)] * 499
    special = tokens < len(SPECIAL)
    assert torch.equal(masked.tokens[special], tokens[special])
    assert [chosen_of(length) for length in (1, 10, 128, 512)] == [1, 2, 19, 77]


def test_the_loss_is_the_cross_entropy_of_the_chosen_tokens() -> None:
    training = asked()
    data, model = data_of(training), network(training)
    objective = objective_of(training, data)
    x = data.train.x[:8]
    torch.manual_seed(7)
    loss = objective.training_loss(model, x, data.train.y[:8])
    torch.manual_seed(7)
    masked = mask(x, WORDS, torch.rand)
    torch.testing.assert_close(loss, by_hand(model, masked)[0])


def by_hand(model: nn.Module, masked: Masked) -> tuple[Tensor, Tensor]:
    """Loss and accuracy from the scores of all tokens, one chosen token after the other."""
    scores = model(masked.tokens).log_softmax(dim=2)
    losses, right = [], []
    for sample in range(len(masked.tokens)):
        for place, target in zip(masked.chosen[sample], masked.targets[sample], strict=True):
            if target != PAD:
                losses.append(-scores[sample, place, target])
                right.append(scores[sample, place].argmax() == target)
    return torch.stack(losses).mean(), torch.stack(right).double().mean()


def test_a_split_is_judged_on_the_same_tokens_each_time() -> None:
    training = asked()
    data, model = data_of(training), network(training)
    objective = objective_of(training, data)
    with torch.no_grad():
        seen: list[Tensor] = []
        model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        metrics = objective.metrics(inference(model), data.validation)
        other = objective_of(asked(seed=9, data=dn.Data(dataset="made", split_seed=0)), data)
        scores = objective.scores(inference(model), data.validation)
    first, second = (
        torch.cat(seen)[: len(data.validation)],
        torch.cat(seen)[-len(data.validation) :],
    )
    assert torch.equal(first, second)
    assert [metrics.loss, metrics.accuracy, metrics.perplexity] == scores.tolist()
    assert metrics.perplexity == pytest.approx(math.exp(metrics.loss))
    again = objective_of(asked(seed=0), data)
    assert torch.equal(
        again.scores(inference(model), data.test), other.scores(inference(model), data.test)
    )


def test_orders_are_heard_while_the_tokens_of_a_long_split_are_hidden() -> None:
    class Cancelled(Exception):
        pass

    def cancel() -> None:
        raise Cancelled

    training = asked()
    data, model = data_of(training), network(training)
    model.register_forward_pre_hook(lambda *_: pytest.fail("nobody was asked before"))
    running = inference(model)
    running.between_batches = cancel
    x = words(samples=(1 << 20) // LENGTH + 1)
    with pytest.raises(Cancelled):
        objective_of(training, data).scores(running, Split(x, x))


def test_the_baseline_by_hand() -> None:
    training = asked()
    data = data_of(training)
    part = data.test
    seen: list[Tensor] = []
    model = network(training)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(torch.stack(inputs[:1])))
    metrics = objective_of(training, data).metrics(inference(model), part)
    [hidden] = seen
    counts = {word: 1 for word in range(len(SPECIAL), WORDS)}
    for token in data.train.x.flatten().tolist():
        if token in counts:
            counts[token] += 1
    total, commonest = sum(counts.values()), max(counts, key=lambda word: counts[word])
    # Every hidden token is a chosen one, and few of the chosen ones are not hidden.
    places = (hidden[0] == MASK).nonzero()
    tokens = [int(part.x[sample, place]) for sample, place in places.tolist()]
    losses = [-math.log(counts[token] / total) for token in tokens]
    assert metrics.baseline_perplexity == pytest.approx(
        math.exp(sum(losses) / len(losses)), rel=0.02
    )
    share = sum(token == commonest for token in tokens) / len(tokens)
    assert metrics.baseline_accuracy == pytest.approx(share, abs=0.05)


def test_it_learns_and_repeats() -> None:
    training = asked(epochs=25, regularization=dn.Regularization(dropout=dn.Dropout(rate=0.05)))
    data = data_of(training)
    first, second = (fit(training, data) for _ in range(2))
    assert numbers(first) == numbers(second)
    test = first.evaluation.test
    assert test.accuracy is not None
    assert test.baseline_accuracy is not None
    assert test.accuracy > test.baseline_accuracy + 0.2
    assert first.evaluation.history[-1].validation_perplexity is not None
    assert "perplexity of frequencies" in str(first.evaluation)
    assert "accuracy, train minus test" in str(first.evaluation)


def test_it_tells_the_labels_of_sequences() -> None:
    training = asked(epochs=15)
    result = fit(training, data_of(training, labelled=True))
    assert result.evaluation.task == "classification"
    assert result.evaluation.test.accuracy is not None
    assert result.evaluation.test.accuracy > 0.8


@pytest.mark.parametrize("labelled", [False, True])
def test_a_saved_model_takes_tokens(labelled: bool, tmp_path: Path) -> None:
    training = asked(epochs=1)
    data = data_of(training, labelled=labelled)
    result = fit(training, data)
    save_model(tmp_path, training, data, result.model)
    model, examples = load_model(tmp_path), load_examples(tmp_path)
    assert examples.dtype == torch.int64
    assert torch.equal(model(examples), result.model(data.test.x[: len(examples)]))
    assert model(examples).shape[1:] == ((2,) if labelled else (LENGTH, WORDS))


def test_bfloat16(tmp_path: Path) -> None:
    training = asked(epochs=1, compute=dn.Compute(precision="bfloat16"))
    history = fit(training, data_of(training)).evaluation.history
    assert math.isfinite(history[-1].train_loss)


def test_dropout_stands_where_its_rates_say() -> None:
    paper = drawn(asked(regularization=dn.Regularization(dropout=EVERY_RATE)))
    rates = {
        layer.element.name: layer.element.layer.rate
        for layer in paper.walk()
        if isinstance(layer.element.layer, dn.layers.Dropout | DropsBranch)
    }
    one = "encoder.layers.1"
    assert rates["encoder.embedding.dropout"] == 0.2
    assert rates[f"{one}.attention.sum.branch.heads.dropout"] == 0.3
    assert rates[f"{one}.attention.sum.branch.dropout"] == 0.4
    assert rates[f"{one}.feed_forward.sum.branch.dropout"] == 0.4
    assert rates[f"{one}.feed_forward.sum.branch.inner.dropout"] == 0.1
    depth = [rate for name, rate in rates.items() if name.endswith(".depth")]
    assert depth == [0.125, 0.25, 0.375, 0.5]  # four branches, and not the embedding's sum
    plain = drawn(asked(regularization=dn.Regularization(dropout=dn.Dropout(rate=0.1))))
    placed = [each.element.layer for each in plain.walk() if each.element.name.endswith("dropout")]
    assert [each.rate for each in placed if isinstance(each, dn.layers.Dropout)] == [0.1] * 9


@pytest.mark.parametrize("position", ["pre", "post"])
def test_the_norm_changes_by_one_word(position: str) -> None:
    def norms(name: str, **settings: object) -> list[str]:
        regularization = dn.Regularization.model_validate({name: settings})
        architecture = SMALL.model_copy(update={"norm_position": position})
        paper = drawn(asked(architecture, regularization=regularization))
        return [each.blueprint.text for each in paper.walk() if each.element.name.endswith("norm")]

    default = drawn(asked(SMALL.model_copy(update={"norm_position": position})))
    found = [each.blueprint.text for each in default.walk() if each.element.name.endswith("norm")]
    assert found == norms("layer_norm") == ["LayerNorm(16)"] * 6
    assert norms("rms_norm") == ["RMSNorm(16)"] * 6
    assert norms("batch_norm") == ["TokenBatchNorm(16)"] * 6
    assert norms("group_norm", groups=4) == ["GroupNorm, 4 groups(16)"] * 6
    assert norms("layer_norm", hidden=False) == []


def test_every_norm_and_every_dropout_trains() -> None:
    for norm in ("batch_norm", "group_norm", "rms_norm"):
        for method in ("spatial", "gaussian"):
            regularization = dn.Regularization.model_validate(
                {norm: {}, "dropout": {"rate": 0.1, "method": method, "output_rate": 0.1}}
            )
            training = asked(epochs=1, regularization=regularization)
            assert math.isfinite(fit(training, data_of(training)).evaluation.test.loss)


def test_the_initialization_reaches_embeddings() -> None:
    scheme = dn.Initialization(scheme="truncated_normal", std=0.001)
    model = network(asked(initialization=scheme))
    for name in ("tokens", "positions", "segments"):
        weight = model.get_parameter(f"encoder.embedding.sum.{name}.weight")
        assert 0.0 < weight.abs().max().item() <= 0.002
    bare = network(asked()).get_parameter("encoder.embedding.sum.tokens.weight")
    assert bare.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("training", "dataset", "field", "text"),
    [
        (asked(dn.BERT(max_length=8)), "made", "architecture.bert.max_length", "sequences of 12"),
        (asked(), "images", "architecture.bert", "bert takes tokens"),
        (
            asked(dn.MLP(hidden=())),
            "made",
            "architecture.mlp",
            "mlp takes numbers",
        ),
    ],
)
def test_what_does_not_fit(training: dn.TrainingSpec, dataset: str, field: str, text: str) -> None:
    source = made.text() if dataset == "made" else made.classification(1, 8, 8)
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(training, summarize(training, source.info))
    assert text in problems(refused.value)[field]


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide a width of 16; give a divisor"):
        dn.BERT(width=16, heads=5)


def test_a_plan_counts_what_it_takes() -> None:
    training = asked()
    facts = made.text().info
    found = plan(training, summarize(training, facts))
    model = network(training)
    weights = sum(each.numel() for each in model.parameters())
    assert found.parameters == weights
    assert found.memory.gradients == 4 * weights
    assert found.memory.data == 200 * LENGTH * 8
    assert found.dataset.task == "masked_language_modelling"


def test_what_has_no_effect_on_tokens_is_linted() -> None:
    def found(training: dn.TrainingSpec, facts: DatasetInfo) -> list[str]:
        lints = plan(training, summarize(training, facts)).lints
        return sorted(each.field for each in lints if each.code == "REGULARIZATION_WITHOUT_EFFECT")

    norm = dn.BatchNorm(input=True, position="after_activation")
    dropout = dn.Dropout(rate=0.1, input_rate=0.1, conv_rate=0.1)
    odd = dn.Regularization(dropout=dropout, batch_norm=norm, order="dropout_then_norm")
    assert found(asked(regularization=odd), made.text().info) == [
        "regularization.batch_norm.input",
        "regularization.batch_norm.position",
        "regularization.dropout.conv_rate",
        "regularization.dropout.input_rate",
        "regularization.order",
    ]
    # It takes the norms away that the architecture has by itself.
    bare = dn.Regularization(layer_norm=dn.LayerNorm(hidden=False))
    assert found(asked(regularization=bare), made.text().info) == []
    of_attention = {"rate": 0.0, "embedding_rate": 0.0, "residual_rate": 0.0, "attention_rate": 0.1}
    for form, field in (
        ({"method": "gaussian"}, "method"),
        ({"rescaling": "l2_norm"}, "rescaling"),
    ):
        dropout = dn.Dropout.model_validate(of_attention | form)
        alone = dn.Regularization(dropout=dropout)
        assert found(asked(regularization=alone), made.text().info) == [
            f"regularization.dropout.{field}"
        ]
        beside = dn.Regularization(dropout=dropout.model_copy(update={"residual_rate": 0.1}))
        assert found(asked(regularization=beside), made.text().info) == []
    sound = dn.Regularization(dropout=EVERY_RATE, rms_norm=dn.RMSNorm())
    assert found(asked(regularization=sound), made.text().info) == []
    mlp = asked(dn.MLP(hidden=(8,)), regularization=dn.Regularization(dropout=EVERY_RATE))
    assert found(mlp, made.classification(5).info) == [
        f"regularization.dropout.{name}_rate"
        for name in ("attention", "embedding", "residual", "stochastic_depth")
    ]


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_a_plan_knows_what_attention_keeps(rate: float) -> None:
    """As much as autograd really keeps of a batch on a CPU."""
    dropout = dn.Dropout(rate=0.0, attention_rate=rate)
    optimization = dn.Optimization(batch_size=8)
    training = asked(
        dn.BERT(width=16, heads=4, layers=1, feed_forward=16, max_length=128),
        regularization=dn.Regularization(dropout=dropout),
        optimization=optimization,
    )
    facts = made.text(length=128).info
    model = build_model(training, (128,), 0, SEQUENCES).train()
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    inputs = design(training, (128,), 0, SEQUENCES).example(8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(*inputs)
    real = sum(each.untyped_storage().nbytes() for each in kept.values())
    planned = plan(training, summarize(training, facts)).memory.activations
    assert planned == pytest.approx(real, rel=0.05)
    on_gpu = training.model_copy(update={"compute": dn.Compute(device="cuda")})
    fused = plan(on_gpu, summarize(on_gpu, facts)).memory.activations
    assert (fused < 0.5 * planned) == bool(rate)


def test_the_text_that_comes_with_python() -> None:
    info = CATALOG["python_docs"]
    parsed = info.source.parse((), info)
    x, y = parsed["x"], parsed["y"]
    assert x.shape == (info.samples, 128)
    assert y.shape == (info.samples, 0)
    assert (x[:, 0] == BOS).all()
    assert (x[:, 1:] == UNKNOWN).double().mean() < 0.01
    assert info.vocabulary is CHARACTERS
    assert len(CHARACTERS) == len(SPECIAL) + 96
    assert CHARACTERS.text(x[0].tolist()).strip()
    assert CHARACTERS.text(CHARACTERS.numbers("a b\n~")) == "a b\n~"
    assert CHARACTERS.numbers("é") == [UNKNOWN]
    assert Vocabulary(("two", "words"), " ").numbers("words two one") == [6, 5, UNKNOWN]
