"""Dropout against values worked out by hand, in each form of rescaling."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from dropnorm_service.training.layers import Dropout, dropout
from dropnorm_service.training.layers.dropout import Method, Rescaling, stochastic_depth

FORMS = get_args(Rescaling)
METHODS: tuple[Method, ...] = get_args(Method)


def mask_of(shape: tuple[int, ...], rate: float, seed: int) -> torch.Tensor:
    """The kept units under a seed, 1 or 0."""
    torch.manual_seed(seed)
    return torch.empty(shape).bernoulli_(1.0 - rate)


def test_inverted_is_torchs_own_down_to_the_random_numbers() -> None:
    x = torch.randn(8, 16)
    torch.manual_seed(3)
    ours = dropout(x, 0.4, "inverted", training=True)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(x, 0.4, training=True))
    assert torch.equal(dropout(x, 0.4, "inverted", training=False), x)


def test_inverted_divides_what_it_keeps_by_the_share_kept() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    mask = mask_of((1, 4), 0.75, seed=0)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.75), mask * x * 4.0)


def test_at_inference_keeps_values_in_training_and_scales_them_in_evaluation() -> None:
    x = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    mask = mask_of((1, 4), 0.25, seed=1)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.25, "at_inference", training=True), mask * x)
    expected = torch.tensor([[0.75, -1.5, 2.25, 3.0]])
    assert torch.equal(dropout(x, 0.25, "at_inference", training=False), expected)


def test_l2_norm_divides_each_sample_by_the_norm_of_what_it_keeps() -> None:
    x = torch.tensor([[3.0, 4.0, 0.0, 12.0], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(
        dropout(x, 0.5, "l2_norm", training=False),
        torch.tensor([[3.0, 4.0, 0.0, 12.0], [6.5, 6.5, 6.5, 6.5]]) / 13.0,
    )
    kept = mask_of((2, 4), 0.5, seed=2) * x
    assert 0 < kept.count_nonzero() < x.count_nonzero()
    torch.manual_seed(2)
    expected = torch.stack([row / row.square().sum().sqrt() for row in kept])
    torch.testing.assert_close(dropout(x, 0.5, "l2_norm", training=True), expected)


def test_l2_norm_of_an_image_is_that_of_all_its_channels() -> None:
    x = torch.randn(5, 3, 4, 4)
    norms = dropout(x, 0.5, "l2_norm", training=False).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(5))


def test_l2_norm_leaves_a_zero_sample_zero_and_its_gradient_finite() -> None:
    x = torch.zeros(2, 4)
    x[1] = 1.0
    x.requires_grad_()
    y = dropout(x, 0.5, "l2_norm", training=False)
    assert torch.equal(y[0], torch.zeros(4))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[0].abs().max() <= 1.0


def test_l2_norm_survives_sixteen_bits() -> None:
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # squares overflow: 90000 > 65504
    y = dropout(x, 0.5, "l2_norm", training=False)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, torch.full_like(y, 8**-0.5))


@pytest.mark.parametrize("form", FORMS)
def test_forms_drop_the_same_units_under_one_seed(form: Rescaling) -> None:
    x = torch.rand(64, 32) + 0.1
    torch.manual_seed(11)
    dropped = dropout(x, 0.3, form, training=True) == 0.0
    assert torch.equal(dropped, mask_of((64, 32), 0.3, seed=11) == 0.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_a_rate_of_zero_is_off_and_draws_nothing(form: Rescaling, training: bool) -> None:
    x = torch.randn(4, 4)
    before = torch.get_rng_state()
    assert torch.equal(dropout(x, 0.0, form, training=training), x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_function(form: Rescaling, training: bool) -> None:
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def function(value: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return dropout(value, 0.4, form, training=training)

    assert torch.autograd.gradcheck(function, (x,))


def test_share_dropped_is_the_rate() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1000), 0.2, "at_inference") == 0.0
    assert dropped.float().mean().item() == pytest.approx(0.2, abs=0.002)  # 5 standard errors


def test_module_follows_its_mode_and_a_changed_rate() -> None:
    module = Dropout(0.5)
    x = torch.ones(4, 1000)
    assert (module(x) == 0.0).any()
    module.rate = 0.0
    assert torch.equal(module(x), x)
    module.rate = 0.9
    assert torch.equal(module.eval()(x), x)
    assert repr(module) == "Dropout(rate=0.9, method=unit, rescaling=inverted)"
    assert module.state_dict() == {}


def test_spatial_dropout_drops_whole_channels():
    x = torch.ones(50, 8, 4, 5)
    y = dropout(x, 0.25, method="spatial")
    channels = y.flatten(2)
    assert (channels == channels[:, :, :1]).all()
    kept = channels[:, :, 0] != 0.0
    assert 0.65 < kept.float().mean() < 0.85
    torch.testing.assert_close(channels[kept], torch.full((int(kept.sum()), 20), 1.0 / 0.75))
    assert len({tuple(row) for row in kept.tolist()}) > 1, "each sample has a mask of its own"
    torch.testing.assert_close(dropout(x, 0.25, method="spatial", training=False), x)
    torch.testing.assert_close(
        dropout(x, 0.25, "at_inference", method="spatial", training=False), 0.75 * x
    )


def test_spatial_dropout_of_vectors_drops_single_values():
    y = dropout(torch.ones(2000, 3), 0.5, method="spatial")
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert 0.45 < (y == 0.0).float().mean() < 0.55


def test_gaussian_dropout_multiplies_by_noise_of_the_stated_variance():
    torch.manual_seed(1)
    x = torch.full((400, 500), 3.0)
    noise = dropout(x, 0.2, method="gaussian") / x
    assert noise.mean().item() == pytest.approx(1.0, abs=0.005)
    assert noise.var().item() == pytest.approx(0.25, rel=0.02)
    assert torch.equal(dropout(x, 0.2, method="gaussian", training=False), x)


def test_alpha_dropout_is_torchs_and_keeps_mean_and_variance():
    x = torch.randn(400, 500)
    torch.manual_seed(1)
    y = dropout(x, 0.3, method="alpha")
    torch.manual_seed(1)
    assert torch.equal(y, F.alpha_dropout(x, 0.3, training=True))
    assert (y.mean().item(), y.var().item()) == pytest.approx((0.0, 1.0), abs=0.03)
    assert torch.equal(dropout(x, 0.3, method="alpha", training=False), x)


def test_stochastic_depth_drops_samples_and_keeps_the_mean():
    torch.manual_seed(1)
    x = torch.ones(5000, 2, 3)
    y = stochastic_depth(x, 0.2)
    samples = y.flatten(1)
    assert (samples == samples[:, :1]).all()
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(stochastic_depth(x, 0.2, training=False), x)
    assert stochastic_depth(x, 0.0) is x


def test_gradients_pass_where_something_is_kept():
    for method in METHODS:
        x = torch.rand(4, 3, 2, dtype=torch.float64, requires_grad=True)

        def fixed(x: torch.Tensor, method: Method = method) -> torch.Tensor:
            torch.manual_seed(3)
            return dropout(x, 0.4, method=method)

        assert torch.autograd.gradcheck(fixed, x)
