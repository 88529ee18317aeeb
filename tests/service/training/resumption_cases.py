"""Trainings that use everything there is, a few things each: whatever a spec can ask for is in one of them."""

from __future__ import annotations

from typing import Any

from tests.service.training import made
from tests.service.training.resumption_networks import CONVOLUTIONS, IMAGES, LISTS, VARIANTS
from tests.service.training.test_regularized_families import ARCHITECTURES, EVERY_RATE, PAIRS

from dropnorm import spec as dn
from dropnorm_service.training.data import Dataset

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.4, input_rate=0.1), batch_norm=dn.BatchNorm())
MLP = dn.MLP(hidden=(8, 6))
EVERYTHING_MEASURED = dn.EvaluationSettings(
    selection="validation_accuracy",
    calibration_bins=5,
    recalibrate_batch_norm="dropout_on",
    mc_dropout_passes=2,
    temperature_scaling=True,
    variance_shift=True,
    layer_report_epochs=2,
)


def case(
    architecture: dn.Architecture = MLP, regularization: dn.Regularization = BOTH, **parts: Any
) -> dn.TrainingSpec:
    """A small training of three epochs; what is not a part of a spec is one of its optimization."""
    own = {name: parts.pop(name) for name in tuple(parts) if name in dn.TrainingSpec.model_fields}
    asked = {"optimizer": dn.Adam(lr=0.01), "epochs": 3, "batch_size": 12, **parts}
    return dn.TrainingSpec.model_validate(
        {
            "architecture": architecture,
            "regularization": regularization,
            "optimization": dn.Optimization(**asked),
            "data": dn.Data(dataset="made"),
            **own,
        }
    )


def dataset_of(spec: dn.TrainingSpec, task: str = "") -> Dataset:
    """Data that suits a spec: as little as splits into batches of different sizes."""
    kind = spec.architecture.kind
    if kind in PAIRS:
        return made.pairs(samples=60)
    if kind == "bert":
        return made.text(samples=60, labelled=task == "labelled")
    if kind == "gan":
        return made.classification(1, 16, 16, samples=60)
    if task == "regression":
        return made.regression(5, targets=2, samples=60)
    flat = kind == "mlp" and spec.data.augmentation is None
    return made.classification(*((6,) if flat else (1, 8, 8)), samples=60)


def _family(architecture: dn.Architecture) -> dn.TrainingSpec:
    name = architecture.kind
    norm = None if name in (*PAIRS, "bert") else dn.BatchNorm()
    return case(
        architecture,
        dn.Regularization(dropout=EVERY_RATE, batch_norm=norm),
        evaluation=dn.EvaluationSettings(beam_width=2 if name in PAIRS else None),
        epochs=2,
        batch_size=16,
    )


