"""Trained models on the disk: safetensors and JSON, no pickle; torch and dropnorm open them anywhere.

folder/model.safetensors        weights, standardisation, and a few raw samples as an example
folder/model.json               spec, data set, and the SHA-256 of the other file
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dropnorm.results import DatasetSummary
from dropnorm.spec import TrainingSpec
from dropnorm_service.training._files import sha256_of, write_json, write_tensors
from dropnorm_service.training.data import SplitData, Standardization
from dropnorm_service.training.errors import BadData
from dropnorm_service.training.model import build_model

_TENSORS = "model.safetensors"
_FACTS = "model.json"
_EXAMPLES = "examples"


class Predictor(nn.Module):
    """A network that takes raw inputs and gives logits, or regression targets in their own unit.

    `[batch, *input_shape]`, float32 or uint8, in the unit of the original data -> float32
    `[batch, outputs]`. Always in eval mode as `load_model` gives it.

    Args:
        network: takes standardised inputs.
        inputs: the standardisation of the inputs; None of tokens.
        targets: that of regression targets; None in classification.
    """

    input_mean: Tensor | None
    input_std: Tensor | None
    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(
        self, network: nn.Module, inputs: Standardization | None, targets: Standardization | None
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("input_mean", inputs.mean if inputs else None)
        self.register_buffer("input_std", inputs.std if inputs else None)
        self.register_buffer("target_mean", targets.mean if targets else None)
        self.register_buffer("target_std", targets.std if targets else None)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise, predict, and undo the standardisation of the targets."""
        if self.input_mean is not None and self.input_std is not None:
            x = (x.to(torch.float32) - self.input_mean) / self.input_std
        outputs: Tensor = self.network(x)
        if self.target_mean is None or self.target_std is None:
            return outputs
        return outputs * self.target_std + self.target_mean


def save_model(folder: Path, spec: TrainingSpec, data: SplitData, network: nn.Module) -> None:
    """Write a trained network with all that is needed to use it; what was there is replaced.

    Args:
        folder: where to, made when it is missing.
        spec: what it was trained by.
        data: what it was trained on.
        network: `FitResult.model`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = Predictor(network, data.inputs, data.targets).state_dict()
    write_tensors(folder / _TENSORS, {**tensors, _EXAMPLES: data.examples})
    facts = {
        "spec": spec.model_dump(mode="json"),
        "dataset": data.summary.model_dump(mode="json"),
        "sha256": sha256_of(folder / _TENSORS),
    }
    write_json(folder / _FACTS, facts)


def load_model(folder: Path) -> Predictor:
    """A saved model on the CPU, in eval mode, ready for raw inputs.

    Raises:
        FileNotFoundError: there is none.
        BadData: it is damaged.
    """
    facts, tensors = _read(folder)
    spec = TrainingSpec.parse(facts["spec"])
    dataset = DatasetSummary.model_validate(facts["dataset"])
    del tensors[_EXAMPLES]
    with torch.device("meta"):
        network = build_model(spec, dataset.input_shape, dataset.outputs, dataset.sequences)
    inputs = None
    if dataset.sequences is None:
        inputs = Standardization(tensors["input_mean"], tensors["input_std"])
    targets = None
    if dataset.task == "regression":
        targets = Standardization(tensors["target_mean"], tensors["target_std"])
    predictor = Predictor(network, inputs, targets)
    predictor.load_state_dict(tensors, assign=True)
    return predictor.eval().requires_grad_(False)


def load_examples(folder: Path) -> Tensor:
    """A few raw test samples, float32 `[n, *input_shape]`: what a model's signature is told by.

    Raises:
        FileNotFoundError: there is no saved model.
        BadData: it is damaged.
    """
    return _read(folder)[1][_EXAMPLES]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = folder / _TENSORS
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        whole = facts["sha256"] == sha256_of(tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder / _FACTS} is damaged ({error}).", file=folder / _FACTS) from error
    if not whole:
        raise BadData(f"{tensors} is damaged: its checksum differs.", file=tensors)
    return facts, load_file(tensors)
