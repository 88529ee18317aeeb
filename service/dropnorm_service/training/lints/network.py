"""Lints about the network: where dropout and batch norm stand, and how strong they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dropnorm.results import Lint
from dropnorm.spec import MLP, Sequential
from dropnorm.spec import layers as spec
from dropnorm_service.training.dropout_rates import acting_rates
from dropnorm_service.training.layers import DropsBranch
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent
from dropnorm_service.training.layers.blueprints.sequences import TiedLinear
from dropnorm_service.training.lints.flow import (
    biases_before_norm,
    dropout_before_norm,
    in_one_place,
    weights_before_norm,
)
from dropnorm_service.training.lints.subject import Subject, over_fields

HIGH_RATE = 0.8
_USUAL_OF_UNITS = (
    "0.5 in hidden layers and 0.2 at the input are common (Srivastava et al. 2014); if this was meant as the share "
    "kept, give it as keep_prob"
)
_USUAL_OF_BRANCHES = "0.5 is common (Huang et al. 2016)"
_USUAL_OF_WEIGHTS = "0.5 is common (Wan et al. 2013)"

_PLACES: Mapping[str, str] = {
    "rate": "each activation of this network follows a convolution, and conv_rate is for these; set rate to 0, or "
    "leave conv_rate out",
    "conv_rate": "this acts after the activations of convolutions, and the network has none; rate is for other layers",
    "stochastic_depth_rate": "this drops residual branches, and the network has none",
    "embedding_rate": "this acts on embedded tokens, and the network takes numbers; input_rate is for them",
    "attention_rate": "this acts on the weights of attention, and the network has none",
    "residual_rate": "this acts on the branches of transformers, and the network is none",
    "recurrent_rate": "this acts between the steps of recurrent layers, and the network has none",
    "dropconnect_rate": "this drops weights of linear layers that an activation follows and that have no rate of their "
    "own, and the network has none",
}
"""Rate -> what is said where nothing in the network drops by it."""


def variance_shift(subject: Subject) -> Iterator[Lint]:
    """Dropout ahead of a batch norm that keeps running statistics (Li et al. 2018)."""
    found = dropout_before_norm(subject.paper)
    by_order = subject.training.regularization.order == "dropout_then_norm"
    direct = {dropout.dropped_by for dropout, _ in found.direct}
    yield from over_fields(
        "DROPOUT_BEFORE_BATCH_NORM",
        [
            "regularization.order"
            if by_order and in_one_place(dropout, norm)
            else dropout.dropped_by
            for dropout, norm in found.direct
        ],
        "dropout feeds a batch norm: it changes the variance in training only, and the running variance then "
        "misleads evaluation (variance shift, Li et al. 2018); drop units after the norm, and no weights before it",
    )
    yield from over_fields(
        "DROPOUT_UPSTREAM_OF_BATCH_NORM",
        [dropout.dropped_by for dropout, _ in found.upstream if dropout.dropped_by not in direct],
        "a later batch norm, with weights in between, still sees the variance that this dropout changes in training "
        "only; the wider the layers the less it matters, and dropout after the last batch norm avoids it "
        "(Li et al. 2018)",
    )


def redundant_bias(subject: Subject) -> Iterator[Lint]:
    """A bias that the next batch norm subtracts again."""
    mlp = isinstance(subject.training.architecture, MLP)
    fields = (layer.element.field for layer in biases_before_norm(subject.paper))
    yield from over_fields(
        "BIAS_BEFORE_BATCH_NORM",
        ("architecture.mlp.bias" if mlp else _bias_of(field) for field in fields),
        "the batch norm that follows subtracts the bias with the mean, so that it changes nothing; set bias to false"
        + (", which in an MLP takes the output layer's bias too" if mlp else ""),
    )


def _bias_of(field: str) -> str:
    """Path of a listed layer's bias; empty: families decide on theirs."""
    return f"{field}.bias" if field.startswith("architecture.sequential.") else ""


def limit_before_norm(subject: Subject) -> Iterator[Lint]:
    """A limit on the scale of weights that the next batch norm takes away."""
    normed = weights_before_norm(subject.paper)
    if subject.training.regularization.max_norm is not None and normed:
        yield Lint(
            code="MAX_NORM_BEFORE_BATCH_NORM",
            field="regularization.max_norm",
            message=f"the batch norm after {normed[0].name} takes the scale of its weights away, so that a limit on it "
            "changes how fast they turn and nothing else (van Laarhoven 2017); use one of the two",
        )


def dropout_on_logits(subject: Subject) -> Iterator[Lint]:
    """Dropout after the last layer with weights."""
    yield from over_fields(
        "DROPOUT_ON_LOGITS",
        _at_the_end(subject, spec.Dropout),
        "this drops the outputs themselves, so the loss is taken over guesses that the network never made; drop hidden "
        "units instead",
    )


