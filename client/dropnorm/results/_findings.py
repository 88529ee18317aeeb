"""What an evaluation found out, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from dropnorm.results._format import evaluation_notes, number

if TYPE_CHECKING:
    from dropnorm.results.diagnostics import LayerReport, Robustness, VarianceShift
    from dropnorm.results.evaluation import Evaluation
    from dropnorm.results.uncertainty import MCDropout


def notes(evaluation: Evaluation) -> list[str]:
    """The gap and the cost, and a line or more for each measurement that was asked for."""
    return [*evaluation_notes(evaluation), *_uncertainty(evaluation), *_diagnostics(evaluation)]


def _uncertainty(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.mc_dropout is not None:
        yield _mc_dropout(evaluation.mc_dropout)
    if (scaling := evaluation.temperature_scaling) is not None:
        yield (
            f"temperature {number(scaling.temperature)}: NLL on validation "
            f"{number(scaling.validation_before.nll)} before, {number(scaling.validation_after.nll)} after"
        )


def _mc_dropout(found: MCDropout) -> str:
    begin = f"MC dropout, {found.passes:,} passes over test: "
    if found.gaussian_nll is not None:
        return begin + (
            f"standard deviation {number(found.standard_deviation)}, normal NLL {number(found.gaussian_nll)} nats "
            f"({number(found.deterministic_gaussian_nll)} with dropout off)"
        )
    return begin + (
        f"predictive entropy {number(found.predictive_entropy)} nats, of which mutual information with the weights "
        f"{number(found.mutual_information)}"
    )


def _diagnostics(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.variance_shift:
        yield _variance_shift(evaluation.variance_shift)
    if layers := next((each.layers for each in reversed(evaluation.history) if each.layers), ()):
        yield from _layers(layers)
    if (found := evaluation.beam_search) is not None:
        yield (
            f"beam search of width {found.width}: sequence accuracy over test "
            f"{number(found.sequence_accuracy)} ({number(evaluation.test.sequence_accuracy)} by greedy decoding)"
        )
    if evaluation.robustness:
        yield _robustness(evaluation.robustness)


def _variance_shift(found: Sequence[VarianceShift]) -> str:
    worst = max(found, key=lambda layer: abs(math.log(layer.ratio)) if layer.ratio > 0.0 else 0.0)
    return (
        f"variance shift at {len(found)} batch norms: evaluation has {worst.ratio:.1%} of training's variance where it "
        f"is largest ({worst.layer}), {worst.dropout_ratio:.1%} by dropout alone"
    )


def _layers(found: Sequence[LayerReport]) -> Iterator[str]:
    norms = [layer.gradient_norm for layer in found if layer.gradient_norm is not None]
    dead = [layer for layer in found if layer.dead_share]
    if norms:
        yield (
            f"last report of {len(found)} layers: gradient norm {number(norms[0])} in the first with weights, "
            f"{number(norms[-1])} in the last"
        )
    if dead:
        worst = max(dead, key=lambda layer: layer.dead_share or 0.0)
        yield f"dead units in {len(dead)} activations, at most {worst.dead_share:.1%} ({worst.layer})"


def _robustness(found: Sequence[Robustness]) -> str:
    corrupted = [row for row in found if row.strength]
    name = "loss" if corrupted[0].accuracy is None else "accuracy"
    plain = _mean(getattr(row, name) for row in corrupted)
    adapted = [value for row in corrupted if (value := getattr(row, f"adapted_{name}")) is not None]
    return f"mean {name} under corruption {number(plain)}" + (
        f", {number(_mean(adapted))} with batch norm adapted to it" if adapted else ""
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
