"""Exports: every family in every form predicts what the original does, and says so."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training import test_families, test_generative, test_token_families
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import listed, mlp

from dropnorm import spec as dn
from dropnorm.results import ExportProof, ModelExport
from dropnorm.spec import ExportSettings, layers
from dropnorm_service.training import (
    BadData,
    CannotExport,
    Deviates,
    export_formats,
    export_model,
    exporting,
    fit,
    load_model,
    load_saved,
    read_portable,
    save_model,
)
from dropnorm_service.training.data import Dataset, raw_splits

BRIEF = dn.Optimization(epochs=1, batch_size=32)
BOTH = dn.Regularization(
    dropout=dn.Dropout(rate=0.2, stochastic_depth_rate=0.1), batch_norm=dn.BatchNorm()
)
NETWORK = listed(
    layers.Conv(channels=4),
    layers.BatchNorm(),
    layers.Activation(),
    layers.Pool(mode="global_average"),
    optimization=BRIEF,
    regularization=BOTH,
)
IMAGES = classification(1, 12, 12, samples=120)


def saved_in(folder: Path, training: dn.TrainingSpec, dataset: Dataset) -> Path:
    data = split_of(training, dataset)
    save_model(folder, training, data, fit(training, data).model)
    return folder


def exported(
    tmp_path: Path, training: dn.TrainingSpec, dataset: Dataset, **settings: Any
) -> ModelExport:
    folder = tmp_path / "saved"
    if not folder.exists():
        saved_in(folder, training, dataset)
    return export_model(
        load_saved(folder),
        dataset,
        ExportSettings(**settings),
        name="trainingJobs/a/exports/b",
        folder=tmp_path / "exports" / "b",
    )


def test_other_data_of_the_same_name_proves_nothing(tmp_path):
    exported(tmp_path, NETWORK, IMAGES, format="safetensors")
    other = replace(IMAGES, digest="1" * 64)
    with pytest.raises(BadData, match=r"the data set .* trained on is no longer there"):
        exported(tmp_path, NETWORK, other, format="safetensors")


def test_an_export_is_a_file_with_its_proof(tmp_path):
    export = exported(tmp_path, NETWORK, IMAGES, format="pt2", fold_batch_norm=True)

    content = (tmp_path / "exports" / "b" / "model.pt2").read_bytes()
    assert (export.size_bytes, export.sha256) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert (export.folded_norms, export.kept_norms, export.removed_dropouts) == (1, 1, 1)
    assert (tmp_path / "exports" / "b" / "export.json").read_text() == export.model_dump_json(
        indent=1
    )
    test = raw_splits(NETWORK, IMAGES)[2]
    outputs = load_model(tmp_path / "saved")(test.x)
    proof = export.proof
    assert proof.samples == len(test)
    assert proof.largest_output == pytest.approx(outputs.abs().max().item())
    assert proof.largest_deviation <= 1e-5 * max(1.0, proof.largest_output)
    accuracy = (outputs.argmax(dim=1) == test.y).double().mean().item()
    assert (proof.accuracy, proof.original_accuracy) == (accuracy, accuracy)
    assert 0.0 < proof.milliseconds < math.inf
    assert proof.batch_size == min(32, len(test))


@pytest.mark.parametrize("name", test_families.SMALL | test_generative.SMALL)
def test_every_family_is_exported_folded(name, tmp_path):
    families = test_families.SMALL | test_generative.SMALL
    training = test_families.spec(families[name], BOTH, optimization=BRIEF)
    for format in ("safetensors", "pt2"):
        export = exported(tmp_path, training, IMAGES, format=format, fold_batch_norm=True)
        assert export.folded_norms + export.kept_norms > 0


@pytest.mark.parametrize("name", test_token_families.SMALL)
def test_models_of_tokens_are_exported(name, tmp_path):
    training = test_token_families.asked(name, test_token_families.BOTH, epochs=1)
    dataset = test_token_families.SMALL[name].dataset
    for format in ("safetensors", "pt2"):
        exported(tmp_path, training, dataset, format=format, fold_batch_norm=True)


ONNX = {
    "mlp": (mlp(8, optimization=BRIEF, regularization=BOTH), classification(6)),
    "convolutions": (NETWORK, IMAGES),
    "regression": (mlp(8, optimization=BRIEF, regularization=BOTH), regression(5, targets=2)),
}
ONNX |= {
    name: (test_token_families.asked(name, epochs=1), test_token_families.SMALL[name].dataset)
    for name in test_token_families.SMALL
}
ONNX |= {
    name: (test_families.spec(each, BOTH, optimization=BRIEF), IMAGES)
    for name, each in (test_families.SMALL | test_generative.SMALL).items()
    if name in ("resnet", "gan")
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_predicts_the_same(name, tmp_path):
    training, dataset = ONNX[name]
    export = exported(tmp_path, training, dataset, format="onnx", fold_batch_norm=True)
    assert export.file_name == "model.onnx"


def test_a_safetensors_export_is_a_model_with_its_spec(tmp_path):
    exported(tmp_path, NETWORK, IMAGES, format="safetensors", fold_batch_norm=True)
    model = read_portable(tmp_path / "exports" / "b" / "model.safetensors")

    x = IMAGES.tensors["x"][:8]
    expected = load_model(tmp_path / "saved")(x)
    assert model.spec == NETWORK
    assert torch.allclose(model.predictor(x), expected, atol=1e-5)
    names = {name for name, _ in model.predictor.network.named_parameters()}
    assert "layers.0.conv.bias" in names
    assert not any("layers.1" in name for name in names)


def test_without_folding_weights_are_those_of_the_training(tmp_path):
    export = exported(tmp_path, NETWORK, IMAGES, format="safetensors")
    model = read_portable(tmp_path / "exports" / "b" / "model.safetensors").predictor
    original = load_model(tmp_path / "saved").state_dict()
    assert model.state_dict().keys() == original.keys()
    assert all(torch.equal(model.state_dict()[name], each) for name, each in original.items())
    assert (export.folded_norms, export.removed_dropouts) == (0, 0)
    assert export.proof.largest_deviation == 0.0


def test_an_export_beyond_its_tolerance_is_refused_and_leaves_the_last_one(tmp_path):
    good = exported(tmp_path, NETWORK, IMAGES, format="safetensors", fold_batch_norm=True)
    with pytest.raises(Deviates, match=r"is off by .* and the tolerance allows"):
        exported(tmp_path, NETWORK, IMAGES, format="pt2", fold_batch_norm=True, tolerance=1e-12)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["b"]
    written = json.loads((tmp_path / "exports" / "b" / "export.json").read_text())
    assert ModelExport.model_validate(written) == good


def test_small_outputs_have_a_small_tolerance():
    facts: dict[str, Any] = {"samples": 1, "batch_size": 1, "threads": 1, "milliseconds": 1.0}
    facts |= {"original_milliseconds": 1.0, "largest_output": 1e-5}
    asked = ExportSettings(format="onnx", tolerance=1e-3)
    exporting._check(ExportProof(**facts, largest_deviation=5e-9), asked)
    with pytest.raises(Deviates):
        exporting._check(ExportProof(**facts, largest_deviation=2e-8), asked)


def test_what_is_missing_is_named():
    with pytest.raises(CannotExport, match="lacks onnx_of_nobody, which onnx needs: install"):
        export_formats._need("json", "onnx_of_nobody")
