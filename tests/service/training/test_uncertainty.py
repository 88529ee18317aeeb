"""MC dropout against closed forms, temperatures against a search, and both through a whole training."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import asked, mlp, problems, summary
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm_service.training import check, fit
from dropnorm_service.training.data import Split
from dropnorm_service.training.evaluation.mc_dropout import (
    gaussian_nll,
    predict_classes,
    predict_values,
    sampled,
)
from dropnorm_service.training.evaluation.temperature import (
    LIMITS,
    fit_temperature,
    temperature_scaling,
)
from dropnorm_service.training.inference import Inference
from dropnorm_service.training.layers.dropout import Dropout
from dropnorm_service.training.metrics import classification_metrics
from dropnorm_service.training.objectives.supervised import Classification

DROPOUT = dn.Regularization(dropout=dn.Dropout(rate=0.4), batch_norm=dn.BatchNorm())
EVERYTHING = dn.EvaluationSettings(mc_dropout_passes=7, temperature_scaling=True)


def inference(network: nn.Module, batch_size: int = 64) -> Inference:
    return Inference(
        network,
        batch_size=batch_size,
        autocast=torch.autocast("cpu", enabled=False),
        between_batches=lambda: None,
    )


def test_a_linear_network_has_the_mean_and_variance_of_the_closed_form() -> None:
    """`w . (m x / (1 - p))` has the mean `w . x` and the variance `p / (1 - p) sum (w x)^2`."""
    torch.manual_seed(0)
    rate, x = 0.3, torch.randn(5, 40)
    linear = nn.Linear(40, 1, bias=False)
    network = nn.Sequential(Dropout(rate), linear)
    part = Split(x, torch.zeros(5, 1))
    passes = 4000
    mean, variance = predict_values(sampled(inference(network), part, 1, passes=passes, seed=1))
    weighted = (x * linear.weight.detach()).double()
    exact = rate / (1.0 - rate) * weighted.square().sum(dim=1)
    # Four standard errors: of a mean, and of a variance of nearly normal values.
    errors = (mean.squeeze(1) - weighted.sum(dim=1)).abs() / (exact / passes).sqrt()
    assert errors.max() < 4
    assert ((variance.squeeze(1) / exact - 1).abs() < 4 * math.sqrt(2 / passes)).all()


def test_batch_norm_stays_in_eval_mode_and_so_does_all_else_afterwards() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), Dropout(0.5)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    part = Split(10.0 + torch.randn(8, 3), torch.zeros(8, 3))
    (outputs,) = sampled(inference(network), part, 3, passes=1, seed=1)
    kept = outputs != 0
    torch.testing.assert_close(outputs[kept], 2 * part.x[kept] / math.sqrt(1 + 1e-5))
    assert 0 < kept.double().mean() < 1
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())


def test_masks_follow_the_seed_alone_and_leave_the_generator_alone() -> None:
    network = Dropout(0.5)
    part = Split(torch.ones(10, 6), torch.zeros(10, 6))

    def drawn(seed: int) -> Tensor:
        return torch.stack(list(sampled(inference(network, 4), part, 6, passes=3, seed=seed)))

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)
    assert len({tuple(each.flatten().tolist()) for each in first}) == 3  # passes differ
    assert not torch.equal(first[0, :4], first[0, 4:8])  # and so do batches


def test_the_mean_distribution_and_its_entropies_are_those_written_out() -> None:
    torch.manual_seed(0)
    passes = 3.0 * torch.randn(4, 6, 5).double()
    found = predict_classes(iter(passes))
    probabilities = passes.softmax(dim=2)
    mean = probabilities.mean(dim=0)
    torch.testing.assert_close(found.log_probabilities, mean.log())
    entropy = torch.distributions.Categorical(probs=mean).entropy()
    torch.testing.assert_close(found.entropy, entropy)
    # Mutual information is also the mean divergence of the passes from their mean.
    divergence = (probabilities * (probabilities.log() - mean.log())).sum(dim=2).mean(dim=0)
    torch.testing.assert_close(found.mutual_information, divergence)


def test_a_probability_too_small_for_a_number_has_a_likelihood() -> None:
    logits = torch.tensor([[0.0, -2000.0]])
    assert predict_classes(iter([logits, logits])).log_probabilities[0, 1] == -2000.0


def test_gaussian_nll_is_torchs() -> None:
    torch.manual_seed(0)
    mean, y, variance = torch.randn(9, 2), torch.randn(9, 2), torch.rand(9, 2) + 0.1
    theirs = F.gaussian_nll_loss(mean, y, variance, full=True, reduction="none").sum(dim=1).mean()
    assert gaussian_nll(mean, variance, y) == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0, 40.0])
def test_the_temperature_is_that_of_a_grid_search(scale: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(400, 4).double()
    labels = torch.distributions.Categorical(logits=logits).sample()  # which makes 1 the best
    found = fit_temperature(scale * logits, labels)

    def nll(temperature: float) -> float:
        return F.cross_entropy(scale * logits / temperature, labels).item()

    grid = torch.logspace(math.log10(found) - 1, math.log10(found) + 1, 401).double().tolist()
    assert nll(found) <= min(map(nll, grid))
    assert found == pytest.approx(min(grid, key=nll), rel=0.02)
    assert found / scale == pytest.approx(1.0, abs=0.2)


class Cancelled(Exception):
    """Raised by who is asked for orders."""


def cancelling(after: int) -> Callable[[], None]:
    """Orders that cancel when they are asked for so many times and once more."""
    left = iter(range(after))

    def ask() -> None:
        if next(left, None) is None:
            raise Cancelled

    return ask


@pytest.mark.parametrize("after", [0, 1, 4], ids=["first pass", "inside it", "later pass"])
def test_the_search_for_a_temperature_asks_for_orders_in_each_pass(after: int) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3000, 500), torch.randint(500, (3000,))
    with pytest.raises(Cancelled):
        fit_temperature(logits, labels, cancelling(after))


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0, 40.0])
def test_the_search_for_a_temperature_takes_few_passes(scale: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(400, 4)
    labels = torch.distributions.Categorical(logits=logits).sample()
    passes = []
    fit_temperature(scale * logits, labels, lambda: passes.append(True))
    assert len(passes) < 20


def test_orders_are_asked_for_between_all_that_temperature_scaling_computes() -> None:
    spec = mlp(4, optimization=asked(), evaluation=dn.EvaluationSettings(temperature_scaling=True))
    data = split_of(spec, classification(6))
    network = nn.Linear(6, data.outputs)
    heard = []
    running = inference(network)
    running.between_batches = lambda: heard.append(len(heard))
    for part in (data.validation, data.test):
        running.outputs(part, data.outputs)
    batches = len(heard)
    heard.clear()
    temperature_scaling(running, data, bins=5)
    assert len(heard) > batches + 2 + 4, "several passes, and each of four calibrations"


def test_orders_are_asked_for_while_an_epoch_is_judged() -> None:
    spec = mlp(4, optimization=asked())
    judge = Classification(spec, split_of(spec, classification(6))).judge
    torch.manual_seed(0)
    logits, labels = torch.randn(3000, 500), torch.randint(500, (3000,))
    loss, accuracy = judge(logits, labels, lambda: None).tolist()
    assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy == (logits.argmax(dim=1) == labels).double().mean().item()
    with pytest.raises(Cancelled):
        judge(logits, labels, cancelling(1))


def test_orders_are_asked_for_while_passes_are_put_together() -> None:
    torch.manual_seed(0)
    passes = [torch.randn(3000, 500) for _ in range(3)]
    heard = []
    found = predict_classes(iter(passes), lambda: heard.append(True))
    assert len(heard) == 2 * (3 + 1)
    total = torch.stack([each.double().log_softmax(dim=1) for each in passes]).logsumexp(dim=0)
    torch.testing.assert_close(found.log_probabilities, total - math.log(3))


def test_a_temperature_without_an_optimum_ends_at_its_limits() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert fit_temperature(logits, right) == pytest.approx(LIMITS[0])
    assert fit_temperature(logits, wrong) == pytest.approx(LIMITS[1])
    assert fit_temperature(torch.zeros(2, 2).double(), right) > 0


def test_a_classification_has_both_next_to_the_deterministic_metrics() -> None:
    spec = mlp(16, optimization=asked(), regularization=DROPOUT, evaluation=EVERYTHING)
    data = split_of(spec, classification(6, distance=0.5))
    result = fit(spec, data)
    found, model = result.evaluation.mc_dropout, result.model
    assert found is not None
    assert found.passes == 7
    logits = torch.stack(
        list(sampled(inference(model, 2048), data.test, 3, passes=7, seed=spec.seed))
    )
    mean = logits.double().softmax(dim=2).mean(dim=0)
    names = data.summary.class_names
    exact = classification_metrics(mean.log(), data.test.y, class_names=names, bins=15)
    for name in ("accuracy", "nll", "brier", "ece"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-9), name
    assert found.mutual_information is not None
    assert found.predictive_entropy is not None
    assert 0 < found.mutual_information < found.predictive_entropy < math.log(3)
    assert found.mse is found.gaussian_nll is None

    scaling, test = result.evaluation.temperature_scaling, result.evaluation.test
    assert scaling is not None
    before = scaling.test_before
    assert (before.nll, before.brier, before.ece) == (test.nll, test.brier, test.ece)
    with torch.no_grad():
        logits = model(data.test.x) / scaling.temperature
    after = classification_metrics(logits, data.test.y, class_names=names, bins=15)
    assert scaling.test_after.nll == pytest.approx(after.nll, rel=1e-5)
    assert scaling.validation_after.nll < scaling.validation_before.nll


def test_a_regression_has_a_deviation_and_likelihoods_in_its_own_unit() -> None:
    evaluation = dn.EvaluationSettings(mc_dropout_passes=20)
    spec = mlp(16, optimization=asked(), regularization=DROPOUT, evaluation=evaluation)
    data = split_of(spec, regression(5, targets=2))
    result = fit(spec, data)
    found, scale = result.evaluation.mc_dropout, data.targets
    assert found is not None
    assert scale is not None
    drawn = [
        scale.undo(
            torch.stack(list(sampled(inference(result.model, 2048), part, 2, passes=20, seed=0)))
        )
        for part in (data.validation, data.test)
    ]
    mean, variance = drawn[1].mean(dim=0), drawn[1].var(dim=0, correction=0)
    y = scale.undo(data.test.y)
    noise = (drawn[0].mean(dim=0) - scale.undo(data.validation.y)).square().mean(dim=0)
    assert found.mse == pytest.approx((mean - y).square().mean().item(), rel=1e-4)
    assert found.standard_deviation == pytest.approx(variance.sqrt().mean().item(), rel=1e-4)
    likelihood = torch.distributions.Normal(mean, (variance + noise).sqrt()).log_prob(y)
    assert found.gaussian_nll == pytest.approx(-likelihood.sum(dim=1).mean().item(), rel=1e-4)
    assert found.deterministic_gaussian_nll is not None
    assert found.accuracy is None


def test_asking_for_it_changes_nothing_else() -> None:
    plain = mlp(16, optimization=asked(), regularization=DROPOUT)
    data = split_of(plain, classification(6))
    without = fit(plain, data).evaluation
    found = fit(plain.model_copy(update={"evaluation": EVERYTHING}), data).evaluation
    assert (found.train, found.test) == (without.train, without.test)
    assert without.mc_dropout is None
    assert without.temperature_scaling is None


def test_what_is_not_defined_for_a_task_is_refused() -> None:
    spec = mlp(4, evaluation=EVERYTHING)
    check(spec, summary(6))
    for task, fields in (
        ("regression", {"evaluation.temperature_scaling"}),
        ("generation", {"evaluation.temperature_scaling", "evaluation.mc_dropout_passes"}),
    ):
        with pytest.raises(dn.InvalidSpecError) as raised:
            check(spec, summary(6, task=task))
        assert set(problems(raised.value)) == fields
