"""Corruptions against formulations written out, and adaptation against batch statistics by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import asked, listed, problems, summary
from torch import Tensor
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.results.diagnostics import Corruption
from dropnorm.spec import layers
from dropnorm_service.training import check, fit
from dropnorm_service.training.evaluation.corruptions import CORRUPTIONS, STRENGTHS

MEASURED = dn.EvaluationSettings(robustness=True)


def network(*, norm: bool = True, batch_size: int = 48) -> dn.TrainingSpec:
    regularization = dn.Regularization(batch_norm=dn.BatchNorm()) if norm else dn.Regularization()
    return listed(
        layers.Conv(channels=4),
        layers.Activation(),
        layers.Pool(mode="global_average"),
        optimization=asked(batch_size=batch_size),
        regularization=regularization,
        evaluation=MEASURED,
    )


def corrupted(name: Corruption, x: Tensor, strength: int = 3, seed: int = 0) -> Tensor:
    return CORRUPTIONS[name](x, strength, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_is_further_from_the_image_and_stays_an_image(name: Corruption) -> None:
    torch.manual_seed(0)
    x = F.avg_pool2d(torch.rand(20, 3, 40, 36), 5, stride=1, padding=2)  # smooth, as images are
    kept = x.clone()
    distances = []
    for strength in STRENGTHS:
        y = corrupted(name, x, strength)
        assert y.shape == x.shape
        assert 0.0 <= y.min() <= y.max() <= 1.0
        assert torch.equal(y, corrupted(name, x, strength))
        distances.append((y - x).square().mean().item())
    assert torch.equal(x, kept)
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_noise_has_the_deviations_of_imagenet_c() -> None:
    x = torch.full((50, 1, 32, 32), 0.5)
    for strength, deviation in zip((1, 2), (0.08, 0.12), strict=True):
        noise = corrupted("gaussian_noise", x, strength) - x
        assert noise.std().item() == pytest.approx(deviation, rel=0.02)


def test_blur_is_a_convolution_with_the_normal_density_along_both_axes() -> None:
    torch.manual_seed(0)
    x, deviation = torch.rand(1, 1, 32, 32), 0.7
    places = np.arange(32)
    # What lies beyond an edge is the edge, so that its weight gathers there.
    wide = np.arange(-32, 64)
    weights = np.exp(-0.5 * ((wide[None] - places[:, None]) / deviation) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((32, 32))
    for column, place in enumerate(np.clip(wide, 0, 31)):
        matrix[:, place] += weights[:, column]
    exact = matrix @ x[0, 0].double().numpy() @ matrix.T
    torch.testing.assert_close(
        corrupted("gaussian_blur", x)[0, 0].double(), torch.from_numpy(exact), atol=1e-4, rtol=0
    )


def test_contrast_moves_each_channel_to_its_mean() -> None:
    x = torch.rand(2, 3, 5, 5)
    mean = x.flatten(2).mean(dim=2)[:, :, None, None]
    torch.testing.assert_close(corrupted("contrast", x), 0.2 * x + 0.8 * mean)


def test_shift_moves_each_image_in_drawn_directions_between_pixels_too() -> None:
    x = torch.rand(40, 2, 32, 16)  # by 3 rows and 1.5 columns
    seen = set()
    for image, moved in zip(x, corrupted("shift", x), strict=True):
        for rows in (-3, 3):
            for columns in (-1, 1):
                near, far = (image.roll((rows, columns * step), dims=(1, 2)) for step in (1, 2))
                inside = (slice(None), slice(3, -3), slice(2, -2))
                if torch.allclose(moved[inside], (near[inside] + far[inside]) / 2):
                    seen.add((rows, columns))
    assert seen == {(-3, -1), (-3, 1), (3, -1), (3, 1)}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_strength_differs_on_the_smallest_images_too(name: Corruption) -> None:
    torch.manual_seed(0)
    x = F.interpolate(torch.rand(20, 1, 3, 3), size=8, mode="bilinear")
    distances = [(corrupted(name, x, each) - x).square().mean().item() for each in STRENGTHS]
    assert distances[0] > 1e-5
    assert all(one < 0.97 * other for one, other in pairwise(distances))


def test_what_is_not_corrupted_is_the_test_split_with_and_without_adaptation() -> None:
    spec = network(batch_size=16)
    data = split_of(spec, classification(2, 6, 6))
    result = fit(spec, data)
    clean, *rest = result.evaluation.robustness
    assert len(rest) == 20
    assert (clean.corruption, clean.strength) == ("none", 0)
    assert clean.loss == pytest.approx(result.evaluation.test.loss, rel=1e-6)
    assert clean.accuracy == result.evaluation.test.accuracy
    # By hand: each batch of at least 16, normalised by its own mean and variance.
    norm = next(name for name, each in result.model.named_modules() if name.endswith("norm"))
    batches = data.test.x.tensor_split(len(data.test) // 16)
    logits = []
    for batch in batches:
        assert len(batch) >= 16
        convolution = result.model.get_submodule("layers.0.conv")
        reached = convolution(batch)
        values = reached.transpose(0, 1).flatten(1)
        layer = result.model.get_submodule(norm)
        variance, mean = torch.var_mean(values, dim=1, correction=0)
        x = (values - mean[:, None]) / (variance[:, None] + 1e-5).sqrt()
        x = x * layer.get_parameter("weight")[:, None] + layer.get_parameter("bias")[:, None]
        pooled = x.relu().view(4, len(batch), -1).mean(dim=2).T
        logits.append(result.model.get_submodule("output.linear")(pooled))
    loss = F.cross_entropy(torch.cat(logits), data.test.y).item()
    assert clean.adapted_loss == pytest.approx(loss, rel=1e-4)
    assert not math.isclose(clean.adapted_loss or 0.0, clean.loss, rel_tol=1e-3)


def test_without_batch_norm_nothing_adapts_and_a_regression_has_no_accuracy() -> None:
    spec = network(norm=False)
    rows = fit(spec, split_of(spec, regression(1, 6, 6))).evaluation.robustness
    assert len(rows) == 21
    assert all(row.accuracy is row.adapted_loss is row.adapted_accuracy is None for row in rows)


def test_adaptation_undoes_a_shift_of_contrast() -> None:
    """A network that has learned something loses it when contrast goes, and gets it back by the batch's statistics."""
    spec = network().model_copy(update={"optimization": asked(dn.Adam(lr=0.05), epochs=8)})
    rows = fit(spec, split_of(spec, classification(2, 6, 6, samples=600))).evaluation.robustness
    (row,) = [row for row in rows if (row.corruption, row.strength) == ("contrast", 5)]
    assert row.adapted_accuracy is not None
    assert row.accuracy is not None
    assert row.adapted_accuracy > row.accuracy + 0.05


def test_measuring_leaves_the_network_alone() -> None:
    spec = network()
    plain = spec.model_copy(update={"evaluation": dn.EvaluationSettings()})
    data = split_of(spec, classification(2, 6, 6))
    without, measured = (fit(each, data).model.state_dict() for each in (plain, spec))
    for name, tensor in measured.items():
        assert torch.equal(tensor, without[name]), name


def test_only_images_are_corrupted() -> None:
    vectors = network().model_copy(update={"architecture": dn.MLP(hidden=(4,))})
    with pytest.raises(dn.InvalidSpecError) as raised:
        check(vectors, summary(6))
    assert set(problems(raised.value)) == {"evaluation.robustness"}
    check(network(), summary(1, 6, 6))
