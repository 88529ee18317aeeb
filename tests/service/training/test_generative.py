"""Autoencoders and adversarial pairs: sizes, losses against independent formulas, results, pictures, saved models."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import problems
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from dropnorm import spec as dn
from dropnorm_service.training import (
    SplitData,
    build_model,
    fit,
    frechet,
    load_examples,
    load_model,
    load_pictures,
    plan,
    save_model,
    save_pictures,
)
from dropnorm_service.training.data import ValueRange, summarize
from dropnorm_service.training.design import design
from dropnorm_service.training.frechet import Moments, frechet_distance
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.layers import Dropout
from dropnorm_service.training.objectives import objective_of

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm())
SMALL: dict[str, dn.Architecture] = {
    "vae": dn.VAE(hidden=(16,), latent=3),
    "gaussian vae": dn.VAE(hidden=(16, 8), latent=3, likelihood="gaussian"),
    "gan": dn.GAN(latent=5, width=4),
}


def asked(architecture: dn.Architecture, epochs: int = 2, **parts: object) -> dn.TrainingSpec:
    optimization = dn.Optimization(optimizer=dn.Adam(lr=2e-3), epochs=epochs, batch_size=32)
    values = {"optimization": optimization, "data": dn.Data(dataset="made"), **parts}
    return dn.TrainingSpec.model_validate({"architecture": architecture, **values})


def data_of(spec: dn.TrainingSpec) -> SplitData:
    return split_of(spec, classification(1, 8, 8, samples=160, distance=2.0))


def parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_parameters_of_the_paper_s_autoencoder() -> None:
    spec = asked(dn.VAE())
    assert design(spec, (1, 28, 28), 784).parameters == 815_824
    with torch.device("meta"):
        assert parameters(build_model(spec, (1, 28, 28), 784)) == 815_824


def test_parameters_of_dcgan() -> None:
    spec = asked(dn.GAN(), regularization=dn.Regularization(batch_norm=dn.BatchNorm()))
    with torch.device("meta"):
        model = build_model(spec, (3, 64, 64), 3 * 64 * 64)
    assert parameters(model.get_submodule("generator")) == 3_576_704
    assert parameters(model.get_submodule("discriminator")) == 2_765_568
    assert design(spec, (3, 64, 64), 3 * 64 * 64).parameters == 3_576_704 + 2_765_568


@pytest.mark.parametrize("side", [8, 28, 32, 12])
def test_generated_images_have_the_data_s_size(side: int) -> None:
    spec = asked(dn.GAN(latent=5, width=2), regularization=BOTH)
    model = build_model(spec, (2, side, side), 2 * side**2)
    noise, real = torch.randn(3, 5), torch.randn(3, 2, side, side)
    assert model(noise).shape == real.shape
    assert model(noise).abs().max() <= 1.0
    assert model(noise, real).shape == (3, 3)


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 4, 4), (1, 2, 64)])
def test_images_that_cannot_be_halved_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(asked(dn.GAN()), shape, math.prod(shape))
    assert "sides are even and at least 8" in problems(refused.value)["architecture.gan"]


@pytest.mark.parametrize(
    ("latent", "shape", "field"),
    [(600_000, (6,), "architecture.vae.latent"), (20, (3, 600, 600), "architecture.vae")],
)
def test_autoencoders_wider_than_any_layer_are_refused(
    latent: int, shape: tuple[int, ...], field: str
) -> None:
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(asked(dn.VAE(latent=latent)), shape, math.prod(shape))
    assert "at most 1,048,576 are accepted" in problems(refused.value)[field]


def test_vectors_and_unlabelled_images_are_no_data_for_a_gan() -> None:
    spec = asked(dn.GAN())
    with pytest.raises(dn.InvalidSpecError, match="takes images"):
        design(spec, (30,), 30)
    with pytest.raises(dn.InvalidSpecError, match="has no classes to train one on"):
        summarize(spec, regression(1, 8, 8).info)


def test_dropout_and_norm_stand_in_both_networks() -> None:
    model = build_model(asked(SMALL["gan"], regularization=BOTH), (1, 32, 32), 1024)
    for part, norms in (("generator", 3), ("discriminator", 2)):
        modules = list(model.get_submodule(part).modules())
        assert sum(isinstance(each, Dropout) for each in modules) == 3
        assert sum(isinstance(each, nn.BatchNorm2d) for each in modules) == norms


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_bound_is_that_of_torch_s_distributions(likelihood: str) -> None:
    spec = asked(dn.VAE(hidden=(16,), latent=3, likelihood=likelihood))  # type: ignore[arg-type]
    data = data_of(spec)
    torch.manual_seed(1)
    model = build_model(spec, (1, 8, 8), 64).eval()
    x = data.train.x[:10]
    torch.manual_seed(2)
    loss = objective_of(spec, data).training_loss(model, x, data.train.y[:10])

    torch.manual_seed(2)
    noise = torch.randn(10, 3)
    mean, log_variance = model.get_submodule("encoder")(x).chunk(2, dim=1)
    code = Normal(mean, (0.5 * log_variance).exp())
    values = model.get_submodule("decoder")(mean + code.scale * noise)
    assert data.inputs is not None
    low, high = data.inputs.undo(data.train.x).aminmax()
    if likelihood == "bernoulli":
        pixels = ((data.inputs.undo(x) - low) / (high - low)).flatten(1).clamp(0, 1)
        likelihoods = Bernoulli(logits=values, validate_args=False).log_prob(pixels)
    else:
        likelihoods = Normal(values, 1.0).log_prob(x.flatten(1))
    prior = Normal(torch.zeros(3), torch.ones(3))
    bound = likelihoods.sum(dim=1) - kl_divergence(code, prior).sum(dim=1)
    torch.testing.assert_close(loss, -bound.mean())


def test_each_of_a_pair_is_moved_by_its_own_loss_alone() -> None:
    spec = asked(dn.GAN(latent=5, width=2))
    model = build_model(spec, (1, 8, 8), 64).double()
    generator, discriminator = (model.get_submodule(n) for n in ("generator", "discriminator"))
    noise, real = torch.randn(6, 5).double(), torch.randn(6, 1, 8, 8).double()
    logits = model(noise, real)
    losses = nn.functional.softplus(torch.stack([-logits[0], logits[1], -logits[2]]))
    losses.sum().backward()
    found = [each.grad.clone() for each in model.parameters() if each.grad is not None]

    made = generator(noise)
    fooled = -discriminator(made).sigmoid().log().sum()
    expected = list(torch.autograd.grad(fooled, list(generator.parameters()), retain_graph=True))
    told = -(discriminator(real).sigmoid().log() + (1 - discriminator(made).sigmoid()).log()).sum()
    expected += torch.autograd.grad(told, list(discriminator.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_frechet_distance_is_that_of_the_matrix_root() -> None:
    torch.manual_seed(3)
    mixing = torch.randn(64, 64)
    first, second = torch.randn(500, 64), torch.randn(400, 64) @ mixing + 0.5
    one, other = Moments(torch.device("cpu")), Moments(torch.device("cpu"))
    for part in first.split(123):
        one.add(part)
    other.add(second)

    a, b = first.double().numpy(), second.double().numpy()
    covariances = [np.cov(each, rowvar=False, bias=True) for each in (a, b)]
    values, vectors = np.linalg.eig(covariances[0] @ covariances[1])
    root = (vectors * np.sqrt(values) @ np.linalg.inv(vectors)).real
    apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(covariances[0] + covariances[1] - 2.0 * root)
    assert frechet_distance(one, other).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_training_reports_what_the_task_measures(name: str) -> None:
    spec = asked(SMALL[name], epochs=8, regularization=BOTH)
    evaluation = fit(spec, data_of(spec)).evaluation
    first, last = evaluation.history[0], evaluation.history[-1]
    assert evaluation.test.accuracy is None
    if name == "gan":
        assert evaluation.task == "generation"
        assert evaluation.test.loss == evaluation.test.frechet_distance
        assert last.validation_generator_loss is not None
        assert last.train_eval_discriminator_loss is not None
        assert min(each.validation_loss for each in evaluation.history) < first.validation_loss
    else:
        assert evaluation.task == "reconstruction"
        test = evaluation.test
        assert test.elbo is not None
        assert test.reconstruction is not None
        assert test.kl is not None
        assert test.elbo == pytest.approx(-(test.reconstruction + test.kl))
        assert test.loss == -test.elbo
        assert last.validation_reconstruction is not None
        assert last.validation_loss < first.validation_loss
    assert "loss" in repr(evaluation) or "Fréchet" in repr(evaluation)


@pytest.mark.parametrize("name", SMALL)
def test_saved_models_give_values_in_the_unit_of_the_data(name: str, tmp_path: Path) -> None:
    spec = asked(SMALL[name], epochs=12)
    data = data_of(spec)
    result = fit(spec, data)
    save_model(tmp_path, spec, data, result.model)
    save_pictures(tmp_path, result.pictures)

    outputs = load_model(tmp_path)(load_examples(tmp_path))
    assert outputs.shape[1:] == (1, 8, 8)
    assert data.inputs is not None
    raw = data.inputs.undo(data.train.x)
    assert (outputs.mean() - raw.mean()).abs() < 2.0 * raw.std()
    if name != "gaussian vae":
        assert raw.min() <= outputs.min()
        assert outputs.max() <= raw.max()
    pictures = load_pictures(tmp_path)
    assert set(pictures) == ({"samples"} if name == "gan" else {"samples", "reconstructions"})
    for images in pictures.values():
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (8, 8, 3)
        assert images.float().std() > 0


def test_reconstructions_stand_below_what_they_restore() -> None:
    spec = asked(SMALL["vae"])
    data = data_of(spec)
    shown = fit(spec, data).pictures["reconstructions"]
    expected = (ValueRange(data).to_unit(data.test.x[:16]) * 255).round().squeeze(1)
    assert torch.equal(shown[:16, :, :, 0].float(), expected)


def test_an_autoencoder_takes_tables_too() -> None:
    spec = asked(dn.VAE(hidden=(8,), latent=2, likelihood="gaussian"))
    data = split_of(spec, regression(6))
    result = fit(spec, data)
    assert result.pictures == {}
    assert result.evaluation.test.elbo is not None


def test_each_step_of_what_images_are_measured_by_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frechet, "_STEPS", 7)
    spec, told = asked(SMALL["gan"], epochs=2), list[None]()
    fit(spec, data_of(spec), on_uncounted_step=lambda: told.append(None))
    assert len(told) == 7


def test_scores_do_not_depend_on_what_was_drawn_before() -> None:
    spec = asked(SMALL["vae"])
    data = data_of(spec)
    objective, model = objective_of(spec, data), build_model(spec, (1, 8, 8), 64)
    inference = Inference(
        model,
        batch_size=50,
        autocast=torch.autocast("cpu", enabled=False),
        between_batches=lambda: None,
    )
    first: Tensor = objective.scores(inference, data.test)
    torch.randn(100)
    assert torch.equal(first, objective.scores(inference, data.test))


@pytest.mark.parametrize("name", SMALL)
def test_plans_count_what_is_built(name: str) -> None:
    spec = asked(SMALL[name], regularization=BOTH)
    facts = data_of(spec).summary
    paper = plan(spec, facts)
    model = build_model(spec, facts.input_shape, facts.outputs)
    assert paper.parameters == parameters(model)
    assert sum(layer.parameters for layer in paper.layers) == paper.parameters
    assert paper.memory.activations > 0


def test_the_gradients_of_a_pair_are_clipped_apart() -> None:
    """A step of plain SGD moves each network by the whole of the largest norm."""
    clipping = dn.GradientClipping(max_norm=1e-3)
    spec = asked(
        dn.GAN(latent=5, width=4),
        epochs=1,
        optimization=dn.Optimization(
            optimizer=dn.SGD(lr=1.0), epochs=1, batch_size=1000, gradient_clipping=clipping
        ),
    )
    data = data_of(spec)
    torch.manual_seed(spec.seed)
    start = build_model(spec, (1, 8, 8), 64)
    end = fit(spec, data).model
    for name in ("generator", "discriminator"):
        pairs = zip(
            start.get_submodule(name).parameters(),
            end.get_submodule(name).parameters(),
            strict=True,
        )
        moved = torch.cat([(after - before).flatten() for before, after in pairs])
        assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_discriminator_leaks_as_dcgan_s_does() -> None:
    model = build_model(asked(dn.GAN(latent=5, width=2)), (1, 8, 8), 64)
    leaky = [each for each in model.modules() if isinstance(each, nn.LeakyReLU)]
    assert leaky
    assert all(each.negative_slope == 0.2 for each in leaky)


def test_two_time_scales() -> None:
    """A discriminator at a rate of next to nothing stays where it started; the generator does not."""
    spec = asked(dn.GAN(latent=5, width=4, discriminator_rate=1e-12))
    data = data_of(spec)
    torch.manual_seed(spec.seed)
    start = build_model(spec, (1, 8, 8), 64).state_dict()
    end = fit(spec, data).model.state_dict()
    for name, tensor in end.items():
        still = torch.allclose(tensor, start[name], rtol=0, atol=1e-9)
        assert still == name.startswith("discriminator.")
