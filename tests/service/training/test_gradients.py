"""Gradients of every layer of our own against finite differences, in float64 and in training mode."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dropnorm_service.training import layers
from dropnorm_service.training.layers import Context, Contextual, embedding
from dropnorm_service.training.layers.activation import Maxout
from dropnorm_service.training.layers.attention import Attention, FromMemory
from dropnorm_service.training.layers.branches import Branches, Side
from dropnorm_service.training.layers.dropout import DropConnect, Dropout, StochasticDepth
from dropnorm_service.training.layers.ghosts import GhostBatchNorm
from dropnorm_service.training.layers.nesting import Series
from dropnorm_service.training.layers.norms import RMSNorm, TokenBatchNorm, TokenGroupNorm
from dropnorm_service.training.layers.pooling import GlobalAveragePool
from dropnorm_service.training.layers.recurrent import GRU, LSTM, Recurrent
from dropnorm_service.training.layers.synchronized import SynchronizedBatchNorm

TOKENS = torch.tensor([[1, 3, 0], [2, 2, 4]])
PADDING = torch.tensor([[False, False, True], [False, False, False]])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@dataclass(frozen=True)
class Case:
    """A layer, what enters it, and the context that it reads."""

    make: Callable[[], nn.Module]
    x: Tensor
    context: Callable[[], Context | None] = field(default=lambda: None)


def padded() -> Context:
    return Context(padding=PADDING)


def remembering() -> Context:
    return Context(memory=normal(2, 1, 4), memory_padding=torch.tensor([[False], [False]]))


CASES: dict[type[nn.Module], Case] = {
    Maxout: Case(Maxout, normal(2, 6)),
    Attention: Case(
        lambda: Attention(
            {name: nn.Linear(4, 4) for name in ("query", "key", "value")},
            heads=2,
            causal=False,
            of_memory=False,
        ),
        normal(2, 3, 4),
        padded,
    ),
    FromMemory: Case(lambda: Series(FromMemory(), nn.Linear(4, 2)), normal(2, 3, 4), remembering),
    Branches: Case(
        lambda: Branches("gate", {"one": nn.Linear(4, 4), "two": nn.Identity()}), normal(2, 4)
    ),
    Side: Case(lambda: Side(nn.Linear(4, 2)), normal(2, 4)),
    Dropout: Case(lambda: Dropout(0.4, "l2_norm"), normal(2, 5)),
    DropConnect: Case(lambda: DropConnect(4, 3, 0.4), normal(2, 4)),
    StochasticDepth: Case(lambda: StochasticDepth(0.5), normal(4, 3)),
    embedding.Embedding: Case(lambda: embedding.Embedding(5, 4, std=1.0, scale=2.0), TOKENS),
    embedding.LearnedPositions: Case(lambda: embedding.LearnedPositions(5, 4, std=1.0), TOKENS),
    embedding.SinusoidalPositions: Case(
        lambda: Series(embedding.SinusoidalPositions(5, 4), nn.Linear(4, 2)), TOKENS
    ),
    embedding.Segments: Case(lambda: embedding.Segments(2, 4, separator=2, std=1.0), TOKENS),
    embedding.TiedLinear: Case(
        lambda: embedding.TiedLinear(5), normal(2, 3, 4), lambda: Context(embedding=normal(5, 4))
    ),
    embedding.FirstToken: Case(embedding.FirstToken, normal(2, 3, 4)),
    embedding.LastToken: Case(embedding.LastToken, normal(2, 3, 4)),
    embedding.AtEachToken: Case(
        lambda: Series(embedding.AtEachToken(), nn.Linear(4, 2)), normal(2, 3, 4), remembering
    ),
    GhostBatchNorm: Case(lambda: GhostBatchNorm(3, 2), normal(5, 3)),
    SynchronizedBatchNorm: Case(lambda: SynchronizedBatchNorm(3), normal(4, 3, 2, 2)),
    Series: Case(lambda: Series(nn.Linear(4, 4), nn.Tanh()), normal(2, 4)),
    RMSNorm: Case(lambda: RMSNorm(4), normal(2, 4)),
    TokenGroupNorm: Case(lambda: TokenGroupNorm(2, 4), normal(2, 3, 4)),
    TokenBatchNorm: Case(lambda: TokenBatchNorm(4), normal(2, 3, 4), padded),
    GlobalAveragePool: Case(GlobalAveragePool, normal(2, 3, 4, 2)),
    LSTM: Case(lambda: LSTM(4, 3, depth=0, rate=0.3), normal(2, 3, 4), padded),
    GRU: Case(lambda: GRU(4, 3, depth=0, rate=0.3), normal(2, 3, 4), padded),
}


def test_every_layer_of_our_own_is_here() -> None:
    modules = [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(layers.__path__, f"{layers.__name__}.")
    ]
    own = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, nn.Module) and kind.__module__ == module.__name__
    }
    assert own - {Contextual, Recurrent} == set(CASES)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_gradients_are_those_of_finite_differences(kind: type[nn.Module]) -> None:
    case = CASES[kind]
    torch.manual_seed(2)
    layer = case.make().double().train()
    assert any(isinstance(each, kind) for each in layer.modules())
    names = [name for name, _ in layer.named_parameters()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(5)  # the same masks each time
        x, *weights = values if case.x.is_floating_point() else (case.x, *values)
        context = case.context()
        inputs = (x,) if context is None else (x, context)
        result: Tensor = functional_call(layer, dict(zip(names, weights, strict=True)), inputs)
        if isinstance(layer, Side):
            assert layer.guess is not None
            return result, layer.guess
        return (result,)

    weights = [each.detach().clone().requires_grad_() for each in layer.parameters()]
    entering = [case.x.clone().requires_grad_()] if case.x.is_floating_point() else []
    assert torch.autograd.gradcheck(run, (*entering, *weights))
