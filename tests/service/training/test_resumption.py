"""A training that was stopped anywhere ends bit for bit like one that was not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training.made import classification, of_kind, regression, split_of
from tests.service.training.shorthand import listed, mlp
from tests.service.training.test_fit import numbers

from dropnorm import spec as dn
from dropnorm.results import CheckpointWritten, EpochCompleted, Payload, Warned
from dropnorm.spec import layers
from dropnorm_service.training import (
    BadData,
    Checkpoints,
    FitResult,
    Interrupted,
    Order,
    SplitData,
    fit,
)
from dropnorm_service.training.data import Dataset

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.4, input_rate=0.1), batch_norm=dn.BatchNorm())


def asked(optimizer: dn.Optimizer | None = None, **parts: Any) -> dn.Optimization:
    parts = {"epochs": 3, "batch_size": 48, **parts}
    return dn.Optimization(optimizer=optimizer or dn.Adam(lr=0.01), **parts)


CASES: dict[str, tuple[dn.TrainingSpec, Dataset]] = {
    "dropout and batch norm": (
        mlp(16, optimization=asked(), regularization=BOTH),
        classification(6),
    ),
    "sgd": (mlp(8, optimization=asked(dn.SGD(lr=0.1))), classification(6)),
    "momentum": (
        mlp(8, optimization=asked(dn.SGD(lr=0.1, momentum=0.9, nesterov=True))),
        classification(6),
    ),
    "adamw, warm-up and cosine": (
        mlp(
            8,
            optimization=asked(
                dn.AdamW(lr=0.01), schedule=dn.CosineSchedule(), warmup=dn.Warmup(epochs=1.5)
            ),
        ),
        classification(6),
    ),
    "rmsprop, clipped, one cycle": (
        mlp(
            8,
            optimization=asked(
                dn.RMSprop(momentum=0.5),
                schedule=dn.OneCycleSchedule(),
                gradient_clipping=dn.GradientClipping(max_norm=0.5),
            ),
        ),
        classification(6),
    ),
    "sgd, decoupled decay": (
        mlp(8, optimization=asked(dn.SGD(momentum=0.9, weight_decay=0.1, decoupled=True))),
        classification(6),
    ),
    "adagrad": (mlp(8, optimization=asked(dn.Adagrad(lr=0.1, lr_decay=0.1))), classification(6)),
    "nadam": (mlp(8, optimization=asked(dn.NAdam(lr=0.01))), classification(6)),
    "radam": (mlp(8, optimization=asked(dn.RAdam(lr=0.1))), classification(6)),
    "muon": (
        listed(
            layers.Conv(channels=4),
            layers.Flatten(),
            layers.Linear(units=8),
            layers.Activation(),
            optimization=asked(dn.Muon(lr=0.01)),
        ),
        classification(2, 6, 6),
    ),
    "batches that grow, in parts": (
        mlp(
            16,
            optimization=asked(
                batch_size=20,
                batch_size_schedule=dn.BatchSizeGrowth(milestones=(1, 2), lr_scaling="linear"),
                micro_batch_size=30,
                schedule=dn.CosineRestartsSchedule(first_epochs=1),
            ),
            regularization=BOTH,
        ),
        classification(6),
    ),
    "automatic learning rate and batch size": (
        mlp(
            16,
            optimization=asked(
                auto_learning_rate=dn.AutoLearningRate(steps=20),
                auto_batch_size=dn.AutoBatchSize(max_size=64),
            ),
            regularization=BOTH,
        ),
        classification(6),
    ),
    "plateau": (
        mlp(
            16,
            optimization=asked(
                epochs=6, schedule=dn.PlateauSchedule(gamma=0.5, patience=1, min_delta=0.2)
            ),
        ),
        classification(6, distance=0.1),
    ),
    "regression": (mlp(8, optimization=asked(), regularization=BOTH), regression(5, targets=2)),
    "convolutions": (
        listed(
            layers.Conv(channels=4),
            layers.Activation(),
            layers.Residual(layers=(layers.Conv(channels=8, stride=2), layers.Activation())),
            layers.Pool(mode="global_average"),
            optimization=asked(last_batch="drop"),
            regularization=BOTH,
        ),
        classification(2, 6, 6),
    ),
    "bfloat16": (
        mlp(
            16,
            optimization=asked(),
            regularization=BOTH,
            compute=dn.Compute(precision="bfloat16"),
        ),
        classification(6),
    ),
    "moving average": (
        mlp(16, optimization=asked(averaging=dn.EMA(decay=0.7)), regularization=BOTH),
        classification(6),
    ),
    "stochastic weight averaging": (
        mlp(16, optimization=asked(averaging=dn.SWA(start_epoch=2)), regularization=BOTH),
        classification(6),
    ),
    "augmented images": (
        listed(
            layers.Conv(channels=4),
            layers.Activation(),
            layers.Flatten(),
            optimization=asked(micro_batch_size=30),
            data=dn.Data(
                dataset="made",
                augmentation=dn.Augmentation(
                    horizontal_flip=0.5,
                    shift=dn.Shift(pixels=2),
                    crop=dn.Crop(),
                    mixup_alpha=0.4,
                    cutmix_alpha=1.0,
                    noise_std=0.1,
                ),
            ),
        ),
        classification(2, 6, 6),
    ),
    "early stopping": (
        mlp(
            16,
            optimization=asked(
                dn.Adam(lr=0.1), epochs=30, early_stopping=dn.EarlyStopping(patience=2)
            ),
        ),
        classification(6, distance=0.1),
    ),
    "no train metrics, selection by accuracy": (
        mlp(
            8,
            optimization=asked(),
            evaluation=dn.EvaluationSettings(train_metrics=False, selection="validation_accuracy"),
        ),
        classification(6),
    ),
}


class Stop:
    """Orders to stop after so many questions."""

    def __init__(self, after: int, order: Order = Order.PAUSE) -> None:
        self.left, self.order = after, order

    def __call__(self) -> Order:
        self.left -= 1
        return self.order if self.left == 0 else Order.GO_ON


def questions(spec: dn.TrainingSpec, data: SplitData) -> tuple[FitResult, int]:
    """An uninterrupted training, and how often it asks for orders."""
    counter = Stop(after=-1)
    return fit(spec, data, orders=counter), -1 - counter.left


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_stop_in_any_phase_changes_no_number(case, tmp_path):
    spec, dataset = case
    data = split_of(spec, dataset)
    whole, asks = questions(spec, data)
    # The first and a middle step, around the first epoch's evaluation, and within the last one.
    for stop in (1, 2, 4, 5, asks // 2, asks - 2, asks - 1, asks):
        checkpoints = Checkpoints(tmp_path / str(stop))
        with pytest.raises(Interrupted):
            fit(spec, data, orders=Stop(stop), checkpoint=checkpoints)
        assert numbers(fit(spec, data, checkpoint=checkpoints)) == numbers(whole), stop


def test_many_stops_change_no_number_either(tmp_path):
    spec, dataset = CASES["dropout and batch norm"]
    data, checkpoints = split_of(spec, dataset), Checkpoints(tmp_path)
    whole, _ = questions(spec, data)
    result, stops = None, 0
    while result is None:
        try:
            result = fit(spec, data, orders=Stop(4), checkpoint=checkpoints)
        except Interrupted:
            stops += 1
    assert stops > 3
    assert numbers(result) == numbers(whole)


_ELSEWHERE = """
import json, sys, torch
from pathlib import Path
from tests.service.training.made import split_of
from tests.service.training.test_resumption import CASES
from tests.service.training.test_fit import numbers
from dropnorm_service.training import Checkpoints, fit
torch.set_num_threads(1)
spec, dataset = CASES["dropout and batch norm"]
result = fit(spec, split_of(spec, dataset), checkpoint=Checkpoints(Path(sys.argv[1])))
history, *metrics, weights = numbers(result)
print(json.dumps([history, [each.model_dump() for each in metrics], weights]))
"""


def test_another_process_goes_on_bit_for_bit(tmp_path):
    spec, dataset = CASES["dropout and batch norm"]
    data = split_of(spec, dataset)
    whole, asks = questions(spec, data)
    with pytest.raises(Interrupted):
        fit(spec, data, orders=Stop(asks // 2), checkpoint=Checkpoints(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    history, *metrics, weights = numbers(whole)
    expected = [history, [each.model_dump() for each in metrics], weights]
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


def test_a_checkpoint_on_order_is_written_and_the_training_goes_on(tmp_path):
    spec, dataset = CASES["sgd"]
    data, events = split_of(spec, dataset), list[Payload]()
    whole, _ = questions(spec, data)
    result = fit(
        spec,
        data,
        on_event=events.append,
        orders=Stop(2, Order.CHECKPOINT),
        checkpoint=Checkpoints(tmp_path),
    )
    assert of_kind(events, CheckpointWritten) == [CheckpointWritten(epoch=0, step=2)]
    assert numbers(result) == numbers(whole)


def test_periodic_checkpoints_change_no_number(tmp_path):
    spec, dataset = CASES["dropout and batch norm"]
    data, events = split_of(spec, dataset), list[Payload]()
    whole, _ = questions(spec, data)
    checkpoints = Checkpoints(tmp_path, interval_seconds=0.0)
    result = fit(spec, data, on_event=events.append, checkpoint=checkpoints)
    assert of_kind(events, CheckpointWritten)
    assert numbers(result) == numbers(whole)


def test_epochs_done_are_not_told_again_and_time_adds_up(tmp_path):
    spec, dataset = CASES["sgd"]
    data, checkpoints = split_of(spec, dataset), Checkpoints(tmp_path)
    before, after = list[Payload](), list[Payload]()
    steps_and_evaluation = 3 + 2
    with pytest.raises(Interrupted):
        fit(
            spec,
            data,
            on_event=before.append,
            orders=Stop(steps_and_evaluation + 1),
            checkpoint=checkpoints,
        )
    first_attempt = checkpoints.read()[0]
    assert first_attempt is not None
    result = fit(spec, data, on_event=after.append, checkpoint=checkpoints)
    told = [event.metrics for event in of_kind(before + after, EpochCompleted)]
    assert tuple(told) == result.evaluation.history
    assert result.evaluation.cost.seconds > first_attempt.facts["seconds"] + data.seconds


def test_a_damaged_checkpoint_is_warned_of_and_the_one_before_used(tmp_path):
    spec, dataset = CASES["dropout and batch norm"]
    data, checkpoints = split_of(spec, dataset), Checkpoints(tmp_path)
    whole, _ = questions(spec, data)
    for stop in (2, 4):
        with pytest.raises(Interrupted):
            fit(spec, data, orders=Stop(stop), checkpoint=checkpoints)
    newest = max(tmp_path.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    events = list[Payload]()
    result = fit(spec, data, on_event=events.append, checkpoint=checkpoints)
    (warning,) = of_kind(events, Warned)
    assert warning.code == "CHECKPOINT_DAMAGED"
    assert newest.stem in warning.message
    assert numbers(result) == numbers(whole)


def test_a_checkpoint_of_other_data_or_another_spec_is_refused(tmp_path):
    spec, dataset = CASES["sgd"]
    data, checkpoints = split_of(spec, dataset), Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        fit(spec, data, orders=Stop(2), checkpoint=checkpoints)
    changed = split_of(spec, Dataset(dataset.info, "1" * 64, dataset.tensors))
    with pytest.raises(BadData, match="has changed since"):
        fit(spec, changed, checkpoint=checkpoints)
    other = spec.model_copy(update={"seed": 5})
    with pytest.raises(ValueError, match="another spec"):
        fit(other, split_of(other, dataset), checkpoint=checkpoints)


def test_a_checkpoint_holds_the_weights_of_its_step(tmp_path):
    spec, dataset = CASES["momentum"]
    data, checkpoints = split_of(spec, dataset), Checkpoints(tmp_path)
    with pytest.raises(Interrupted) as raised:
        fit(spec, data, orders=Stop(2, Order.CANCEL), checkpoint=checkpoints)
    assert raised.value.order is Order.CANCEL
    snapshot, _ = checkpoints.read()
    assert snapshot is not None
    assert (snapshot.facts["epoch"], snapshot.facts["step"]) == (1, 2)
    weights = snapshot.tensors["model/hidden.0.linear.weight"]
    assert not torch.equal(weights, snapshot.tensors["best/hidden.0.linear.weight"])
    assert "optimizer/0/momentum_buffer" in snapshot.tensors
