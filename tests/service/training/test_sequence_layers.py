"""Layers of sequences: attention, embeddings, positions, norms and dropout of tokens."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from tests.service.training.test_blueprints import assert_true
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm.spec import layers
from dropnorm_service.training.layers import (
    BLUEPRINTS,
    Attend,
    Attention,
    Context,
    DoesNotFit,
    Dropout,
    Series,
    attend,
    attention,
    dropout,
)
from dropnorm_service.training.layers import embedding as modules
from dropnorm_service.training.layers.attention import FromMemory
from dropnorm_service.training.layers.blueprints import sequences
from dropnorm_service.training.layers.norms import TokenBatchNorm

TOKENS = (5, 6)
"""A sample of five tokens of six features."""
PADDING = torch.tensor([[False] * 5, [False, False, False, True, True]])


def made(
    heads: int = 2, *, causal: bool = False, of_memory: bool = False, rate: float = 0.0
) -> tuple[Attention, dict[str, nn.Linear]]:
    """A module of width 6 and its linear layers; with `rate` the weights are dropped."""
    ways = {name: nn.Linear(6, 6) for name in ("query", "key", "value")}
    whole: dict[str, nn.Module] = dict(ways)
    if of_memory:
        whole |= {name: Series(FromMemory(), ways[name]) for name in ("key", "value")}
    if rate:
        whole["dropout"] = Dropout(rate)
    return Attention(whole, heads=heads, causal=causal, of_memory=of_memory), ways


def by_hand(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """One head, one sample: `[length, features]`, and what each token may look at."""
    scores = query @ key.T / math.sqrt(query.shape[1])
    weights = torch.where(seen, scores, -torch.inf).softmax(dim=1)
    return weights @ value


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_by_hand(causal: bool, padded: bool) -> None:
    query, key, value = torch.randn(3, 2, 3, 5, 4)
    hidden = PADDING if padded else None
    found = attention(query, key, value, hidden=hidden, causal=causal)
    for sample in range(2):
        seen = torch.ones(5, 5, dtype=torch.bool)
        if padded:
            seen = seen & ~PADDING[sample]
        if causal:
            seen = seen.tril()
        for head in range(3):
            q, k, v = (each[sample, head] for each in (query, key, value))
            torch.testing.assert_close(found[sample, head], by_hand(q, k, v, seen))


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_is_torchs(causal: bool) -> None:
    ours, ways = made(causal=causal)
    theirs = nn.MultiheadAttention(6, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([way.weight for way in ways.values()]))
        theirs.in_proj_bias.copy_(torch.cat([way.bias for way in ways.values()]))
        theirs.out_proj.weight.copy_(torch.eye(6))
        theirs.out_proj.bias.zero_()
    x = torch.randn(2, 5, 6)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    padding = None if causal else PADDING
    expected, _ = theirs(x, x, x, attn_mask=mask, key_padding_mask=padding)
    torch.testing.assert_close(ours(x, Context(padding=padding)), expected)


def test_attention_of_the_memory() -> None:
    module, _ = made(of_memory=True)
    x, memory = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    hidden = torch.arange(7).expand(2, 7) >= torch.tensor([[7], [4]])
    found = module(x, Context(padding=PADDING, memory=memory, memory_padding=hidden))
    assert found.shape == (2, 5, 6)
    moved = torch.where(hidden.unsqueeze(2), memory + 100.0, memory)
    torch.testing.assert_close(
        module(x, Context(memory=moved, memory_padding=hidden)), found, rtol=0, atol=0
    )
    short = module(x[1:], Context(memory=memory[1:, :4]))
    torch.testing.assert_close(found[1:], short)


def test_nothing_to_look_at_gives_zeros_and_no_nan() -> None:
    query = torch.randn(1, 1, 3, 4, requires_grad=True)
    hidden = torch.ones(1, 3, dtype=torch.bool)
    found = attention(query, query, query, hidden=hidden)
    assert torch.equal(found, torch.zeros_like(found))
    found.sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_attention(causal: bool) -> None:
    inputs = [torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    hidden = None if causal else PADDING
    assert torch.autograd.gradcheck(partial(attention, hidden=hidden, causal=causal), inputs)


def test_attention_weights_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    module, _ = made(rate=0.5)
    plain = Attention(
        {name: module.get_submodule(name) for name in ("query", "key", "value")},
        heads=2,
        causal=False,
        of_memory=False,
    )
    x = torch.randn(4, 5, 6)
    torch.testing.assert_close(module.eval()(x), plain(x))
    module.train()
    mean = torch.stack([module(x) for _ in range(4000)]).mean(dim=0)
    assert not torch.equal(module(x), plain(x))
    torch.testing.assert_close(mean, plain(x), rtol=0, atol=0.1)
    drop = module.get_submodule("dropout")
    assert isinstance(drop, Dropout)
    drop.rate = 0.0  # as a schedule does
    torch.testing.assert_close(module(x), plain(x))


def test_what_attention_costs() -> None:
    module, _ = made(of_memory=True)
    paper = attend(Attend(heads=2, of_memory=True), [(5, 6), (7, 6), (7, 6)], lambda: module)
    assert paper.output_shape == (5, 6)
    assert paper.flops == 2 * (2 * 5 * 7 * 6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Linear(units=7),
        layers.Linear(units=7, bias=False),
        layers.Activation(function="gelu"),
        layers.Dropout(rate=0.5),
        layers.Dropout(rate=0.5, method="spatial"),
        layers.Dropout(rate=0.5, rescaling="l2_norm"),
        layers.BatchNorm(),
        layers.BatchNorm(affine=False, track_running_stats=False),
        layers.LayerNorm(),
        layers.LayerNorm(affine=False),
        layers.GroupNorm(groups=3),
        layers.RMSNorm(),
        layers.RMSNorm(affine=False),
    ],
    ids=str,
)
def test_layers_that_take_sequences_too(layer: layers.Layer) -> None:
    assert_true(BLUEPRINTS[layer.kind](layer, TOKENS), TOKENS)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (layers.LayerNorm(eps=0.1), nn.LayerNorm(6, eps=0.1)),
        (layers.RMSNorm(eps=0.1), nn.RMSNorm(6, eps=0.1)),
    ],
)
def test_norms_are_of_each_token(layer: layers.Layer, reference: nn.Module) -> None:
    x = torch.randn(3, *TOKENS)
    norm = BLUEPRINTS[layer.kind](layer, TOKENS).make()
    torch.testing.assert_close(norm(x), reference(x))


def test_instance_norm_takes_no_sequence() -> None:
    with pytest.raises(DoesNotFit, match="receives a sequence of 5 tokens of 6 features"):
        BLUEPRINTS["instance_norm"](layers.InstanceNorm(), TOKENS)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_batch_norm_leaves_padding_out(momentum: float | None) -> None:
    ours, theirs = TokenBatchNorm(6, momentum=momentum), nn.BatchNorm1d(6, momentum=momentum)
    for _ in range(3):
        x = torch.randn(2, *TOKENS)
        y = ours(x, Context(padding=PADDING))
        torch.testing.assert_close(y[~PADDING], theirs(x[~PADDING]))
        moved = torch.where(PADDING.unsqueeze(2), 100.0, x)
        torch.testing.assert_close(
            TokenBatchNorm(6)(moved, Context(PADDING))[~PADDING], y[~PADDING]
        )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(
        ours.eval()(x, Context(padding=PADDING))[~PADDING], theirs.eval()(x[~PADDING])
    )
    torch.testing.assert_close(TokenBatchNorm(6)(x), nn.BatchNorm1d(6)(x.mT).mT)


def test_gradients_of_batch_norm_over_tokens() -> None:
    x = torch.randn(2, *TOKENS, dtype=torch.float64, requires_grad=True)
    norm = TokenBatchNorm(6, track_running_stats=False).double()
    context = Context(padding=PADDING)
    assert torch.autograd.gradcheck(lambda x: norm(x, context)[~PADDING], x)


def test_dropout_of_sequences() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, *TOKENS) + 1.0
    dropped = dropout(x, 0.5, method="spatial") == 0.0
    assert torch.equal(dropped.all(dim=1), dropped.any(dim=1))  # a feature over all its tokens
    assert 0 < dropped.any(dim=1).sum() < 24
    scaled = dropout(x, 0.5, "l2_norm", training=False)
    torch.testing.assert_close(scaled, F.normalize(x, dim=2))


def test_embedding_is_drawn_and_scaled() -> None:
    torch.manual_seed(0)
    layer = sequences.Embedding(tokens=50, width=400, std=0.05, scale=20.0)
    module = BLUEPRINTS["embedding"](layer, (5,)).make()
    assert isinstance(module, nn.Embedding)
    assert module.weight.std().item() == pytest.approx(0.05, rel=0.05)
    tokens = torch.tensor([[3, 4, 3]])
    torch.testing.assert_close(module(tokens), 20.0 * module.weight[tokens])


def test_sinusoids_by_the_papers_formula() -> None:
    table = modules.sinusoids(7, 6)
    for place in range(7):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            assert table[place, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert modules.sinusoids(7, 5).shape == (7, 5)


def test_positions_of_shorter_sequences() -> None:
    for module in (modules.LearnedPositions(7, 6, std=1.0), modules.SinusoidalPositions(7, 6)):
        whole = module(torch.zeros(2, 7, dtype=torch.int64))
        assert whole.shape == (2, 7, 6)
        torch.testing.assert_close(module(torch.zeros(3, 4, dtype=torch.int64))[0], whole[0, :4])


def test_segments_end_with_the_separator() -> None:
    module = modules.Segments(2, 3, separator=2, std=1.0)
    found = module(torch.tensor([[1, 9, 2, 9, 2, 9]]))
    torch.testing.assert_close(found[0], module.weight[torch.tensor([0, 0, 0, 1, 1, 1])])


def test_tied_scores_and_the_first_token() -> None:
    paper = BLUEPRINTS["tied_linear"](sequences.TiedLinear(tokens=9), TOKENS)
    assert (paper.output_shape, paper.parameters, paper.flops) == ((5, 9), 9, 2 * 5 * 6 * 9)
    x, weight = torch.randn(2, *TOKENS), torch.randn(9, 6)
    module = paper.make()
    torch.testing.assert_close(module(x, Context(embedding=weight)), x @ weight.T)
    assert_true(BLUEPRINTS["first_token"](sequences.FirstToken(), TOKENS), TOKENS)
    assert torch.equal(modules.FirstToken()(x), x[:, 0])


@pytest.mark.parametrize(
    "layer",
    [
        sequences.Embedding(tokens=9, width=6, std=0.1),
        sequences.LearnedPositions(length=8, width=6, std=0.1),
        sequences.SinusoidalPositions(length=8, width=6),
        sequences.Segments(types=2, width=6, separator=2, std=0.1),
    ],
    ids=str,
)
def test_what_tokens_become(layer: sequences.SequenceLayer) -> None:
    paper = BLUEPRINTS[layer.kind](layer, (5,))
    module = paper.make()
    assert module(torch.randint(0, 9, (2, 5))).shape == (2, *paper.output_shape) == (2, 5, 6)
    assert sum(each.numel() for each in module.parameters()) == paper.parameters