def batch_norm_on_logits(subject: Subject) -> Iterator[Lint]:
    """Batch norm after the last layer with weights."""
    yield from over_fields(
        "BATCH_NORM_ON_LOGITS",
        _at_the_end(subject, spec.BatchNorm),
        "normalised outputs keep one scale over every batch, however sure the network is of a sample; normalise hidden "
        "layers instead",
    )


def high_rate(subject: Subject) -> Iterator[Lint]:
    """A dropout rate that leaves little."""
    rates: dict[str, tuple[float, str]] = {}
    for element in (layer.element for layer in subject.paper.walk()):
        if isinstance(element.layer, spec.Dropout):
            rates[element.setting("rate")] = element.layer.rate, f"units; {_USUAL_OF_UNITS}"
        elif isinstance(element.layer, Recurrent):
            rates[element.dropped_by] = element.layer.rate, f"units; {_USUAL_OF_UNITS}"
        elif isinstance(element.layer, DropsBranch):
            strongest = max(rates.get(element.dropped_by, (0.0, ""))[0], element.layer.rate)
            rates[element.dropped_by] = strongest, f"last residual branch; {_USUAL_OF_BRANCHES}"
        elif isinstance(element.layer, spec.Linear):
            rates[element.dropped_by] = (
                element.layer.dropconnect_rate or 0.0,
                f"weights; {_USUAL_OF_WEIGHTS}",
            )
    for field, (rate, rest) in rates.items():
        if rate >= HIGH_RATE:
            yield Lint(
                code="HIGH_DROPOUT_RATE",
                field=field,
                message=f"a rate of {rate:g} keeps {1.0 - rate:.2g} of the {rest}",
            )


def batch_statistics(subject: Subject) -> Iterator[Lint]:
    """Batch norm without running statistics."""
    yield from over_fields(
        "BATCH_STATISTICS_IN_EVALUATION",
        [
            layer.element.setting("track_running_stats")
            for layer in subject.paper.walk()
            if isinstance(layer.element.layer, spec.BatchNorm)
            and not layer.element.layer.track_running_stats
        ],
        "without running statistics a prediction depends on the other samples of its batch; set track_running_stats, "
        "unless whatever is predicted comes in batches like those of the training",
    )


def nothing_to_regularize(subject: Subject) -> Iterator[Lint]:
    """Hidden dropout or batch norm in a network without an activation, and rates for places that are not there."""
    yield from _missing_weights(subject)
    places = (spec.Activation, Recurrent)
    around = any(isinstance(layer.element.layer, places) for layer in subject.paper.walk())
    yield from _missing_places(subject, [name for name in _PLACES if around or name != "rate"])
    if around:
        return
    dropout = subject.training.regularization.dropout
    norm = subject.training.regularization.norm
    asked = ["regularization.dropout.rate"] if dropout and dropout.rate else []
    asked += [f"regularization.{norm[0]}.hidden"] if norm and norm[1].hidden else []
    yield from over_fields(
        "REGULARIZATION_WITHOUT_EFFECT",
        asked,
        "this acts around activations, and the network has none",
    )


def _missing_weights(subject: Subject) -> Iterator[Lint]:
    """Limits on weights in a network that has no layer with them."""
    kinds = (spec.Linear, spec.Conv)
    if isinstance(subject.training.architecture, Sequential) and not any(
        isinstance(layer.element.layer, kinds) for layer in subject.paper.walk()
    ):
        regularization = subject.training.regularization
        yield from over_fields(
            "REGULARIZATION_WITHOUT_EFFECT",
            [
                f"regularization.{name}"
                for name in ("max_norm", "l1")
                if getattr(regularization, name) is not None
            ],
            "this acts on the weights of linear and convolutional layers, and the network has none",
        )


def _missing_places(subject: Subject, names: Iterable[str]) -> Iterator[Lint]:
    """Rates for places that the network does not have."""
    dropout = subject.training.regularization.dropout
    if dropout is None:
        return
    acting = acting_rates(subject.paper)
    for name in names:
        if getattr(dropout, name) and name not in acting:
            yield Lint(
                code="REGULARIZATION_WITHOUT_EFFECT",
                field=f"regularization.dropout.{name}",
                message=_PLACES[name],
            )


def _at_the_end(subject: Subject, kind: type[spec.Dropout] | type[spec.BatchNorm]) -> list[str]:
    """The fields of the layers of a kind that have no weights behind them."""
    fields: list[str] = []
    for layer in subject.paper.walk():
        if isinstance(layer.element.layer, spec.Linear | spec.Conv | TiedLinear | Recurrent):
            fields = []
        elif isinstance(layer.element.layer, kind):
            fields.append(layer.element.field)
    return fields
