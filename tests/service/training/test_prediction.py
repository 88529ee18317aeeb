"""Predictions for raw inputs: one pass, or several with dropout on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.service.training import test_token_families
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import mlp

from dropnorm import spec as dn
from dropnorm.results import Prediction
from dropnorm.spec import DropoutSampling, InvalidSpecError
from dropnorm.spec import Tensor as Array
from dropnorm_service.training import BadData, ServedModel, fit, load_model, save_model
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import Dataset
from dropnorm_service.training.evaluation.modes import dropping
from dropnorm_service.training.prediction import predict_by_samples

BRIEF = dn.Optimization(epochs=2, batch_size=32)
DROPPING = dn.Regularization(
    dropout=dn.Dropout(rate=0.4, rescaling="at_inference"), batch_norm=dn.BatchNorm()
)


def served(spec: dn.TrainingSpec, dataset: Dataset, folder: Path) -> ServedModel:
    data = split_of(spec, dataset)
    save_model(folder, spec, data, fit(spec, data).model)
    return ServedModel(folder)


def array(values: torch.Tensor) -> Array:
    dtype = str(values.dtype).removeprefix("torch.")
    return Array(shape=tuple(values.shape), dtype=dtype, data=values.numpy().tobytes())  # type: ignore[arg-type]


def passes(folder: Path, x: torch.Tensor, samples: int, seed: int) -> torch.Tensor:
    """The outputs of each pass, float64 `[samples, inputs, outputs]`: dropout as in training, batch norm not."""
    model = load_model(folder)
    for module in model.modules():
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not list(
            module.children()
        ):
            module.train()
    said = []
    for place, each in enumerate(x):
        torch.manual_seed(derived_seed(seed, "prediction", place))
        with torch.no_grad():
            said.append(model(each.expand(samples, *each.shape)).double())
    return torch.stack(said, dim=1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedModel, Path, torch.Tensor]:
    folder = tmp_path_factory.mktemp("saved") / "model"
    dataset = classification(6)
    model = served(mlp(16, optimization=BRIEF, regularization=DROPPING), dataset, folder)
    return model, folder, dataset.tensors["x"][:20].clone()


def test_one_pass_gives_logits_probabilities_and_their_entropy(classifier):
    model, folder, x = classifier
    said = model.answer("trainingJobs/a", array(x), None)

    expected = load_model(folder)(x)
    shares = expected.softmax(dim=1).double()
    assert np.array_equal(np.asarray(said.outputs), expected.numpy())
    assert np.allclose(np.asarray(said.probabilities), shares, atol=1e-7)
    assert np.allclose(np.asarray(said.entropy), -(shares * shares.log()).sum(1), atol=1e-6)
    assert said.classes == tuple(expected.argmax(dim=1).tolist())
    assert said.standard_deviation is None
    assert said.mutual_information is None


def test_several_passes_give_the_mean_and_the_spread_of_what_each_says(classifier):
    model, folder, x = classifier
    said = model.answer("trainingJobs/a", array(x), DropoutSampling(samples=7, seed=3))

    logits = passes(folder, x, samples=7, seed=3)
    shares = logits.softmax(dim=2)
    mean = shares.mean(dim=0)
    whole = -(mean * mean.log()).sum(dim=1)
    within = -(shares * shares.log()).sum(dim=2).mean(dim=0)
    assert np.allclose(np.asarray(said.outputs), logits.mean(dim=0), atol=1e-6)
    assert np.allclose(np.asarray(said.probabilities), mean, atol=1e-6)
    assert np.allclose(np.asarray(said.standard_deviation), shares.std(dim=0), atol=1e-6)
    assert np.allclose(np.asarray(said.entropy), whole, atol=1e-6)
    assert np.allclose(np.asarray(said.mutual_information), whole - within, atol=1e-6)
    assert np.asarray(said.standard_deviation).min() > 0.0


def test_the_seed_decides_and_the_model_is_left_as_it_was(classifier):
    model, _, x = classifier
    plain = model.answer("trainingJobs/a", array(x), None)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    sampled = [
        model.answer("trainingJobs/a", array(x), DropoutSampling(samples=3, seed=seed))
        for seed in (1, 1, 2)
    ]

    assert sampled[0] == sampled[1] != sampled[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.answer("trainingJobs/a", array(x), None) == plain


@pytest.mark.parametrize(
    "dropout",
    [
        dn.Dropout(rate=0.4, rescaling="at_inference"),
        dn.Dropout(rate=0.2, dropconnect_rate=0.3),
    ],
    ids=["units", "weights"],
)
def test_what_is_dropped_for_an_input_does_not_depend_on_the_cut(dropout, tmp_path):
    dataset = classification(6)
    regularization = dn.Regularization(dropout=dropout, batch_norm=dn.BatchNorm())
    spec = mlp(16, optimization=BRIEF, regularization=regularization)
    model = served(spec, dataset, tmp_path / "model")
    x = dataset.tensors["x"][:7].clone()

    def said(start: int, end: int) -> Prediction:
        sampling = DropoutSampling(samples=5, seed=4, offset=start)
        return model.answer("trainingJobs/a", array(x[start:end]), sampling)

    whole = said(0, 7)
    for cut in ([0, 3, 6, 7], [0, 5, 7], list(range(8))):
        parts = [said(*ends) for ends in pairwise(cut)]
        for name in ("outputs", "probabilities", "standard_deviation", "mutual_information"):
            together = np.concatenate([np.asarray(getattr(part, name)) for part in parts])
            assert np.array_equal(together, np.asarray(getattr(whole, name)))
    same = array(x[:1].repeat(7, 1))
    twins = model.answer("trainingJobs/a", same, DropoutSampling(samples=5))
    assert len(np.unique(np.asarray(twins.outputs), axis=0)) == 7, "each has masks of its own"


def test_more_passes_than_a_batch_holds_come_to_the_same_moments(classifier):
    _, folder, x = classifier
    model = load_model(folder)
    said = predict_by_samples(model, x[:3], classes=True, batch_size=4, samples=10, seed=2)

    several = []
    for place, each in enumerate(x[:3]):
        torch.manual_seed(derived_seed(2, "prediction", place))
        with torch.no_grad(), dropping(model):
            parts = [model(each.expand(count, -1)) for count in (4, 4, 2)]
        several.append(torch.cat(parts).double().softmax(dim=1))
    assert said.probabilities is not None
    assert said.standard_deviation is not None
    for place, shares in enumerate(several):
        assert torch.allclose(said.probabilities[place].double(), shares.mean(dim=0), atol=1e-6)
        assert torch.allclose(said.standard_deviation[place].double(), shares.std(dim=0), atol=1e-6)


def test_norms_by_the_batch_see_all_inputs_of_a_pass(tmp_path):
    dataset = classification(6)
    regularization = dn.Regularization(
        dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm(track_running_stats=False)
    )
    spec = mlp(16, optimization=BRIEF, regularization=regularization)
    model = served(spec, dataset, tmp_path / "model")
    x = dataset.tensors["x"][:64].clone()

    plain = model.answer("trainingJobs/a", array(x), None)
    sampled = model.answer("trainingJobs/a", array(x), DropoutSampling(samples=50))

    agree = np.mean(np.array(plain.classes) == np.array(sampled.classes))
    assert agree > 0.8
    with pytest.raises(InvalidSpecError, match="a batch of one input does not allow"):
        model.answer("trainingJobs/a", array(x[:1]), None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite_are_named(classifier, value):
    model, _, x = classifier
    wrong = x.clone()
    wrong[5] = value
    for sampling in (None, DropoutSampling(samples=3)):
        with pytest.raises(InvalidSpecError, match="input 5 ") as caught:
            model.answer("trainingJobs/a", array(wrong), sampling)
        assert [problem.field for problem in caught.value.problems] == ["inputs.data"]


def test_inputs_whose_outputs_are_not_finite_are_named(tmp_path):
    dataset = classification(6)
    dataset.tensors["x"].mul_(1e-3)
    model = served(mlp(16, optimization=BRIEF, regularization=DROPPING), dataset, tmp_path / "m")
    x = dataset.tensors["x"][:7].clone()
    x[5] = 3e38  # standardised it is more than float32 holds
    for sampling in (None, DropoutSampling(samples=3)):
        with pytest.raises(
            InvalidSpecError, match="input 5 is beyond what the model can"
        ) as caught:
            model.answer("trainingJobs/a", array(x), sampling)
        assert [problem.field for problem in caught.value.problems] == ["inputs.data"]


def test_regression_gives_values_in_the_unit_of_the_data(tmp_path):
    dataset = regression(5, targets=2)
    spec = mlp(8, optimization=BRIEF, regularization=DROPPING)
    model = served(spec, dataset, tmp_path / "model")
    x = dataset.tensors["x"][:9].clone()

    said = model.answer("trainingJobs/a", array(x), None)
    sampled = model.answer("trainingJobs/a", array(x), DropoutSampling(samples=4))

    each = passes(tmp_path / "model", x, samples=4, seed=0)
    assert np.array_equal(np.asarray(said), load_model(tmp_path / "model")(x).numpy())
    assert said.probabilities is None
    assert np.allclose(np.asarray(sampled.standard_deviation), each.std(dim=0), rtol=1e-4)
    with pytest.raises(ValueError, match="regression tells no classes"):
        _ = said.classes


def test_numbers_of_any_type_are_the_same_numbers(tmp_path):
    dataset = classification(1, 4, 4)
    model = served(mlp(8, optimization=BRIEF), dataset, tmp_path / "model")
    x = torch.randint(0, 200, (5, 1, 4, 4))
    answers: list[Prediction] = [
        model.answer("trainingJobs/a", array(x.to(dtype)), None)
        for dtype in (torch.float32, torch.uint8, torch.int64)
    ]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("shape", "field", "text"),
    [
        ((4, 5), "inputs.shape", r"takes \[inputs, 6\] and was given \[4, 5\]"),
        ((6,), "inputs.shape", r"was given \[6\]"),
        ((0, 6), "inputs.shape", "give 1 to 100,000 inputs"),
    ],
)
def test_inputs_of_another_shape_are_named(classifier, shape, field, text):
    model, _, _ = classifier
    with pytest.raises(InvalidSpecError, match=text) as caught:
        model.answer("trainingJobs/a", array(torch.zeros(shape)), None)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_a_model_that_drops_nothing_cannot_be_sampled(tmp_path):
    model = served(mlp(8, optimization=BRIEF), classification(6), tmp_path / "model")
    with pytest.raises(InvalidSpecError, match="drops nothing"):
        model.answer("trainingJobs/a", array(torch.zeros(2, 6)), DropoutSampling())


def test_a_damaged_model_is_named(classifier, tmp_path):
    _, folder, _ = classifier
    (tmp_path / "model.json").write_bytes((folder / "model.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadData, match="damaged"):
        ServedModel(tmp_path)


@pytest.mark.parametrize("name", test_token_families.SMALL)
def test_models_of_tokens_take_tokens(name, tmp_path):
    training = test_token_families.asked(name, epochs=1)
    data = test_token_families.data_of(name, training)
    save_model(tmp_path / "model", training, data, fit(training, data).model)
    model = ServedModel(tmp_path / "model")

    said = model.answer("trainingJobs/a", array(data.examples), None)

    with torch.no_grad():
        expected = load_model(tmp_path / "model")(data.examples)
    assert np.array_equal(np.asarray(said), expected.numpy())
    with pytest.raises(InvalidSpecError, match="give int64"):
        model.answer("trainingJobs/a", array(data.examples.float()), None)
    with pytest.raises(InvalidSpecError, match="tokens are numbers from 0 to"):
        model.answer("trainingJobs/a", array(data.examples + 10_000), None)
    if said.task == "sequence_to_sequence":
        with pytest.raises(InvalidSpecError, match="tokens, which have no mean"):
            model.answer("trainingJobs/a", array(data.examples), DropoutSampling())