EVERYWHERE: dict[str, Any] = {
    "eps": 1e-3,
    "affine": False,
    "input": True,
    "hidden": False,
    "position": "after_activation",
}
OPTIMIZERS: dict[str, dn.Optimizer] = {
    "sgd": dn.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, decoupled=True),
    "adam": dn.Adam(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.01),
    "adamw": dn.AdamW(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.1),
    "rmsprop": dn.RMSprop(
        lr=0.02, alpha=0.9, eps=1e-6, momentum=0.5, weight_decay=0.01, decoupled=True
    ),
    "adagrad": dn.Adagrad(
        lr=0.1, lr_decay=0.1, initial_accumulator=0.1, eps=1e-6, weight_decay=0.01, decoupled=True
    ),
    "nadam": dn.NAdam(
        lr=0.01,
        beta1=0.8,
        beta2=0.9,
        eps=1e-6,
        momentum_decay=0.1,
        weight_decay=0.1,
        decoupled=True,
    ),
    "radam": dn.RAdam(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.01, decoupled=True),
    "muon": dn.Muon(
        lr=0.01, momentum=0.8, nesterov=False, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.01
    ),
}
SCHEDULES: tuple[dn.Schedule, ...] = (
    dn.ConstantSchedule(),
    dn.StepSchedule(step_size=1, gamma=0.5),
    dn.MultiStepSchedule(milestones=(1, 2), gamma=0.5),
    dn.ExponentialSchedule(gamma=0.5),
    dn.PolynomialSchedule(power=2.0, epochs=2, final_factor=0.1),
    dn.CosineSchedule(epochs=2, final_factor=0.1),
    dn.CosineRestartsSchedule(first_epochs=1, growth=2, final_factor=0.1),
    dn.OneCycleSchedule(rise=0.4, start_factor=0.1, final_factor=0.01),
    dn.InverseSqrtSchedule(warmup_steps=5),
    dn.PlateauSchedule(gamma=0.5, patience=1, min_delta=0.5, cooldown=1, final_factor=0.1),
)
DROPOUT_SCHEDULES: tuple[dn.DropoutSchedule, ...] = (
    dn.LinearDropoutSchedule(start_factor=0.1, end_factor=0.9, from_epoch=2, to_epoch=3),
    dn.CurriculumDropoutSchedule(gamma=0.5),
    dn.OffAfterDropoutSchedule(epochs=1),
)
AUTOMATIC: dict[str, dict[str, Any]] = {
    "rate": {"auto_learning_rate": dn.AutoLearningRate(steps=20)},
    "size": {"auto_batch_size": dn.AutoBatchSize(max_size=24)},
}
AVERAGES: dict[str, dn.Averaging | None] = {
    "none": None,
    "ema": dn.EMA(decay=0.7),
    "swa": dn.SWA(start_epoch=2),
}
BATCH_SIZES: dict[str, dn.BatchSizeSchedule] = {
    "steps": dn.BatchSizeSteps(milestones=(1, 2), sizes=(9, 19), lr_scaling="linear"),
    "growth": dn.BatchSizeGrowth(
        milestones=(1, 2), factor=1.5, max_size=18, lr_scaling="square_root"
    ),
}
NORMS: dict[str, dn.BatchNorm] = {
    "ghosts, cumulative": dn.BatchNorm(
        ghost_batch_size=4,
        averaging="cumulative",
        eps=1e-3,
        position="after_activation",
        input=True,
    ),
    "synchronized, frozen": dn.BatchNorm(
        synchronized=True, momentum=0.3, freeze_after=1, freeze_affine=True, output=True
    ),
    "frozen but for its scale": dn.BatchNorm(freeze_after=2),
    "no scale": dn.BatchNorm(affine=False, hidden=False, input=True),
    "no running statistics": dn.BatchNorm(track_running_stats=False),
}
DROPOUTS: dict[str, dn.Dropout] = {
    "rates of all places": dn.Dropout(
        rate=0.3, conv_rate=0.2, output_rate=0.1, stochastic_depth_rate=0.3, dropconnect_rate=0.2
    ),
    "spatial, linear": dn.Dropout(
        keep_prob=0.6,
        method="spatial",
        rescaling="at_inference",
        schedule=DROPOUT_SCHEDULES[0],
    ),
    "gaussian, curriculum": dn.Dropout(method="gaussian", schedule=DROPOUT_SCHEDULES[1]),
    "alpha, off": dn.Dropout(method="alpha", schedule=DROPOUT_SCHEDULES[2]),
    "divided by norms": dn.Dropout(rescaling="l2_norm"),
}
SPLITS = (
    dn.Data(dataset="made", standardization="none", test_share=0.25, stratify=False),
    dn.Data(
        dataset="made",
        standardization="global",
        validation_share=0.3,
        split_seed=5,
        train_samples=26,
    ),
)
INITIALIZATIONS = (
    dn.Initialization(scheme="xavier", distribution="uniform", gain=0.5),
    dn.Initialization(scheme="kaiming", bias=0.1),
    dn.Initialization(scheme="lecun"),
    dn.Initialization(scheme="orthogonal"),
    dn.Initialization(scheme="truncated_normal", std=0.1),
)
AUGMENTATION = dn.Augmentation(
    horizontal_flip=0.5,
    vertical_flip=0.3,
    shift=dn.Shift(pixels=2, fill="reflect"),
    crop=dn.Crop(min_area=0.5, max_aspect=1.5),
    mixup_alpha=0.4,
    cutmix_alpha=1.0,
    noise_std=0.1,
)

