"""What an evaluation found out, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dropnorm.results._format import evaluation_notes, number

if TYPE_CHECKING:
    from dropnorm.results.evaluation import Evaluation
    from dropnorm.results.uncertainty import MCDropout


def notes(evaluation: Evaluation) -> list[str]:
    """The gap and the cost, and a line or more for each measurement that was asked for."""
    return [*evaluation_notes(evaluation), *_uncertainty(evaluation)]


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
