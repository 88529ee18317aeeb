"""The test split corrupted, predicted with running statistics and with those of its own batches.

The latter is adaptation by batch norm (Schneider et al. 2020, Nado et al. 2020): no weight moves, and the
statistics of the training split give way to those of the batch that is predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropnorm.results import Robustness
from dropnorm.results.diagnostics import Corruption
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import ValueRange
from dropnorm_service.training.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from dropnorm_service.training.evaluation.modes import adapting
from dropnorm_service.training.evaluation.trained import Trained
from dropnorm_service.training.objectives.supervised import Supervised
from dropnorm_service.training.recalibration import tracking_norms

_CASES: tuple[tuple[Corruption, int], ...] = (
    ("none", 0),
    *((name, strength) for name in CORRUPTIONS for strength in STRENGTHS),
)


def robustness(trained: Trained) -> tuple[Robustness, ...]:
    """What the network makes of the test split as it is, and under each corruption at each strength.

    Batches have at least as many samples as in training, where the split does. Their corruption is drawn from
    seeds of their own.
    """
    assert isinstance(trained.objective, Supervised)  # other tasks have been refused
    judge, between = trained.objective.judge, trained.inference.between_batches
    scale, y = ValueRange(trained.data), trained.data.test.y
    found = []
    for corruption, strength in _CASES:
        outputs = _outputs(trained, scale, corruption, strength)
        scores = torch.cat([judge(each, y, between) for each in outputs]).tolist()
        names = ("loss", "accuracy")[: len(scores) // len(outputs)]
        names += tuple(f"adapted_{name}" for name in names)
        values = dict(zip(names, scores, strict=False))
        found.append(Robustness(corruption=corruption, strength=strength, **values))
    return tuple(found)


@torch.inference_mode()
def _outputs(
    trained: Trained, scale: ValueRange, corruption: Corruption, strength: int
) -> tuple[Tensor, ...]:
    """Of the whole split `[samples, outputs]`; adapted too, where there is a norm to adapt and more than a sample."""
    inference, test = trained.inference, trained.data.test
    adapts = bool(tracking_norms(inference.network)) and len(test) > 1
    results = [
        torch.empty(len(test), trained.data.outputs, device=test.x.device)
        for _ in range(1 + adapts)
    ]
    batches = max(1, len(test) // trained.batching.batch_size)
    for index, batch in enumerate(torch.arange(len(test)).tensor_split(batches)):
        rows = slice(int(batch[0]), int(batch[-1]) + 1)
        x = test.x[rows]
        if corruption in CORRUPTIONS:
            seed = derived_seed(trained.spec.seed, "robustness", corruption, strength, index)
            generator = torch.Generator(x.device).manual_seed(seed)
            unit = CORRUPTIONS[corruption](scale.to_unit(x), strength, generator)
            x = scale.from_unit(unit)
        with inference.evaluating() as network:
            results[0][rows] = network(x)
            if adapts:
                with adapting(network):
                    results[1][rows] = network(x)
        inference.between_batches()
    return tuple(results)
