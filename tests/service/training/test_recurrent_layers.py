"""Recurrent layers against torch's own, against each other's ways of running, and by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm_service.training.constraints import MaxNorm
from dropnorm_service.training.initialization import initialize_recurrent
from dropnorm_service.training.layers import Context
from dropnorm_service.training.layers.recurrent import CELLS, Recurrent

SAMPLES, LENGTH, INPUTS, UNITS = 4, 5, 3, 6
KINDS = sorted(CELLS)


def layer(kind: str, *, summary: int = 0, rate: float = 0.0) -> Recurrent:
    torch.manual_seed(1)
    return CELLS[kind](INPUTS, UNITS, depth=0, summary=summary, rate=rate)


def torchs(mine: Recurrent) -> nn.LSTM | nn.GRU:
    """Torch's module with the same weights; of its two biases the second is zero."""
    kind = nn.LSTM if mine.gates == 4 else nn.GRU
    theirs = kind(mine.inputs + mine.summary, mine.units, batch_first=True)
    before, after = mine.weight.detach().split([mine.inputs + mine.summary, mine.units], dim=1)
    given = {"weight_ih": before, "weight_hh": after, "bias_ih": mine.bias.detach()}
    for name, value in {**given, "bias_hh": torch.zeros_like(mine.bias)}.items():
        theirs.get_parameter(f"{name}_l0").data.copy_(value)
    return theirs


def states(mine: Recurrent) -> tuple[Tensor, ...]:
    return tuple(torch.randn(SAMPLES, UNITS) for _ in mine.no_state(torch.zeros(1, 1, 1)))


def by_torch(
    theirs: nn.LSTM | nn.GRU, x: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    begin = tuple(each.unsqueeze(0) for each in state)
    outputs, end = theirs(x, begin if len(begin) > 1 else begin[0])
    last = end if isinstance(end, tuple) else (end,)
    return outputs, tuple(each.squeeze(0) for each in last)


def stepwise(mine: Recurrent) -> Recurrent:
    """The same layer, made to run step by step: so little is dropped that nothing is."""
    mine.rate = 1e-30
    return mine.train()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_torchs(kind: str) -> None:
    """All at once and step by step, from zero and from a state; outputs, last state and gradients."""
    mine = layer(kind)
    theirs = torchs(mine)
    x = torch.randn(SAMPLES, LENGTH, INPUTS)
    for begin in (mine.no_state(x), states(mine)):
        outputs, end = by_torch(theirs, x, begin)
        theirs.zero_grad()
        outputs.square().sum().backward()
        slopes = [theirs.get_parameter(f"weight_{each}_l0").grad for each in ("ih", "hh")]
        expected = torch.cat([each for each in slopes if each is not None], dim=1)
        for run in (mine.eval(), stepwise(mine)):
            context = Context(states={0: begin})
            found = run(x, context)
            torch.testing.assert_close(found, outputs)
            for one, other in zip(context.states[0], end, strict=True):
                torch.testing.assert_close(one, other)
            run.zero_grad()
            found.square().sum().backward()
            torch.testing.assert_close(run.weight.grad, expected)


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_in_front_leaves_no_trace(kind: str, by_step: bool) -> None:
    """Neither in outputs nor in the last state, whatever stands there."""
    mine = layer(kind)
    mine = stepwise(mine) if by_step else mine.eval()
    x = torch.randn(SAMPLES, LENGTH, INPUTS)
    padding = torch.zeros(SAMPLES, LENGTH, dtype=torch.bool)
    padding[1, :2], padding[2, :4], padding[3] = True, True, True
    context = Context(padding=padding)
    outputs = mine(x, context)
    for row, start in enumerate((0, 2, 4)):
        alone = Context()
        expected = mine(x[row : row + 1, start:], alone)
        torch.testing.assert_close(outputs[row : row + 1, start:], expected)
        for whole, part in zip(context.states[0], alone.states[0], strict=True):
            torch.testing.assert_close(whole[row], part[0])
    assert torch.equal(outputs[3], torch.zeros(LENGTH, UNITS))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind: str) -> None:
    """Of inputs, weights and bias in double precision; at once with padding, and with units dropped."""
    mine = layer(kind, summary=2).double()
    x = torch.randn(2, 4, INPUTS, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    padding = torch.tensor([[True, False, False, False], [False] * 4])

    def run(x: Tensor, memory: Tensor, *parameters: Tensor) -> Tensor:
        torch.manual_seed(2)
        context = Context(memory=memory, padding=padding)
        values = dict(zip(("weight", "bias"), parameters, strict=True))
        outputs = torch.func.functional_call(mine, values, (x, context))
        assert isinstance(outputs, Tensor)
        return outputs

    for rate in (0.0, 0.5):
        mine.rate = rate
        inputs = (x, memory, *(each for each in mine.parameters()))
        assert torch.autograd.gradcheck(run, inputs)


def test_the_same_units_are_dropped_in_every_step() -> None:
    """Step by step with the mask at hand: it is drawn once for a sequence, and what is kept is scaled."""
    mine = layer("lstm", rate=0.5).train()
    x = torch.randn(SAMPLES, LENGTH, INPUTS)
    torch.manual_seed(3)
    found = mine(x)
    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(SAMPLES, UNITS), 0.5)
    before, after = mine.weight.split([INPUTS, UNITS], dim=1)
    h = c = torch.zeros(SAMPLES, UNITS)
    for place in range(LENGTH):
        i, f, g, o = (x[:, place] @ before.T + (mask * h) @ after.T + mine.bias).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        torch.testing.assert_close(found[:, place], h)
    assert not torch.equal(mine(x), found)
    assert torch.equal(mine.eval()(x), mine(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_parts_is_the_sequence(kind: str) -> None:
    mine = layer(kind).eval()
    x = torch.randn(SAMPLES, LENGTH, INPUTS)
    whole, parts = Context(), Context()
    outputs = mine(x, whole)
    torch.testing.assert_close(
        torch.cat([mine(x[:, :2], parts), mine(x[:, 2:], parts)], 1), outputs
    )
    torch.testing.assert_close(parts.states[0], whole.states[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_gate_is_drawn_by_itself(kind: str) -> None:
    mine = layer(kind)
    initialize_recurrent(mine, dn.Initialization(scheme="orthogonal", bias=0.25))
    for weight in mine.gate_weights()[1::2]:
        torch.testing.assert_close(weight @ weight.T, torch.eye(UNITS))
    assert (mine.bias == 0.25).all()
    initialize_recurrent(mine, dn.Initialization(scheme="kaiming"))
    inputs, last = mine.gate_weights()[:2]
    assert inputs.shape == (UNITS, INPUTS)
    assert last.shape == (UNITS, UNITS)


def test_max_norm_holds_every_gate() -> None:
    mine = layer("gru")
    MaxNorm(nn.Sequential(mine), 0.5).project()
    lengths = mine.weight.norm(dim=1)
    assert lengths.max().item() == pytest.approx(0.5)
