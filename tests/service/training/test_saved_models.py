"""Saved models: raw samples in, the same numbers out, anywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.service.training.killing import killed_at
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import listed, mlp

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import (
    BadData,
    FitResult,
    SplitData,
    fit,
    load_examples,
    load_model,
    save_model,
    save_pictures,
)
from dropnorm_service.training.data import Dataset

BRIEF = dn.Optimization(epochs=2, batch_size=32)
REGULARIZATION = dn.Regularization(
    dropout=dn.Dropout(rate=0.4, rescaling="at_inference"), batch_norm=dn.BatchNorm(input=True)
)
CASES: dict[str, tuple[dn.TrainingSpec, Dataset]] = {
    "mlp": (mlp(8, optimization=BRIEF, regularization=REGULARIZATION), classification(6)),
    "mlp on images": (mlp(8, optimization=BRIEF), classification(1, 4, 4)),
    "convolutions": (
        listed(
            layers.Conv(channels=4),
            layers.Activation(),
            layers.Residual(layers=(layers.Conv(channels=8, stride=2), layers.Activation())),
            layers.Pool(mode="global_average"),
            optimization=BRIEF,
            regularization=REGULARIZATION,
        ),
        classification(2, 6, 6),
    ),
    "l2 norm": (
        mlp(
            8,
            optimization=BRIEF,
            regularization=dn.Regularization(dropout=dn.Dropout(rate=0.4, rescaling="l2_norm")),
        ),
        classification(6),
    ),
    "regression": (mlp(8, optimization=BRIEF), regression(5, targets=2)),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def trained(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Dataset, SplitData, FitResult, Path]:
    """A data set, its splits, what was trained on it, and the folder it was saved in."""
    spec, dataset = request.param
    data = split_of(spec, dataset)
    result = fit(spec, data)
    save_model(tmp_path / "model", spec, data, result.model)
    return dataset, data, result, tmp_path / "model"


def test_raw_samples_give_what_the_network_gave_on_standardised_ones(trained):
    dataset, data, result, folder = trained
    model = load_model(folder)
    with torch.no_grad():
        expected = result.model(data.inputs(dataset.tensors["x"]))
        if data.targets is not None:
            expected = data.targets.undo(expected)
        assert torch.equal(model(dataset.tensors["x"]), expected)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_examples_are_raw_test_samples(trained):
    dataset, data, _, folder = trained
    examples = load_examples(folder)
    assert examples.shape == (5, *data.input_shape)
    torch.testing.assert_close(data.inputs(examples), data.test.x[:5])
    assert all(
        (dataset.tensors["x"] == example).flatten(1).all(dim=1).any() for example in examples
    )


def test_it_exports_with_a_dynamic_batch(trained):
    dataset, _, _, folder = trained
    model, examples = load_model(folder), load_examples(folder)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (examples,), dynamic_shapes=({0: batch},)).module()
    for samples in (1, 2, 5, 64):
        x = dataset.tensors["x"][:samples]
        torch.testing.assert_close(exported(x), model(x))


_ELSEWHERE = """
import json, sys
from pathlib import Path
from dropnorm_service.training import load_examples, load_model
folder = Path(sys.argv[1])
print(json.dumps(load_model(folder)(load_examples(folder)).tolist()))
print(any(name in sys.modules for name in ("sklearn", "mlflow", "grpc")))
"""


def test_another_process_opens_it_with_torch_alone(tmp_path):
    spec, dataset = CASES["convolutions"]
    data = split_of(spec, dataset)
    save_model(tmp_path, spec, data, fit(spec, data).model)
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    outputs, others = done.stdout.splitlines()
    assert json.loads(outputs) == load_model(tmp_path)(load_examples(tmp_path)).tolist()
    assert others == "False"


def test_bytes_are_taken_as_they_are(tmp_path):
    spec, dataset = CASES["mlp on images"]
    x = (dataset.tensors["x"] * 10).clamp(0, 255).to(torch.uint8)
    data = split_of(spec, Dataset(dataset.info, dataset.digest, {**dataset.tensors, "x": x}))
    save_model(tmp_path, spec, data, fit(spec, data).model)
    model = load_model(tmp_path)
    assert torch.equal(model(x), model(x.float()))


def test_facts_are_json(tmp_path):
    spec, dataset = CASES["mlp"]
    data = split_of(spec, dataset)
    save_model(tmp_path, spec, data, fit(spec, data).model)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert dn.TrainingSpec.parse(facts["spec"]) == spec
    assert facts["dataset"]["class_names"] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_damaged_model_is_refused(tmp_path, name):
    spec, dataset = CASES["mlp"]
    data = split_of(spec, dataset)
    save_model(tmp_path, spec, data, fit(spec, data).model)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-5])
    for read in (load_model, load_examples):
        with pytest.raises(BadData, match=f"{name} is damaged"):
            read(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nowhere")


def test_what_a_kill_left_goes_when_the_model_is_saved_again(tmp_path: Path) -> None:
    spec, dataset = CASES["mlp"]
    data = split_of(spec, dataset)
    network = fit(spec, data).model
    (tmp_path / ".mine").write_text("is no leftover")

    def save() -> None:
        save_model(tmp_path, spec, data, network)
        save_pictures(tmp_path, {"samples": torch.zeros(1, 2, 2, 3, dtype=torch.uint8)})

    left = 0
    for moment in range(1, 100):
        if not killed_at(moment, save):
            break
        left += len(list(tmp_path.glob(".*"))) > 1
        save()
        assert {path.name for path in tmp_path.iterdir()} == {
            ".mine",
            "model.json",
            "model.safetensors",
            "pictures.safetensors",
        }
    assert left > 5
