"""Trained models on the disk: safetensors and JSON, no pickle; torch and dropnorm open them anywhere.

folder/model.safetensors        weights, standardisation, and a few raw samples as an example
folder/model.json               spec, data set, the dropout rates in force at the end of the epoch that was
                                kept, and the SHA-256 of the other file
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dropnorm.results import DatasetSummary
from dropnorm.spec import GAN, VAE, TrainingSpec
from dropnorm_service.durable import sha256_of
from dropnorm_service.training._files import clear_leftovers, write_json, write_tensors
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import EXAMPLES, SplitData, Standardization, ValueRange
from dropnorm_service.training.dropout_rates import put_in_force, rates_of
from dropnorm_service.training.errors import BadData
from dropnorm_service.training.model import build_model

_TENSORS = "model.safetensors"
_FACTS = "model.json"
_EXAMPLES = "examples"


class Predictor(nn.Module):
    """A network that takes raw inputs and gives logits, or values in their own unit.

    `[batch, *input_shape]`, float32 or uint8, in the unit of the original data -> float32
    `[batch, outputs]`: logits or regression targets. An autoencoder gives the restored samples, and an
    adversarial pair makes of noise `[batch, latent]` samples, both like the original data. Always in
    eval mode as `load_model` gives it.

    Args:
        network: takes standardised inputs.
        inputs: the standardisation of the inputs; None of tokens and of noise.
        targets: the scale of the outputs; None of logits.
        head: what the outputs go through before they are brought to it.
    """

    input_mean: Tensor | None
    input_std: Tensor | None
    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        inputs: Standardization | None,
        targets: Standardization | None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Identity() if head is None else head
        for name, scale in (("input", inputs), ("target", targets)):
            for part in ("mean", "std"):
                if scale is None:  # an absent buffer would be in torch.export's way
                    setattr(self, f"{name}_{part}", None)
                else:
                    self.register_buffer(f"{name}_{part}", getattr(scale, part))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise, predict, and undo the standardisation of the targets."""
        if self.input_mean is not None and self.input_std is not None:
            x = (x.to(torch.float32) - self.input_mean) / self.input_std
        outputs: Tensor = self.head(self.network(x))
        if self.target_mean is None or self.target_std is None:
            return outputs
        return outputs * self.target_std + self.target_mean


@dataclass(frozen=True)
class SavedModel:
    """A trained model and what is known of it.

    Attributes:
        spec: what it was trained by.
        dataset: what it was trained on.
        predictor: on the CPU, in eval mode, ready for raw inputs.
    """

    spec: TrainingSpec
    dataset: DatasetSummary
    predictor: Predictor

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one raw input: a generator takes noise."""
        architecture = self.spec.architecture
        return (architecture.latent,) if isinstance(architecture, GAN) else self.dataset.input_shape

    @property
    def facts(self) -> dict[str, Any]:
        """What `assemble` needs besides the tensors, as plain data."""
        return _facts(self.spec, self.dataset, self.predictor.network)


def save_model(folder: Path, spec: TrainingSpec, data: SplitData, network: nn.Module) -> None:
    """Write a trained network with all that is needed to use it; what was there is replaced.

    Args:
        folder: where to, made when it is missing.
        spec: what it was trained by.
        data: what it was trained on.
        network: `FitResult.model`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_TENSORS, _FACTS):
        clear_leftovers(folder, of=name)
    made = data.summary.task == "generation"
    inputs, targets = (None if made else data.inputs), _scale(spec, data)
    tensors = Predictor(network, inputs, targets).state_dict()
    examples = _noise(spec) if made else data.examples
    checksum = {"sha256": write_tensors(folder / _TENSORS, {**tensors, _EXAMPLES: examples})}
    write_json(folder / _FACTS, _facts(spec, data.summary, network) | checksum)


def load_model(folder: Path) -> Predictor:
    """A saved model on the CPU, in eval mode, ready for raw inputs.

    Raises:
        FileNotFoundError: there is none.
        BadData: it is damaged.
    """
    return load_saved(folder).predictor


def load_saved(folder: Path) -> SavedModel:
    """Likewise, with what is known of it.

    Raises:
        FileNotFoundError: there is none.
        BadData: it is damaged.
    """
    facts, tensors = _read(folder)
    del tensors[_EXAMPLES]
    return assemble(facts, tensors)


def assemble(
    facts: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    prepare: Callable[[nn.Module], object] = lambda network: None,
) -> SavedModel:
    """A model of what `save_model` wrote down.

    Args:
        facts: spec, data set and dropout rates.
        tensors: the predictor's state.
        prepare: what was done to the network before its state was taken, to be done again.
    """
    spec = TrainingSpec.parse(facts["spec"])
    dataset = DatasetSummary.model_validate(facts["dataset"])
    with torch.device("meta"):
        network = build_model(spec, dataset.input_shape, dataset.outputs, dataset.sequences)
    put_in_force(network, facts["dropout_rates"])
    prepare(network)
    inputs, targets = (_standardization(tensors, name) for name in ("input", "target"))
    predictor = Predictor(network, inputs, targets, _head(spec, dataset))
    predictor.load_state_dict(tensors, assign=True)
    return SavedModel(spec, dataset, predictor.eval().requires_grad_(False))


def load_examples(folder: Path) -> Tensor:
    """A few raw test samples, float32 `[n, *input_shape]`: what a model's signature is told by.

    Raises:
        FileNotFoundError: there is no saved model.
        BadData: it is damaged.
    """
    return _read(folder)[1][_EXAMPLES]


def _facts(spec: TrainingSpec, dataset: DatasetSummary, network: nn.Module) -> dict[str, Any]:
    return {
        "spec": spec.model_dump(mode="json"),
        "dataset": dataset.model_dump(mode="json"),
        "dropout_rates": rates_of(network),
    }


def _standardization(tensors: Mapping[str, Tensor], name: str) -> Standardization | None:
    if f"{name}_mean" not in tensors:
        return None
    return Standardization(tensors[f"{name}_mean"], tensors[f"{name}_std"])


def _scale(spec: TrainingSpec, data: SplitData) -> Standardization | None:
    """What brings the outputs of a network's head to the unit of the data."""
    if data.summary.task == "generation":
        return ValueRange(data).scale(-1.0, 1.0)
    if isinstance(spec.architecture, VAE):
        return (
            _copy(data.inputs)
            if _is_gaussian(spec.architecture)
            else ValueRange(data).scale(0.0, 1.0)
        )
    return data.targets


def _copy(scale: Standardization | None) -> Standardization | None:
    # Tensors that share memory cannot be saved together.
    return scale and Standardization(scale.mean.clone(), scale.std.clone())


def _head(spec: TrainingSpec, dataset: DatasetSummary) -> nn.Module:
    if not isinstance(spec.architecture, VAE):
        return nn.Identity()
    link = nn.Identity() if _is_gaussian(spec.architecture) else nn.Sigmoid()
    return nn.Sequential(link, nn.Unflatten(1, dataset.input_shape))


def _is_gaussian(settings: VAE) -> bool:
    return settings.likelihood == "gaussian"


def _noise(spec: TrainingSpec) -> Tensor:
    """A few inputs of a generator, float32 `[n, latent]`."""
    assert isinstance(spec.architecture, GAN)
    generator = torch.Generator().manual_seed(derived_seed(spec.seed, "examples"))
    return torch.randn(EXAMPLES, spec.architecture.latent, generator=generator)


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
