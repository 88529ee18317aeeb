"""fit against plain PyTorch loops written out here, bit for bit, and everything it reports."""

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training.made import classification, of_kind, regression, split_of
from tests.service.training.shorthand import listed, mlp
from tests.service.training.stopping import Asked, Place, run
from torch import Tensor, nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.results import EpochCompleted, Payload, Progressed
from dropnorm.spec import layers
from dropnorm_service.training import (
    Checkpoints,
    Diverged,
    FitResult,
    Interrupted,
    Order,
    SplitData,
    fit,
)
from dropnorm_service.training.data import Dataset

EPOCHS, BATCH = 3, 32


def known(value: float | None) -> float:
    assert value is not None
    return value


def optimization(**parts: Any) -> dn.Optimization:
    return dn.Optimization(epochs=EPOCHS, batch_size=BATCH, **parts)


def order_of(samples: int, seed: int, epoch: int) -> Tensor:
    """The documented rule: randperm seeded by the first eight bytes of SHA-256 of seed/order/epoch."""
    digest = hashlib.sha256(f"{seed}/order/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return torch.randperm(samples, generator=generator)


def plain_loop(
    spec: dn.TrainingSpec,
    data: SplitData,
    make: Callable[[], nn.Module],
    make_optimizer: Callable[..., torch.optim.Optimizer],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    max_norm: float | None = None,
) -> tuple[nn.Module, list[Tensor], list[float]]:
    """The loop that everybody writes; model, losses of each epoch's steps, validation losses."""
    torch.manual_seed(spec.seed)
    model = make()
    optimizer = make_optimizer(model.parameters())
    losses, validation = [], []
    for epoch in range(1, EPOCHS + 1):
        model.train()
        order, steps = order_of(len(data.train), spec.seed, epoch), []
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            optimizer.zero_grad()
            loss = loss_of(model(data.train.x[batch]), data.train.y[batch])
            loss.backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            steps.append(loss.detach())
        losses.append(torch.stack(steps))
        model.eval()
        with torch.no_grad():
            validation.append(loss_of(model(data.validation.x), data.validation.y).item())
    return model, losses, validation


def images() -> Dataset:
    return classification(2, 8, 8, samples=180)


CASES: dict[str, Any] = {
    "plain": (
        mlp(16, 8, optimization=optimization(), seed=5),
        classification(6),
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        ),
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
        F.cross_entropy,
        None,
    ),
    "dropout and batch norm": (
        mlp(
            16,
            optimization=optimization(optimizer=dn.SGD(momentum=0.9, nesterov=True)),
            regularization=dn.Regularization(
                dropout=dn.Dropout(rate=0.3, input_rate=0.1), batch_norm=dn.BatchNorm()
            ),
            seed=6,
        ),
        classification(6),
        lambda: nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(6, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(16, 3),
        ),
        lambda parameters: torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, nesterov=True, fused=True
        ),
        F.cross_entropy,
        None,
    ),
    "regression, clipped": (
        mlp(
            16,
            activation="tanh",
            optimization=optimization(
                optimizer=dn.RMSprop(lr=1e-2, momentum=0.5),
                gradient_clipping=dn.GradientClipping(max_norm=0.1),
            ),
        ),
        regression(5, targets=2),
        lambda: nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2)),
        lambda parameters: torch.optim.RMSprop(parameters, lr=1e-2, momentum=0.5, foreach=True),
        F.mse_loss,
        0.1,
    ),
    "convolutions": (
        listed(
            layers.Conv(channels=4),
            layers.BatchNorm(),
            layers.Activation(),
            layers.Pool(),
            optimization=optimization(optimizer=dn.AdamW(weight_decay=0.1)),
            seed=2**63 - 1,
        ),
        images(),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        lambda parameters: torch.optim.AdamW(spared(parameters), weight_decay=0.1, fused=True),
        F.cross_entropy,
        None,
    ),
}


