"""Predictions of a trained model for raw inputs, with dropout off or on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropnorm_service.training.batching import Batching, derived_seed
from dropnorm_service.training.dropout_rates import Drops
from dropnorm_service.training.evaluation.modes import dropping, seeded
from dropnorm_service.training.layers.dropout import DropConnect
from dropnorm_service.training.passes import PassMoments, entropy


@dataclass(frozen=True)
class Predicted:
    """What a model says of some inputs; float32, on the CPU.

    Attributes:
        outputs: `[inputs, ...]`: logits or values, or int64 tokens; of several passes their mean.
        probabilities: `[inputs, classes]`, the mean over the passes; None: there are no classes.
        entropy: that of the probabilities in nats, `[inputs]`.
        standard_deviation: over the passes (by one less than there are), of the probabilities or else of
            the outputs; None of a single pass.
        mutual_information: the entropy less the mean entropy of the passes, in nats, `[inputs]`
            (Houlsby et al. 2011, equation 2).
    """

    outputs: Tensor
    probabilities: Tensor | None = None
    entropy: Tensor | None = None
    standard_deviation: Tensor | None = None
    mutual_information: Tensor | None = None


def predict(model: nn.Module, x: Tensor, *, classes: bool, batch_size: int) -> Predicted:
    """One pass of a model in eval mode.

    Args:
        model: takes raw inputs, as `load_model` gives it.
        x: raw inputs, `[inputs, ...]`.
        classes: the outputs are logits of classes.
        batch_size: inputs at a time.
    """
    model.eval()
    outputs = _outputs(model, x, batch_size)
    if not classes:
        return Predicted(outputs)
    probabilities = outputs.softmax(dim=1)
    return Predicted(outputs, probabilities, entropy(probabilities))


def predict_by_samples(
    model: nn.Module,
    x: Tensor,
    *,
    classes: bool,
    batch_size: int,
    samples: int,
    seed: int,
    offset: int = 0,
) -> Predicted:
    """Several passes with dropout on and everything else in eval mode (MC dropout, Gal & Ghahramani 2016).

    A batch is the passes of one input, whose masks `derived_seed(seed, "prediction", place)` draws: what is said of
    an input depends neither on those beside it nor on how they are cut. DropConnect has one mask for a batch, so each
    pass is a batch of its own there. Only a batch norm without running statistics needs other inputs beside each:
    then a batch is a pass of many inputs, and another cut gives another answer. Means and deviations are accumulated
    in double precision, so memory does not grow with the passes.

    Args:
        model, x, classes, batch_size: as in `predict`.
        samples: passes, at least 2.
        seed: of the units dropped; torch's own generators are left as they were.
        offset: place of the first input among those that it was sent with.
    """
    model.eval()
    group = batch_size if mixes_inputs(model) else 1
    passes = 1 if group > 1 or _shares_masks(model) else batch_size
    parts = []
    with torch.inference_mode(), dropping(model), seeded(seed, torch.device("cpu")):
        for start in range(0, len(x), group):
            torch.manual_seed(derived_seed(seed, "prediction", offset + start))
            several = _passes(model, x[start : start + group], samples, passes)
            parts.append(_summary(several, classes=classes))
    return Predicted(
        **{
            name: torch.cat([getattr(part, name) for part in parts])
            for name, value in vars(parts[0]).items()
            if value is not None
        }
    )


def _passes(model: nn.Module, x: Tensor, samples: int, at_once: int) -> Iterator[Tensor]:
    """What each pass says of some inputs, some passes at a time: float64 `[passes, inputs, ...]`."""
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        said: Tensor = model(x.repeat(count, *(1 for _ in x.shape[1:])))
        yield said.unflatten(0, (count, len(x))).double()


def _summary(passes: Iterable[Tensor], *, classes: bool) -> Predicted:
    outputs, probabilities = PassMoments(), PassMoments()
    within, number = torch.zeros(()), 0
    for said in passes:
        outputs.extend(said)
        if classes:
            shares = said.softmax(dim=2)
            probabilities.extend(shares)
            number += len(said)
            within = within + entropy(shares.flatten(0, 1)).unflatten(0, said.shape[:2]).sum(dim=0)
    if not classes:
        return Predicted(outputs.mean.float(), standard_deviation=_deviation(outputs).float())
    whole = entropy(probabilities.mean)
    return Predicted(
        outputs.mean.float(),
        probabilities.mean.float(),
        whole.float(),
        _deviation(probabilities).float(),
        (whole - within / number).clamp(min=0.0).float(),  # rounding may leave it a little below
    )


def mixes_inputs(model: nn.Module) -> bool:
    """Whether a batch norm without running statistics normalises inputs by those beside them."""
    return any(
        isinstance(each, _BatchNorm) and each.running_mean is None for each in model.modules()
    )


def _shares_masks(model: nn.Module) -> bool:
    return any(isinstance(each, DropConnect) and each.rate > 0.0 for each in model.modules())


def drops(model: nn.Module) -> bool:
    """Whether anything in a model is dropped in training."""
    return any(isinstance(each, Drops) and each.rate > 0.0 for each in model.modules())


def _deviation(passes: PassMoments) -> Tensor:
    return passes.variance(correction=1).sqrt()


@torch.inference_mode()
def _outputs(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    batches = Batching.of(len(x), batch_size).slices
    return torch.cat([model(x[batch]) for batch in batches])
