"""Predictions of a trained model for raw inputs, with dropout off or on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropnorm_service.training.batching import Batching, derived_seed
from dropnorm_service.training.dropout_rates import Drops
from dropnorm_service.training.evaluation.modes import dropping, seeded
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
    model: nn.Module, x: Tensor, *, classes: bool, batch_size: int, samples: int, seed: int
) -> Predicted:
    """Several passes with dropout on and everything else in eval mode (MC dropout, Gal & Ghahramani 2016).

    Means and deviations are accumulated in double precision, so memory does not grow with the passes.

    Args:
        model, x, classes, batch_size: as in `predict`.
        samples: passes, at least 2.
        seed: of the units dropped; torch's own generators are left as they were.
    """
    outputs, probabilities = PassMoments(), PassMoments()
    within = torch.zeros(())
    model.eval()
    for number in range(samples):
        drawn = derived_seed(seed, "prediction", number)
        with dropping(model), seeded(drawn, torch.device("cpu")):
            said = _outputs(model, x, batch_size).double()
        outputs.add(said)
        if classes:
            shares = said.softmax(dim=1)
            probabilities.add(shares)
            within = within + entropy(shares) / samples
    if not classes:
        return Predicted(outputs.mean.float(), standard_deviation=_deviation(outputs).float())
    whole = entropy(probabilities.mean)
    return Predicted(
        outputs.mean.float(),
        probabilities.mean.float(),
        whole.float(),
        _deviation(probabilities).float(),
        (whole - within).clamp(min=0.0).float(),  # rounding may leave it a little below
    )


def drops(model: nn.Module) -> bool:
    """Whether anything in a model is dropped in training."""
    return any(isinstance(each, Drops) and each.rate > 0.0 for each in model.modules())


def _deviation(passes: PassMoments) -> Tensor:
    return passes.variance(correction=1).sqrt()


@torch.inference_mode()
def _outputs(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    batches = Batching.of(len(x), batch_size).slices
    return torch.cat([model(x[batch]) for batch in batches])