def spared(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups of those that weight decay acts on and those that it spares."""
    every = list(parameters)
    weights, others = (
        [each for each in every if (each.ndim > 1) is many] for many in (True, False)
    )
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_step_is_that_of_a_plain_loop(case, tmp_path):
    spec, dataset, make, make_optimizer, loss_of, max_norm = case
    data = split_of(spec, dataset)
    model, losses, validation = plain_loop(spec, data, make, make_optimizer, loss_of, max_norm)

    for epoch in range(1, EPOCHS + 1):
        assert torch.equal(step_losses(spec, data, epoch, tmp_path / str(epoch)), losses[epoch - 1])
    result = fit(spec, data)
    history = result.evaluation.history
    assert [each.validation_loss for each in history] == pytest.approx(validation, rel=1e-6)
    sizes = torch.tensor([BATCH] * (len(losses[0]) - 1) + [len(data.train) % BATCH or BATCH])
    means = [(each.double() * sizes).sum().item() / len(data.train) for each in losses]
    assert [each.train_loss for each in history] == pytest.approx(means, rel=1e-12)
    if result.evaluation.best_epoch == EPOCHS:
        for one, other in zip(result.model.parameters(), model.parameters(), strict=True):
            assert torch.equal(one, other)


def step_losses(spec: dn.TrainingSpec, data: SplitData, epoch: int, folder: Path) -> Tensor:
    """The loss of every step of an epoch, from a checkpoint at its end."""
    steps = math.ceil(len(data.train) / BATCH)
    checkpoints = Checkpoints(folder)
    end = Asked(Place("training", epoch - 1, steps * epoch))
    with pytest.raises(Interrupted):
        run(spec, data, end, checkpoint=checkpoints)
    snapshot, _ = checkpoints.read()
    assert snapshot is not None
    assert (snapshot.facts["epoch"], snapshot.facts["step"]) == (epoch, steps)
    return snapshot.tensors["losses"]


def numbers(result: FitResult) -> list[Any]:
    """All that must be the same, times left out."""
    times = {"seconds", "evaluation_seconds", "samples_per_second"}
    return [
        [metrics.model_dump(exclude=times) for metrics in result.evaluation.history],
        result.evaluation.train,
        result.evaluation.validation,
        result.evaluation.test,
        {name: tensor.tolist() for name, tensor in result.model.state_dict().items()},
    ]


REGULARISED = mlp(
    16,
    optimization=optimization(),
    regularization=dn.Regularization(dropout=dn.Dropout(rate=0.3), batch_norm=dn.BatchNorm()),
)


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    data = split_of(REGULARISED, classification(6))
    torch.manual_seed(1)
    first = numbers(fit(REGULARISED, data))
    torch.manual_seed(2)
    assert numbers(fit(REGULARISED, data)) == first
    other = REGULARISED.model_copy(update={"seed": 1})
    assert numbers(fit(other, data)) != first


def test_a_training_leaves_torch_as_it_was():
    data = split_of(REGULARISED, classification(6))
    torch.manual_seed(9)
    before, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    fit(REGULARISED, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert getattr(torch.utils.deterministic, "fill_uninitialized_memory")  # noqa: B009 (untyped)


def test_dropout_and_batch_norm_leave_initial_weights_alone():
    """Before any step, so that variants of one seed start from the same point."""
    still = {"optimizer": dn.SGD(lr=1e-30)}
    data = split_of(REGULARISED, classification(6))
    plain = fit(mlp(16, optimization=optimization(**still)), data).model
    both = fit(REGULARISED.model_copy(update={"optimization": optimization(**still)}), data).model
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, both.get_parameter(name))


def test_the_best_epoch_by_validation_is_kept_and_tested():
    spec = mlp(
        64, optimization=dn.Optimization(epochs=60, batch_size=8, optimizer=dn.Adam(lr=0.02))
    )
    data = split_of(spec, classification(20, samples=120, distance=0.1))
    result = fit(spec, data)
    evaluation = result.evaluation
    losses = [metrics.validation_loss for metrics in evaluation.history]
    best = losses.index(min(losses)) + 1
    assert 1 < best < 60  # it overfits
    assert evaluation.best_epoch == best
    assert evaluation.validation.loss == pytest.approx(min(losses), rel=1e-6)
    with torch.no_grad():
        outputs = result.model(data.test.x)
    assert evaluation.test.loss == pytest.approx(F.cross_entropy(outputs, data.test.y).item())
    gap = known(evaluation.train.accuracy) - known(evaluation.test.accuracy)
    assert evaluation.generalization_gap == gap
    assert not result.model.training


def test_selection_by_accuracy_takes_the_first_of_equals():
    spec = mlp(
        32,
        optimization=dn.Optimization(epochs=20, batch_size=16),
        evaluation=dn.EvaluationSettings(selection="validation_accuracy"),
    )
    evaluation = fit(spec, split_of(spec, classification(6))).evaluation
    accuracies = [known(metrics.validation_accuracy) for metrics in evaluation.history]
    assert accuracies.count(max(accuracies)) > 1
    assert evaluation.best_epoch == accuracies.index(max(accuracies)) + 1


def test_early_stopping_waits_for_its_patience():
    stopping = dn.EarlyStopping(patience=3, min_delta=0.01)
    spec = mlp(
        64,
        optimization=dn.Optimization(
            epochs=500, batch_size=8, optimizer=dn.Adam(lr=0.02), early_stopping=stopping
        ),
    )
    evaluation = fit(spec, split_of(spec, classification(20, samples=120, distance=0.1))).evaluation
    reference, waited = math.inf, 0
    for metrics in evaluation.history:
        improved = metrics.validation_loss < reference - 0.01
        reference, waited = (metrics.validation_loss, 0) if improved else (reference, waited + 1)
        assert (waited == 3) == (metrics is evaluation.history[-1])
    assert evaluation.stopped_early
    assert len(evaluation.history) < 500


def test_train_metrics_can_be_left_out():
    spec = mlp(
        4,
        optimization=optimization(),
        evaluation=dn.EvaluationSettings(train_metrics=False),
    )
    evaluation = fit(spec, split_of(spec, classification(6))).evaluation
    assert {metrics.train_eval_loss for metrics in evaluation.history} == {None}
    assert {metrics.train_eval_accuracy for metrics in evaluation.history} == {None}
    assert all(metrics.validation_accuracy is not None for metrics in evaluation.history)
    assert evaluation.train.accuracy is not None


def test_regression_is_measured_in_the_targets_own_unit():
    spec = mlp(16, optimization=dn.Optimization(epochs=60, batch_size=16))
    dataset = regression(5)
    data = split_of(spec, dataset)
    result = fit(spec, data)
    evaluation = result.evaluation
    assert data.targets is not None
    with torch.no_grad():
        error = data.targets.undo(result.model(data.test.x)) - data.targets.undo(data.test.y)
    assert evaluation.test.mse == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert evaluation.test.mae == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert evaluation.test.mse == pytest.approx(
        evaluation.test.loss * data.targets.std.item() ** 2, rel=1e-5
    )
    assert known(evaluation.test.r2) > 0.9
    gap = known(evaluation.test.mse) - known(evaluation.train.mse)
    assert evaluation.generalization_gap == gap
    assert {metrics.validation_accuracy for metrics in evaluation.history} == {None}


def test_the_last_batch_can_be_dropped():
    spec = mlp(4, optimization=optimization(last_batch="drop"))
    data = split_of(spec, classification(6))
    assert len(data.train) % BATCH
    assert fit(spec, data).evaluation.history[-1].step == EPOCHS * (len(data.train) // BATCH)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_precision_learns(precision):
    spec = mlp(32, optimization=optimization(), compute=dn.Compute(precision=precision))
    spec = spec.model_copy(update={"optimization": dn.Optimization(epochs=20, batch_size=16)})
    result = fit(spec, split_of(spec, classification(6)))
    assert known(result.evaluation.test.accuracy) > 0.8
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}


def test_a_diverged_training_names_the_first_bad_step(tmp_path):
    spec = mlp(
        32,
        optimization=dn.Optimization(
            epochs=5, batch_size=BATCH, optimizer=dn.SGD(lr=1000.0, momentum=0.99)
        ),
        activation="elu",
    )
    data = split_of(spec, regression(5))
    with pytest.raises(Diverged, match=r"train_loss became (inf|nan) by step") as raised:
        fit(spec, data)
    step, bad = int(raised.value.metadata["step"]), []
    torch.manual_seed(spec.seed)
    model = nn.Sequential(nn.Linear(5, 32), nn.ELU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0, momentum=0.99, fused=True)
    for epoch in range(1, 6):
        for batch in order_of(len(data.train), spec.seed, epoch).split(BATCH):
            optimizer.zero_grad()
            loss = F.mse_loss(model(data.train.x[batch]), data.train.y[batch])
            loss.backward()
            optimizer.step()
            bad.append(not math.isfinite(loss.item()))
    assert bad.index(True) + 1 == step


def test_events_tell_the_whole_story_in_order():
    events: list[Payload] = []
    data = split_of(REGULARISED, classification(6))
    evaluation = fit(REGULARISED, data, on_event=events.append).evaluation
    steps = EPOCHS * math.ceil(len(data.train) / BATCH)

    assert tuple(event.metrics for event in of_kind(events, EpochCompleted)) == evaluation.history
    progress = [event.progress for event in of_kind(events, Progressed)]
    seen = list(dict.fromkeys(each.phase for each in progress))
    assert seen == ["building", "training", "validating", "testing"]
    assert [(each.step, each.epoch) for each in progress if each.phase == "training"][:2] == [
        (0, 0),
        (1, 0),
    ]
    assert {(each.steps, each.epochs) for each in progress} == {(steps, EPOCHS)}
    assert (progress[-1].step, progress[-1].epoch) == (steps, EPOCHS)
    assert len(progress) < 10  # short epochs do not flood the journal


def test_history_and_cost_add_up():
    data = split_of(REGULARISED, classification(6))
    evaluation = fit(REGULARISED, data).evaluation
    cost, history = evaluation.cost, evaluation.history
    assert [metrics.epoch for metrics in history] == [1, 2, 3]
    assert [metrics.step for metrics in history] == [5, 10, 15]
    assert {metrics.learning_rate for metrics in history} == {1e-3}
    assert cost.parameters == 6 * 16 + 16 + 2 * 16 + 16 * 3 + 3
    assert cost.forward_flops >= 2 * (6 * 16 + 16 * 3)
    assert cost.training_seconds == pytest.approx(sum(metrics.seconds for metrics in history))
    assert 0 < cost.seconds_to_best <= cost.seconds
    assert cost.seconds > cost.training_seconds + data.seconds
    assert cost.samples_per_second == pytest.approx(
        EPOCHS * len(data.train) / cost.training_seconds
    )
    assert cost.peak_memory_bytes > 2**20
    assert cost.device
    assert cost.threads == torch.get_num_threads()
    assert evaluation.dataset == data.summary


def test_orders_are_asked_after_every_step_and_every_batch_and_piece_of_an_evaluation():
    data, asked = split_of(REGULARISED, classification(6)), Asked()
    run(REGULARISED, data, asked)
    phases = Counter(place.phase for place in asked.places)
    assert phases["training"] == EPOCHS * math.ceil(len(data.train) / BATCH)
    # Train and validation: a batch each, and one piece each of all that was said of them.
    assert phases["validating"] == EPOCHS * 2 * 2
    assert phases["testing"] == 3 * 2


def test_a_cancelled_training_without_a_place_for_checkpoints_just_ends():
    data = split_of(REGULARISED, classification(6))
    with pytest.raises(Interrupted) as raised:
        fit(REGULARISED, data, orders=lambda: Order.CANCEL)
    assert raised.value.order is Order.CANCEL


def test_a_spec_that_does_not_fit_its_data_is_refused():
    spec = mlp(4, evaluation=dn.EvaluationSettings(selection="validation_accuracy"))
    with pytest.raises(dn.InvalidSpecError, match=r"evaluation\.selection"):
        fit(spec, split_of(spec, regression(5)))


def test_data_is_not_changed_by_a_training():
    data = split_of(REGULARISED, classification(6))
    before = copy.deepcopy(data)
    fit(REGULARISED, data)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(data, part).x, getattr(before, part).x)
