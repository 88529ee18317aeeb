"""Training on a GPU: the numbers of the CPU within tolerance, resumption bit for bit, memory reported."""

from pathlib import Path

import pytest
import torch
from tests.service.training import test_token_families
from tests.service.training.made import classification
from tests.service.training.shorthand import listed, mlp
from tests.service.training.stopping import Asked, outcome, run, stopped_at, telling
from tests.service.training.test_fit import known

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import (
    OutOfMemory,
    fit,
    load_examples,
    load_model,
    save_model,
)
from dropnorm_service.training.data import Dataset, split
from dropnorm_service.training.device import choose_device

pytestmark = pytest.mark.gpu

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.3), batch_norm=dn.BatchNorm())
BRIEF = dn.Optimization(epochs=3, batch_size=48)
CONVOLUTIONS = (
    layers.Conv(channels=8),
    layers.Activation(),
    layers.Pool(),
    layers.Conv(channels=8),
    layers.Activation(),
    layers.Pool(mode="global_average"),
)
CASES: dict[str, tuple[dn.TrainingSpec, Dataset]] = {
    "mlp": (mlp(16, optimization=BRIEF, regularization=BOTH), classification(6)),
    "convolutions": (
        listed(*CONVOLUTIONS, optimization=BRIEF, regularization=BOTH),
        classification(2, 8, 8),
    ),
    "float16": (
        listed(
            *CONVOLUTIONS,
            optimization=BRIEF,
            regularization=BOTH,
            compute=dn.Compute(device="cuda", precision="float16"),
        ),
        classification(2, 8, 8),
    ),
    "float16, decoupled decay, in parts": (
        listed(
            *CONVOLUTIONS,
            optimization=BRIEF.model_copy(
                update={
                    "optimizer": dn.SGD(momentum=0.9, weight_decay=0.1, decoupled=True),
                    "micro_batch_size": 20,
                }
            ),
            compute=dn.Compute(device="cuda", precision="float16"),
        ),
        classification(2, 8, 8),
    ),
    "automatic learning rate and batch size": (
        mlp(
            16,
            optimization=BRIEF.model_copy(
                update={
                    "auto_learning_rate": dn.AutoLearningRate(steps=20),
                    "auto_batch_size": dn.AutoBatchSize(max_size=64),
                }
            ),
            regularization=BOTH,
        ),
        classification(6),
    ),
    "ghosts, scheduled dropout, statistics anew": (
        listed(
            *CONVOLUTIONS,
            layers.Flatten(),
            layers.Linear(units=8),
            layers.Activation(),
            optimization=BRIEF,
            regularization=dn.Regularization(
                dropout=dn.Dropout(
                    rate=0.3, dropconnect_rate=0.2, schedule=dn.LinearDropoutSchedule()
                ),
                batch_norm=dn.BatchNorm(ghost_batch_size=10, averaging="cumulative"),
            ),
            evaluation=dn.EvaluationSettings(recalibrate_batch_norm="dropout_on"),
        ),
        classification(2, 8, 8),
    ),
    **{
        f"limits, changed images, {averaging.kind}": (
            listed(
                *CONVOLUTIONS,
                optimization=BRIEF.model_copy(update={"averaging": averaging}),
                regularization=dn.Regularization(
                    max_norm=0.5, l1=1e-4, label_smoothing=0.1, batch_norm=dn.BatchNorm()
                ),
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
                compute=dn.Compute(device="cuda", precision="float16", deterministic=True),
            ),
            classification(2, 8, 8),
        )
        for averaging in (dn.EMA(decay=0.5), dn.SWA(start_epoch=2))
    },
    "bfloat16, clipped": (
        mlp(
            16,
            optimization=BRIEF.model_copy(
                update={"gradient_clipping": dn.GradientClipping(max_norm=0.1)}
            ),
            compute=dn.Compute(precision="bfloat16"),
        ),
        classification(6),
    ),
}

TOKENS = {
    name: (test_token_families.asked(name, BOTH, epochs=3), case.dataset)
    for name, case in test_token_families.SMALL.items()
}


def cuda() -> torch.device:
    return choose_device(dn.Compute(device="cuda"))


def test_auto_takes_the_gpu():
    assert choose_device(dn.Compute()).type == "cuda"
    assert choose_device(dn.Compute(gpus=0)).type == "cpu"


def test_the_numbers_are_those_of_the_cpu():
    spec = mlp(16, optimization=BRIEF, regularization=dn.Regularization(batch_norm=dn.BatchNorm()))
    dataset = classification(6)
    cpu, gpu = (fit(spec, split(spec, dataset, on)) for on in (torch.device("cpu"), cuda()))
    for one, other in zip(cpu.evaluation.history, gpu.evaluation.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-3)
    assert cpu.evaluation.test.loss == pytest.approx(gpu.evaluation.test.loss, rel=1e-3)
    assert gpu.evaluation.cost.device == torch.cuda.get_device_name()
    assert gpu.evaluation.cost.peak_memory_bytes < 2**30


@pytest.mark.parametrize("case", (CASES | TOKENS).values(), ids=CASES | TOKENS)
def test_a_stop_changes_no_number(case, tmp_path: Path):
    spec, dataset = case
    data = split(spec, dataset, cuda())
    asked = Asked()
    whole = outcome(run(spec, data, asked))
    assert outcome(fit(spec, data)) == whole
    assert outcome(stopped_at(telling(asked.places), spec, data, tmp_path)) == whole


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_saved_model_predicts_on_the_cpu(case, tmp_path: Path):
    spec, dataset = case
    data = split(spec, dataset, cuda())
    result = fit(spec, data)
    save_model(tmp_path, spec, data, result.model)
    model = load_model(tmp_path)
    with torch.no_grad():
        there = result.model(data.test.x[:5]).cpu()
    torch.testing.assert_close(model(load_examples(tmp_path)), there, rtol=1e-2, atol=1e-2)


def test_every_precision_learns_on_the_gpu():
    for precision in ("float32", "bfloat16", "float16"):
        spec = mlp(
            32,
            optimization=dn.Optimization(epochs=20, batch_size=16),
            compute=dn.Compute.model_validate({"device": "cuda", "precision": precision}),
        )
        evaluation = fit(spec, split(spec, classification(6), cuda())).evaluation
        assert known(evaluation.test.accuracy) > 0.8


def test_running_out_of_memory_is_reported_with_figures():
    optimization = dn.Optimization(epochs=1, batch_size=2**17)
    spec = mlp(2**20, optimization=optimization)  # 512 GiB of activations, and few weights
    data = split(spec, classification(6, samples=2**18), cuda())
    with pytest.raises(OutOfMemory, match="cuda:0 has no memory left") as raised:
        fit(spec, data)
    assert "asked_for" in raised.value.metadata
