"""Standardisation: measured on the training split, by feature, channel or altogether."""

import pytest
import torch
from tests.service.training.made import CPU, classification, regression, split_of
from tests.service.training.shorthand import mlp

from dropnorm import spec as dn
from dropnorm_service.training.data import split
from dropnorm_service.training.data.standardization import measure

FEATURES = torch.tensor([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0], [5.0, 20.0, 7.0]])
BYTES = torch.randint(
    0, 256, (50, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_features_get_mean_0_and_deviation_1_and_constant_ones_stay_finite():
    found = measure(FEATURES, "per_feature")
    assert found.mean.tolist() == [3.0, 20.0, 7.0]
    assert found.std.tolist() == pytest.approx([(8 / 3) ** 0.5, (200 / 3) ** 0.5, 1.0])
    assert found(FEATURES)[:, 2].tolist() == [0.0, 0.0, 0.0]


def test_a_large_constant_is_not_taken_for_noise():
    values = torch.full((1000, 1), 1e6 + 0.1)
    assert measure(values, "per_feature").std.tolist() == [1.0]


def test_global_takes_all_together():
    found = measure(FEATURES, "global")
    assert found.mean.tolist() == pytest.approx([FEATURES.mean().item()])
    assert found.std.tolist() == pytest.approx([FEATURES.std(correction=0).item()])


@pytest.mark.parametrize("values", [BYTES, BYTES.float()], ids=["bytes", "floats"])
def test_images_are_measured_by_channel(values):
    found = measure(values, "per_feature")
    assert found.mean.shape == (3, 1, 1)
    standard = found(values).double()
    assert standard.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert standard.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("mode", ["per_feature", "global"])
def test_bytes_and_floats_measure_alike(mode):
    of_bytes, of_floats = measure(BYTES, mode), measure(BYTES.float(), mode)
    torch.testing.assert_close(of_bytes.mean, of_floats.mean)
    torch.testing.assert_close(of_bytes.std, of_floats.std)


def test_none_keeps_values_but_brings_bytes_to_0_to_1():
    assert torch.equal(measure(FEATURES, "none")(FEATURES), FEATURES)
    assert torch.equal(measure(BYTES, "none")(BYTES), BYTES.float() / 255)


def test_a_black_channel_stays_finite():
    black = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    assert measure(black, "per_feature")(black).abs().max() == 0.0


def test_only_the_training_split_is_measured():
    spec = mlp(4)
    dataset = classification(5)
    data = split_of(spec, dataset)
    torch.testing.assert_close(data.train.x.mean(dim=0), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.x.std(dim=0, correction=0), torch.ones(5))
    assert data.test.x.mean(dim=0).abs().max() > 1e-3
    assert data.inputs is not None
    torch.testing.assert_close(data.inputs(data.examples), data.test.x[:5])


def test_regression_targets_are_standardised_and_come_back():
    dataset = regression(5, targets=2)
    data = split_of(mlp(4), dataset)
    assert data.targets is not None
    torch.testing.assert_close(data.train.y.mean(dim=0), torch.zeros(2), atol=1e-6, rtol=0)
    raw = data.targets.undo(data.train.y)
    assert raw.mean() == pytest.approx(100.0, abs=10.0)


def test_regression_targets_stay_raw_without_standardization():
    spec = mlp(4, data=dn.Data(dataset="made", standardization="none"))
    dataset = regression(5)
    data = split_of(spec, dataset)
    assert set(data.train.y.flatten().tolist()) <= set(dataset.tensors["y"].flatten().tolist())


def test_a_split_says_what_it_is():
    data = split(mlp(4), classification(1, 4, 4, samples=100), CPU)
    assert data.summary.train_samples == len(data.train) == 68
    assert data.summary.validation_samples == len(data.validation) == 12
    assert data.summary.test_samples == len(data.test) == 20
    assert data.input_shape == (1, 4, 4)
    assert data.examples.shape == (5, 1, 4, 4)