CASES: dict[str, tuple[dn.TrainingSpec, Dataset]] = {
    name: (spec, dataset_of(spec, name.partition(", ")[0]))
    for name, spec in {
        **{f"family {name}": _family(each) for name, each in ARCHITECTURES.items()},
        **{f"variant of {name}": _family(each) for name, each in VARIANTS.items()},
        "labelled, bert": _family(ARCHITECTURES["bert"]),
        "another mlp": case(dn.MLP(hidden=(8, 6), bias=False, activation="elu"), seed=7),
        **{f"a list {name}": case(each) for name, each in LISTS.items()},
        **{f"data {each.standardization}": case(CONVOLUTIONS, data=each) for each in SPLITS},
        **{f"initialization {each.scheme}": case(initialization=each) for each in INITIALIZATIONS},
        "regression, deviations": case(
            evaluation=dn.EvaluationSettings(mc_dropout_passes=3, train_metrics=False)
        ),
        **{f"{name} as it is": case(optimizer=type(each)()) for name, each in OPTIMIZERS.items()},
        **{
            f"{name} with all it has": case(
                optimizer=each,
                warmup=dn.Warmup(epochs=1.5, start_factor=0.1),
                decay_biases_and_norms=True,
                averaging=dn.EMA(decay=0.7),
            )
            for name, each in OPTIMIZERS.items()
        },
        **{f"schedule {each.kind}": case(schedule=each) for each in SCHEDULES},
        **{
            f"dropout {name}": case(IMAGES, BOTH.model_copy(update={"dropout": each}))
            for name, each in DROPOUTS.items()
        },
        **{
            f"batch norm {name}": case(
                IMAGES,
                BOTH.model_copy(update={"batch_norm": each, "order": "dropout_then_norm"}),
                micro_batch_size=8,
            )
            for name, each in NORMS.items()
        },
        **{
            f"{name} alone": case(CONVOLUTIONS, dn.Regularization.model_validate({name: each}))
            for name, each in {
                "layer_norm": dn.LayerNorm(**EVERYWHERE),
                "group_norm": dn.GroupNorm(groups=2, **EVERYWHERE),
                "instance_norm": dn.InstanceNorm(**EVERYWHERE),
                "rms_norm": dn.RMSNorm(**EVERYWHERE),
            }.items()
        },
        "limits on weights": case(
            MLP,
            dn.Regularization(dropout=dn.Dropout(), max_norm=0.5, l1=1e-3, label_smoothing=0.1),
            gradient_clipping=dn.GradientClipping(max_norm=0.5, max_value=0.1),
            last_batch="drop",
        ),
        "batches that grow, in parts": case(
            batch_size=9,
            batch_size_schedule=dn.BatchSizeGrowth(
                milestones=(1, 2), factor=1.5, max_size=18, lr_scaling="linear"
            ),
            micro_batch_size=6,
        ),
        "batches by steps": case(
            batch_size_schedule=dn.BatchSizeSteps(
                milestones=(1, 2), sizes=(9, 19), lr_scaling="square_root"
            )
        ),
        "found by itself": case(
            auto_learning_rate=dn.AutoLearningRate(
                steps=20, lowest_factor=0.01, highest_factor=100.0
            ),
            auto_batch_size=dn.AutoBatchSize(max_size=24, memory_share=0.5),
        ),
        "batches by steps, and rates with them": case(
            batch_size_schedule=dn.BatchSizeSteps(milestones=(2,), sizes=(9,), lr_scaling="linear")
        ),
        "batches that grow, and rates less": case(
            batch_size=9,
            batch_size_schedule=dn.BatchSizeGrowth(milestones=(2,), lr_scaling="square_root"),
        ),
        "stochastic weight averaging": case(averaging=dn.SWA(start_epoch=2)),
        "early stopping": case(
            optimizer=dn.Adam(lr=0.1),
            epochs=8,
            early_stopping=dn.EarlyStopping(patience=1, min_delta=0.5),
        ),
        "augmented": case(
            IMAGES, micro_batch_size=7, data=dn.Data(dataset="made", augmentation=AUGMENTATION)
        ),
        "everything measured": case(evaluation=EVERYTHING_MEASURED),
        "everything measured of averages of images": case(
            IMAGES,
            evaluation=dn.EvaluationSettings(robustness=True, recalibrate_batch_norm="dropout_off"),
            averaging=dn.SWA(start_epoch=2),
        ),
        "bfloat16": case(compute=dn.Compute(precision="bfloat16", deterministic=False)),
    }.items()
}

ELSEWHERE = {
    "compute.Compute.device=*": "where it is trained, and nothing of what",
    "compute.Compute.gpus": "likewise",
    "compute.Compute.*_limit": "when a training ends, not what comes of it",
    "compute.Compute.precision=float16": "tests/gpu",
    "compute.Compute.compile": "test_compile.py",
    "*.keep_prob": "becomes a rate when it is read",
    "augmentation.Shift.fill=edge": "no state to forget, as the other fills have none",
    "norms.*Norm.output": "of norms without state; that of batch norm is among the cases",
    "*.activation=*": "no state to forget; each is a layer of a list among the cases",
    "families.*Net.depth": "another name of blocks, of which the least that it names are many",
}
"""Options that are in no case, as patterns, and why."""
