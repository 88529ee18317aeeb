"""Every lint: that it speaks up, where, and that it keeps quiet otherwise."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.service.training.shorthand import listed, mlp, summary

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import lints as rules
from dropnorm_service.training import plan

NORM = dn.BatchNorm()
SILENT = mlp(8, optimization=dn.Optimization(batch_size=100))


def lints(spec: dn.TrainingSpec, *, train: int = 1000, limit: int | None = None) -> dict[str, str]:
    """Code -> field. A code that speaks twice would hide a field, so it may not."""
    found = plan(spec, summary(64, train=train), memory_limit_bytes=limit).lints
    assert all(lint.message for lint in found)
    assert len({lint.code for lint in found}) == len(found)
    return {lint.code: lint.field for lint in found}


def regularized(
    *hidden: int, dropout: Any = None, norm: Any = None, **more: Any
) -> dn.TrainingSpec:
    regularization = dn.Regularization(dropout=dropout, batch_norm=norm, **more)
    return mlp(*hidden, regularization=regularization)


def trained(**optimization: Any) -> dn.TrainingSpec:
    return mlp(8, optimization=dn.Optimization(**{"batch_size": 100, **optimization}))


def test_a_sound_spec_has_none() -> None:
    assert lints(SILENT) == {}


@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
def test_dropout_directly_before_batch_norm_by_order(position: Any) -> None:
    spec = regularized(
        8,
        dropout=dn.Dropout(rate=0.5),
        norm=dn.BatchNorm(position=position),
        order="dropout_then_norm",
    )
    assert lints(spec)["DROPOUT_BEFORE_BATCH_NORM"] == "regularization.order"


def test_one_hidden_layer_with_norm_then_dropout_is_sound() -> None:
    spec = regularized(8, dropout=dn.Dropout(rate=0.5), norm=NORM)
    assert set(lints(spec)) == {"BIAS_BEFORE_BATCH_NORM"}


def test_dropout_upstream_of_the_next_layers_norm() -> None:
    spec = regularized(8, 8, dropout=dn.Dropout(rate=0.5), norm=NORM)
    found = lints(spec)
    assert found["DROPOUT_UPSTREAM_OF_BATCH_NORM"] == "regularization.dropout.rate"
    assert "DROPOUT_BEFORE_BATCH_NORM" not in found


def test_no_shift_where_the_norm_has_no_running_statistics() -> None:
    norm = dn.BatchNorm(track_running_stats=False)
    spec = regularized(8, 8, dropout=dn.Dropout(rate=0.5), norm=norm, order="dropout_then_norm")
    assert set(lints(spec)) == {"BIAS_BEFORE_BATCH_NORM", "BATCH_STATISTICS_IN_EVALUATION"} - (
        {"BIAS_BEFORE_BATCH_NORM"}
    )


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ((layers.BatchNorm(),), "DROPOUT_BEFORE_BATCH_NORM"),
        ((layers.Activation(), layers.BatchNorm()), "DROPOUT_BEFORE_BATCH_NORM"),
        (
            (layers.Residual(layers=(layers.Linear(units=8),)), layers.BatchNorm()),
            "DROPOUT_BEFORE_BATCH_NORM",  # past the branch, by the identity
        ),
        (
            (layers.Residual(layers=(layers.Linear(units=4),)), layers.BatchNorm()),
            "DROPOUT_UPSTREAM_OF_BATCH_NORM",  # both ways have weights
        ),
        (
            (layers.Residual(layers=(layers.Linear(units=8), layers.BatchNorm())),),
            "DROPOUT_UPSTREAM_OF_BATCH_NORM",
        ),
    ],
)
def test_dropout_in_a_list(tail: tuple[dn.Layer, ...], code: str) -> None:
    dropout = layers.Dropout(rate=0.5)
    found = lints(listed(layers.Linear(units=8), layers.Activation(), dropout, *tail))
    shifts = {name: field for name, field in found.items() if name.startswith("DROPOUT_")}
    assert shifts == {code: "architecture.sequential.layers[2].dropout"}


def test_a_rate_for_convolutions_without_one() -> None:
    dropout = dn.Dropout(rate=0.5, conv_rate=0.2)
    spec = mlp(8, regularization=dn.Regularization(dropout=dropout))
    field = "regularization.dropout.conv_rate"
    assert lints(spec)["REGULARIZATION_WITHOUT_EFFECT"] == field


def test_rates_around_convolutions() -> None:
    """Each of the two rates acts somewhere, or is a lint."""

    def idle(*chain: dn.Layer, **rates: Any) -> set[str]:
        regularization = dn.Regularization(dropout=dn.Dropout(**rates))
        found = plan(listed(*chain, regularization=regularization), summary(1, 8, 8)).lints
        return {each.field for each in found if each.code == "REGULARIZATION_WITHOUT_EFFECT"}

    field = "regularization.dropout"
    conv, relu, linear = layers.Conv(channels=2), layers.Activation(), layers.Linear(units=4)
    dense = (layers.Flatten(), linear, relu)
    assert idle(conv, relu, rate=0.5, conv_rate=0.2) == {f"{field}.rate"}
    assert idle(conv, relu, rate=0.5) == idle(conv, relu, rate=0.0, conv_rate=0.2) == set()
    assert idle(conv, *dense, rate=0.5, conv_rate=0.2) == {f"{field}.conv_rate"}
    assert idle(conv, relu, *dense, rate=0.5, conv_rate=0.2) == set()


def test_the_order_is_not_blamed_for_a_norm_of_the_list() -> None:
    spec = listed(
        layers.BatchNorm(),
        layers.Linear(units=8),
        regularization=dn.Regularization(
            dropout=dn.Dropout(rate=0.0, input_rate=0.2), order="dropout_then_norm"
        ),
    )
    assert lints(spec)["DROPOUT_BEFORE_BATCH_NORM"] == "regularization.dropout.input_rate"


def test_dropout_in_a_branch_reaches_the_norm_behind_the_sum() -> None:
    branch = layers.Residual(layers=(layers.Linear(units=64), layers.Dropout(rate=0.5)))
    field = "architecture.sequential.layers[0].residual.layers[1].dropout"
    assert lints(listed(branch, layers.BatchNorm()))["DROPOUT_BEFORE_BATCH_NORM"] == field


def test_bias_in_an_mlp() -> None:
    assert lints(regularized(8, norm=NORM)) == {"BIAS_BEFORE_BATCH_NORM": "architecture.mlp.bias"}
    after = dn.BatchNorm(position="after_activation")
    assert lints(regularized(8, norm=after)) == {}


@pytest.mark.parametrize(
    ("between", "cancelled"),
    [
        ((), True),
        ((layers.Pool(),), True),
        ((layers.Pool(mode="global_average"),), True),
        ((layers.Pool(mode="average", padding=1),), False),
        ((layers.Activation(),), False),
        ((layers.Dropout(rate=0.1),), False),
        ((layers.Flatten(),), True),
        ((layers.Residual(layers=(layers.Activation(),)),), False),
    ],
)
def test_bias_before_norm_in_a_list(between: tuple[dn.Layer, ...], cancelled: bool) -> None:
    spec = listed(layers.Conv(channels=4), *between, layers.BatchNorm(), layers.Activation())
    found = {lint.code: lint.field for lint in plan(spec, summary(1, 8, 8)).lints}
    field = "architecture.sequential.layers[0].conv.bias" if cancelled else None
    assert found.get("BIAS_BEFORE_BATCH_NORM") == field


def test_bias_in_a_branch_is_cancelled_behind_the_sum_and_not_by_a_norm_inside() -> None:
    inside = layers.Residual(layers=(layers.BatchNorm(), layers.Linear(units=8)))
    found = lints(listed(layers.Linear(units=8), inside, layers.BatchNorm()))
    field = "architecture.sequential.layers[1].residual.layers[1].linear.bias"
    assert found["BIAS_BEFORE_BATCH_NORM"] == field


def test_many_fields_make_one_lint_that_names_some() -> None:
    block = (layers.Linear(units=8), layers.BatchNorm(), layers.Activation())
    found = plan(listed(*block * 6), summary(64)).lints
    assert [lint.code for lint in found] == ["BIAS_BEFORE_BATCH_NORM"]
    path = "architecture.sequential.layers[{}].linear.bias".format
    assert found[0].field == path(0)
    assert found[0].message.endswith(f"so too {path(3)}, {path(6)}, {path(9)} and 2 more")


def test_output_layers_bias_that_nobody_can_change_is_no_lint() -> None:
    norm = dn.BatchNorm(hidden=False, output=True)
    spec = listed(
        layers.Linear(units=8, bias=False),
        layers.Activation(),
        regularization=dn.Regularization(batch_norm=norm),
    )
    assert lints(spec) == {"BATCH_NORM_ON_LOGITS": "regularization.batch_norm.output"}


def test_dropout_on_logits() -> None:
    spec = regularized(8, dropout=dn.Dropout(rate=0.5, output_rate=0.1))
    assert lints(spec) == {"DROPOUT_ON_LOGITS": "regularization.dropout.output_rate"}
    last = listed(layers.Linear(units=10), layers.Dropout(rate=0.5), output_layer=False)
    assert lints(last) == {"DROPOUT_ON_LOGITS": "architecture.sequential.layers[1].dropout"}


def test_high_rate() -> None:
    assert lints(regularized(8, dropout=dn.Dropout(rate=0.79))) == {}
    found = lints(regularized(8, 8, dropout=dn.Dropout(rate=0.8)))
    assert found == {"HIGH_DROPOUT_RATE": "regularization.dropout.rate"}
    spec = listed(layers.Dropout(rate=0.9), layers.Linear(units=4))
    field = "architecture.sequential.layers[0].dropout.rate"
    assert lints(spec) == {"HIGH_DROPOUT_RATE": field}


def test_high_rate_of_stochastic_depth() -> None:
    def found(rate: float) -> dict[str, str]:
        blocks = [layers.Residual(layers=(layers.Linear(units=64), layers.Activation()))] * 2
        dropout = dn.Dropout(rate=0.0, stochastic_depth_rate=rate)
        return lints(listed(*blocks, regularization=dn.Regularization(dropout=dropout)))

    field = "regularization.dropout.stochastic_depth_rate"
    assert found(0.8) == {"HIGH_DROPOUT_RATE": field}
    assert found(0.79) == {}


def test_batch_statistics_in_evaluation() -> None:
    spec = regularized(8, norm=dn.BatchNorm(track_running_stats=False, position="after_activation"))
    field = "regularization.batch_norm.track_running_stats"
    assert lints(spec) == {"BATCH_STATISTICS_IN_EVALUATION": field}
    spec = listed(layers.BatchNorm(track_running_stats=False))
    field = "architecture.sequential.layers[0].batch_norm.track_running_stats"
    assert lints(spec) == {"BATCH_STATISTICS_IN_EVALUATION": field}


def test_regularization_without_effect() -> None:
    spec = regularized(dropout=dn.Dropout(rate=0.5), norm=NORM)
    found = plan(spec, summary(64)).lints
    assert [(lint.code, lint.field) for lint in found] == [
        ("REGULARIZATION_WITHOUT_EFFECT", "regularization.dropout.rate")
    ]
    assert "regularization.batch_norm.hidden" in found[0].message


def test_batches() -> None:
    assert lints(trained(batch_size=100), train=1001) == {
        "LAST_BATCH_OF_ONE": "optimization.last_batch"
    }
    assert lints(trained(batch_size=100, last_batch="drop"), train=1001) == {}
    assert lints(trained(batch_size=1), train=1001) == {}
    assert lints(trained(batch_size=100), train=99) == {
        "BATCH_EXCEEDS_SPLIT": "optimization.batch_size"
    }


def test_schedule_ends_early() -> None:
    half = dn.CosineSchedule(epochs=5, final_factor=0.1)
    field = "optimization.schedule.cosine.epochs"
    assert lints(trained(epochs=10, schedule=half)) == {"SCHEDULE_ENDS_EARLY": field}
    assert lints(trained(epochs=5, schedule=half)) == {}
    steep = dn.StepSchedule(step_size=2, gamma=0.1)
    field = "optimization.schedule.step.step_size"
    assert lints(trained(epochs=13, schedule=steep)) == {"SCHEDULE_ENDS_EARLY": field}
    assert lints(trained(epochs=12, schedule=steep)) == {}
    exponential = dn.ExponentialSchedule(gamma=0.1)
    field = "optimization.schedule.exponential.gamma"
    assert lints(trained(epochs=7, schedule=exponential)) == {"SCHEDULE_ENDS_EARLY": field}
    assert lints(trained(epochs=6, schedule=exponential)) == {}
    line = dn.PolynomialSchedule(epochs=5)
    field = "optimization.schedule.polynomial.epochs"
    assert lints(trained(epochs=10, schedule=line)) == {"SCHEDULE_ENDS_EARLY": field}
    assert lints(trained(epochs=5, schedule=line)) == {}


@pytest.mark.parametrize(
    "schedule",
    [
        dn.StepSchedule(step_size=2, gamma=1.0),
        dn.MultiStepSchedule(milestones=(2,), gamma=1.0),
        dn.ExponentialSchedule(gamma=1.0),
        dn.PlateauSchedule(gamma=1.0),
    ],
    ids=str,
)
def test_schedules_that_change_nothing(schedule: dn.Schedule) -> None:
    assert lints(trained(schedule=schedule)) == {
        "SCHEDULE_WITHOUT_EFFECT": f"optimization.schedule.{schedule.kind}.gamma"
    }


def test_an_exponential_schedule_of_one_epoch() -> None:
    field = "optimization.schedule.exponential"
    schedule = dn.ExponentialSchedule()
    assert lints(trained(epochs=1, schedule=schedule)) == {"SCHEDULE_WITHOUT_EFFECT": field}
    assert lints(trained(epochs=2, schedule=schedule)) == {}


def test_a_plateau_that_is_never_waited_for() -> None:
    found = {"SCHEDULE_WITHOUT_EFFECT": "optimization.schedule.plateau.patience"}
    schedule = dn.PlateauSchedule(patience=5)
    assert lints(trained(epochs=6, schedule=schedule)) == found
    assert lints(trained(epochs=7, schedule=schedule)) == {}
    for patience, expected in ((5, found), (6, {})):
        stopping = dn.EarlyStopping(patience=patience)
        assert lints(trained(epochs=20, schedule=schedule, early_stopping=stopping)) == expected


def test_parts_of_a_batch() -> None:
    field = "optimization.micro_batch_size"
    assert lints(trained(micro_batch_size=50)) == {}
    for size in (100, 101):
        assert lints(trained(micro_batch_size=size)) == {"ACCUMULATION_WITHOUT_EFFECT": field}
    growth = dn.BatchSizeGrowth(milestones=(3,))
    assert lints(trained(micro_batch_size=101, batch_size_schedule=growth)) == {}
    spec = regularized(8, norm=dn.BatchNorm()).model_copy(
        update={"optimization": dn.Optimization(batch_size=100, micro_batch_size=50)}
    )
    assert lints(spec)["BATCH_NORM_OVER_PARTS"] == field


def test_batches_that_outgrow_the_split() -> None:
    growth = dn.BatchSizeGrowth(milestones=(3,), factor=20.0)
    assert lints(trained(batch_size_schedule=growth)) == {
        "BATCH_EXCEEDS_SPLIT": "optimization.batch_size_schedule.growth.milestones"
    }


def test_batches_that_never_change() -> None:
    same = dn.BatchSizeSteps(milestones=(3,), sizes=(100,))
    assert lints(trained(batch_size_schedule=same)) == {
        "BATCH_SIZE_SCHEDULE_WITHOUT_EFFECT": "optimization.batch_size_schedule.steps"
    }
    growth = dn.BatchSizeGrowth(milestones=(3,))
    assert lints(trained(batch_size_schedule=growth)) == {}


def test_weight_decay_without_effect() -> None:
    code, field = "WEIGHT_DECAY_WITHOUT_EFFECT", "optimization.optimizer.sgd.decoupled"
    for sgd in (dn.SGD(decoupled=True, momentum=0.9), dn.SGD(decoupled=True, weight_decay=0.1)):
        assert lints(trained(optimizer=sgd)) == {code: field}
    sound = dn.SGD(decoupled=True, weight_decay=0.1, momentum=0.9)
    assert lints(trained(optimizer=sound, decay_biases_and_norms=True)) == {}
    assert lints(trained(optimizer=dn.Adam(), decay_biases_and_norms=True)) == {
        code: "optimization.decay_biases_and_norms"
    }


def test_decay_of_biases_and_norms_that_are_not_there() -> None:
    sound = dn.Optimization(optimizer=dn.AdamW(), decay_biases_and_norms=True, batch_size=100)
    bare = dn.MLP(hidden=(8,), bias=False)
    spec = mlp(8, optimization=sound).model_copy(update={"architecture": bare})
    field = "optimization.decay_biases_and_norms"
    assert lints(spec) == {"WEIGHT_DECAY_WITHOUT_EFFECT": field}
    assert lints(mlp(8, optimization=sound)) == {}
    normed = spec.model_copy(update={"regularization": dn.Regularization(batch_norm=NORM)})
    assert lints(normed) == {}


def test_warmup_on_one_cycle() -> None:
    spec = trained(schedule=dn.OneCycleSchedule(), warmup=dn.Warmup())
    assert lints(spec) == {"WARMUP_ON_ONE_CYCLE": "optimization.warmup"}
    spec = trained(schedule=dn.InverseSqrtSchedule(warmup_steps=50), warmup=dn.Warmup())
    assert lints(spec) == {"WARMUP_ON_INVERSE_SQRT": "optimization.warmup"}


def test_a_rise_as_long_as_the_training() -> None:
    for steps, found in ((200, True), (199, False)):  # 20 epochs of 10 steps
        spec = trained(schedule=dn.InverseSqrtSchedule(warmup_steps=steps))
        assert ("WARMUP_OUTLASTS_TRAINING" in lints(spec)) == found


def test_early_stopping_without_effect() -> None:
    field = "optimization.early_stopping.patience"
    stopping = dn.EarlyStopping(patience=5)
    for epochs in (5, 6):  # the first epoch always improves, so five are waited for with the sixth
        assert lints(trained(epochs=epochs, early_stopping=stopping)) == {
            "EARLY_STOPPING_WITHOUT_EFFECT": field
        }
    assert lints(trained(epochs=7, early_stopping=stopping)) == {}


def test_unused_gpus() -> None:
    def asked(gpus: int) -> dict[str, str]:
        return lints(SILENT.model_copy(update={"compute": dn.Compute(device="cuda", gpus=gpus)}))

    assert asked(2) == {"UNUSED_GPUS": "compute.gpus"}
    assert asked(1) == {}


def test_the_page_explains_every_lint() -> None:
    source = Path(rules.__file__).parent
    codes = {
        code
        for path in source.glob("[!_]*.py")
        for code in re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', path.read_text(encoding="utf-8"))
    }
    page = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert len(codes) > len(rules.RULES) // 2  # several rules share a code
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def test_memory_nearly_full() -> None:
    total = plan(SILENT, summary(64)).memory.total
    assert lints(SILENT, limit=total) == {"MEMORY": "optimization.batch_size"}
    assert lints(SILENT, limit=total * 2) == {}


def test_dropout_schedule_without_effect() -> None:
    off = dn.OffAfterDropoutSchedule(epochs=3)
    code, field = "DROPOUT_SCHEDULE_WITHOUT_EFFECT", "regularization.dropout.schedule"

    def found(schedule: dn.DropoutSchedule, rate: float, epochs: int) -> dict[str, str]:
        return lints(
            mlp(
                8,
                optimization=dn.Optimization(epochs=epochs, batch_size=100),
                regularization=dn.Regularization(dropout=dn.Dropout(rate=rate, schedule=schedule)),
            )
        )

    assert found(off, 0.0, 5) == {code: field}
    assert found(off, 0.5, 3) == {code: f"{field}.off_after.epochs"}
    assert found(off, 0.5, 4) == {}
    ramp = dn.LinearDropoutSchedule(to_epoch=5)
    assert found(ramp, 0.5, 4) == {"DROPOUT_SCHEDULE_CUT_SHORT": f"{field}.linear"}
    assert found(ramp, 0.5, 5) == {}
    late = dn.LinearDropoutSchedule(from_epoch=5)
    assert found(late, 0.5, 5) == {"DROPOUT_SCHEDULE_CUT_SHORT": f"{field}.linear"}
    assert found(late, 0.5, 6) == {}


def test_dropout_schedule_that_compiles_again_and_again() -> None:
    def found(epochs: int, **compute: Any) -> dict[str, str]:
        return lints(
            mlp(
                8,
                optimization=dn.Optimization(epochs=epochs, batch_size=100),
                regularization=dn.Regularization(
                    dropout=dn.Dropout(schedule=dn.LinearDropoutSchedule())
                ),
                compute=dn.Compute(**compute),
            )
        )

    assert found(8, compile=True) == {"DROPOUT_SCHEDULE_RECOMPILES": "compute.compile"}
    assert found(8) == found(4, compile=True) == {}


def test_forms_of_batch_norm_without_effect() -> None:
    field = "regularization.batch_norm"

    def found(**norm: Any) -> dict[str, str]:
        every = lints(
            mlp(
                8,
                optimization=dn.Optimization(epochs=5, batch_size=100),
                regularization=dn.Regularization(batch_norm=dn.BatchNorm(**norm)),
            )
        )
        return {code: at for code, at in every.items() if code != "BIAS_BEFORE_BATCH_NORM"}

    assert found(ghost_batch_size=51) == {
        "GHOST_BATCHES_WITHOUT_EFFECT": f"{field}.ghost_batch_size"
    }
    assert found(ghost_batch_size=50) == {}
    assert found(freeze_after=5) == {"FREEZE_WITHOUT_EFFECT": f"{field}.freeze_after"}
    assert found(freeze_after=4) == {}
    assert found(synchronized=True) == {"SYNCHRONIZED_ON_ONE_DEVICE": f"{field}.synchronized"}


def test_recalibration_without_effect() -> None:
    def found(how: Any, **regularization: Any) -> dict[str, str]:
        spec = mlp(
            8,
            regularization=dn.Regularization(**regularization),
            evaluation=dn.EvaluationSettings(recalibrate_batch_norm=how),
        )
        return {code: at for code, at in lints(spec).items() if code.startswith("RECALIBRATION")}

    silent = {"RECALIBRATION_WITHOUT_EFFECT": "evaluation.recalibrate_batch_norm"}
    untracked = dn.BatchNorm(track_running_stats=False)
    assert found("dropout_off") == found("dropout_off", batch_norm=untracked) == silent
    assert found("dropout_on", batch_norm=NORM) == silent
    assert found("dropout_on", batch_norm=NORM, dropout=dn.Dropout()) == {}
    assert found("dropout_off", batch_norm=NORM) == {}


def test_dropconnect_without_effect_too_strong_or_before_a_norm() -> None:
    field = "regularization.dropout.dropconnect_rate"

    def dropped(rate: float, *hidden: int, norm: Any = None) -> dict[str, str]:
        dropout = dn.Dropout(rate=0.0, dropconnect_rate=rate)
        return lints(regularized(*hidden, dropout=dropout, norm=norm))

    assert dropped(0.5) == {"REGULARIZATION_WITHOUT_EFFECT": field}
    assert dropped(0.5, 8) == {}
    assert dropped(0.9, 8) == {"HIGH_DROPOUT_RATE": field}
    assert dropped(0.5, 8, norm=NORM)["DROPOUT_BEFORE_BATCH_NORM"] == field
    own = layers.Linear(units=8, dropconnect_rate=0.5)
    found = lints(listed(own, layers.BatchNorm(), layers.Activation()))
    assert (
        found["DROPOUT_BEFORE_BATCH_NORM"]
        == "architecture.sequential.layers[0].linear.dropconnect_rate"
    )


def test_limits_on_weights_that_are_not_there() -> None:
    limits = dn.Regularization(max_norm=3.0, l1=1e-4)
    norms = listed(layers.BatchNorm(), layers.Flatten(), output_layer=False, regularization=limits)
    found = plan(norms, summary(10, outputs=10)).lints
    assert {lint.code: lint.field for lint in found}["REGULARIZATION_WITHOUT_EFFECT"] == (
        "regularization.max_norm"
    )
    assert "REGULARIZATION_WITHOUT_EFFECT" not in lints(mlp(8, regularization=limits))


def test_passes_of_dropout_where_there_is_none() -> None:
    evaluation = dn.EvaluationSettings(mc_dropout_passes=5)
    dropout = dn.Regularization(dropout=dn.Dropout(rate=0.5))
    field = "evaluation.mc_dropout_passes"
    assert lints(mlp(8, evaluation=evaluation)) == {"EVALUATION_WITHOUT_EFFECT": field}
    assert lints(mlp(8, evaluation=evaluation, regularization=dropout)) == {}


def test_averages_without_effect() -> None:
    def found(**optimization: Any) -> dict[str, str]:
        return lints(trained(epochs=8, **optimization))

    field = "optimization.averaging.swa.start_epoch"
    assert found(averaging=dn.SWA(start_epoch=8)) == {"AVERAGING_WITHOUT_EFFECT": field}
    assert found(averaging=dn.SWA(start_epoch=7)) == found(averaging=dn.SWA()) == {}
    assert found(averaging=dn.EMA()) == {}
    stopping = dn.EarlyStopping(patience=3)
    assert found(averaging=dn.SWA(start_epoch=5), early_stopping=stopping) == {
        "AVERAGING_MAY_NOT_BEGIN": field
    }
    assert found(averaging=dn.SWA(start_epoch=4), early_stopping=stopping) == {}


def test_a_variance_shift_needs_both_a_norm_and_dropout() -> None:
    evaluation = dn.EvaluationSettings(variance_shift=True)

    def found(**parts: Any) -> str | None:
        spec = mlp(8, evaluation=evaluation, regularization=dn.Regularization(**parts))
        return lints(spec).get("EVALUATION_WITHOUT_EFFECT")

    dropout, field = dn.Dropout(rate=0.5), "evaluation.variance_shift"
    assert found(batch_norm=NORM, dropout=dropout) is None
    assert found(batch_norm=NORM) == found(dropout=dropout) == field
    assert found(batch_norm=dn.BatchNorm(track_running_stats=False), dropout=dropout) == field


def test_a_layer_report_after_the_end() -> None:
    def found(every: int) -> dict[str, str]:
        evaluation = dn.EvaluationSettings(layer_report_epochs=every)
        return lints(trained(epochs=8).model_copy(update={"evaluation": evaluation}))

    assert found(8) == {}
    assert found(9) == {"EVALUATION_WITHOUT_EFFECT": "evaluation.layer_report_epochs"}


BOTH_ORDERED: dict[str, Any] = {"order": "dropout_then_norm"}


@pytest.mark.parametrize(
    ("parts", "idle"),
    [
        ({"norm": NORM}, True),
        ({"dropout": dn.Dropout()}, True),
        ({"dropout": dn.Dropout(rate=0.0, input_rate=0.1), "norm": NORM}, True),
        ({"dropout": dn.Dropout(), "norm": NORM}, False),
        ({"dropout": dn.Dropout(), "norm": dn.BatchNorm(position="after_activation")}, False),
    ],
)
def test_an_order_needs_dropout_and_a_norm_in_one_place(parts: dict[str, Any], idle: bool) -> None:
    found = lints(regularized(8, **parts, **BOTH_ORDERED)).get("REGULARIZATION_WITHOUT_EFFECT")
    assert found == ("regularization.order" if idle else None)


def test_an_order_acts_within_a_branch() -> None:
    spec = dn.TrainingSpec(
        architecture=dn.ResNet(depth=20),
        regularization=dn.Regularization(dropout=dn.Dropout(), batch_norm=NORM, **BOTH_ORDERED),
        data=dn.Data(dataset="made"),
    )
    codes = {lint.code for lint in plan(spec, summary(1, 28, 28)).lints}
    assert "REGULARIZATION_WITHOUT_EFFECT" not in codes


@pytest.mark.parametrize(
    ("norm", "field"),
    [
        (dn.BatchNorm(hidden=False), "hidden"),
        (dn.BatchNorm(hidden=False, input=True, position="after_activation"), "position"),
        (dn.BatchNorm(hidden=False, input=True), None),
    ],
)
def test_a_norm_without_a_place(norm: dn.BatchNorm, field: str | None) -> None:
    found = lints(regularized(8, norm=norm)).get("REGULARIZATION_WITHOUT_EFFECT")
    assert found == (field and f"regularization.batch_norm.{field}")


@pytest.mark.parametrize(
    ("dropout", "field"),
    [
        (dn.Dropout(rate=0.0, method="gaussian"), "method"),
        (dn.Dropout(rate=0.0, dropconnect_rate=0.5, rescaling="l2_norm"), "rescaling"),
        (dn.Dropout(method="spatial"), "method"),
        (dn.Dropout(rate=0.0, input_rate=0.1, rescaling="l2_norm"), None),
        (dn.Dropout(rate=0.0), None),
    ],
)
def test_a_form_of_dropout_that_makes_no_difference(dropout: dn.Dropout, field: str | None) -> None:
    found = lints(regularized(8, dropout=dropout)).get("REGULARIZATION_WITHOUT_EFFECT")
    assert found == (field and f"regularization.dropout.{field}")


def test_spatial_dropout_in_a_list_says_so_layer_by_layer() -> None:
    spec = listed(
        layers.Conv(channels=4),
        layers.Dropout(rate=0.2, method="spatial"),
        layers.Flatten(),
        layers.Dropout(rate=0.2, method="spatial"),
        layers.Linear(units=8),
        layers.Activation(),
    )
    (found,) = [each for each in plan(spec, summary(1, 8, 8)).lints if "spatial" in each.message]
    assert found.field == "architecture.sequential.layers[3].dropout.method"


def test_alpha_dropout_is_for_selu() -> None:
    regularization = dn.Regularization(dropout=dn.Dropout(rate=0.1, method="alpha"))
    selu = mlp(8, activation="selu", regularization=regularization)
    assert lints(selu) == {}
    found = lints(mlp(8, regularization=regularization))
    assert found == {"ALPHA_DROPOUT_WITHOUT_SELU": "regularization.dropout.method"}


def test_dropout_that_may_be_over_when_it_is_measured() -> None:
    def asked(dropout: dn.Dropout) -> dict[str, str]:
        settings = dn.EvaluationSettings(mc_dropout_passes=5)
        return lints(regularized(8, dropout=dropout).model_copy(update={"evaluation": settings}))

    early = dn.OffAfterDropoutSchedule(epochs=2)
    fading = dn.LinearDropoutSchedule(start_factor=1.0, end_factor=0.0)
    field = "evaluation.mc_dropout_passes"
    assert asked(dn.Dropout(schedule=early)) == {"DROPOUT_MAY_BE_OVER": field}
    assert asked(dn.Dropout(schedule=fading)) == {"DROPOUT_MAY_BE_OVER": field}
    assert asked(dn.Dropout(schedule=dn.LinearDropoutSchedule(end_factor=0.5))) == {}
    assert asked(dn.Dropout(schedule=dn.CurriculumDropoutSchedule())) == {}


def test_a_curriculum_of_one_epoch_never_drops() -> None:
    def asked(epochs: int) -> dict[str, str]:
        spec = regularized(8, dropout=dn.Dropout(schedule=dn.CurriculumDropoutSchedule()))
        return lints(
            spec.model_copy(update={"optimization": dn.Optimization(epochs=epochs, batch_size=100)})
        )

    field = "regularization.dropout.schedule.curriculum"
    assert asked(1) == {"DROPOUT_SCHEDULE_WITHOUT_EFFECT": field}
    assert asked(2) == {}


def test_a_curriculum_that_hardly_begins() -> None:
    def asked(gamma: float) -> dict[str, str]:
        schedule = dn.CurriculumDropoutSchedule(gamma=gamma)
        spec = regularized(8, dropout=dn.Dropout(schedule=schedule))
        return lints(
            spec.model_copy(update={"optimization": dn.Optimization(epochs=11, batch_size=100)})
        )

    field = "regularization.dropout.schedule.curriculum.gamma"
    assert asked(0.001) == {"DROPOUT_SCHEDULE_WITHOUT_EFFECT": field}  # 1 - exp(-0.01) is less
    assert asked(0.0011) == {}


def test_recalibration_of_norms_that_stand_still() -> None:
    def asked(norm: dn.BatchNorm) -> str | None:
        settings = dn.EvaluationSettings(recalibrate_batch_norm="dropout_off")
        spec = regularized(8, norm=norm).model_copy(update={"evaluation": settings})
        return lints(spec).get("RECALIBRATION_MAY_NOT_ACT")

    assert asked(dn.BatchNorm(freeze_after=5)) == "evaluation.recalibrate_batch_norm"
    assert asked(dn.BatchNorm(freeze_after=20)) is None
    assert asked(NORM) is None


def test_a_warmup_that_does_not_rise() -> None:
    found = lints(trained(warmup=dn.Warmup(start_factor=1.0)))
    assert found == {"SCHEDULE_WITHOUT_EFFECT": "optimization.warmup.start_factor"}


def test_muon_without_matrices() -> None:
    muon: dict[str, Any] = {"optimization": dn.Optimization(optimizer=dn.Muon(), batch_size=100)}
    chain = (layers.Conv(channels=4), layers.Activation(), layers.Flatten())
    spec = listed(*chain, **muon)
    codes = {lint.code: lint.field for lint in plan(spec, summary(1, 8, 8)).lints}
    assert codes == {"MUON_WITHOUT_MATRICES": "optimization.optimizer.muon"}
    assert lints(mlp(8, **muon)) == {}


def test_muon_moves_the_only_hidden_layer_whatever_it_is_called() -> None:
    muon: dict[str, Any] = {"optimization": dn.Optimization(optimizer=dn.Muon(), batch_size=100)}
    last = listed(layers.Linear(units=10), output_layer=False, **muon)
    assert "MUON_WITHOUT_MATRICES" in lints(last)


def test_bins_without_confidence() -> None:
    spec = mlp(8, evaluation=dn.EvaluationSettings(calibration_bins=20))
    found = plan(spec, summary(64, outputs=1, task="regression")).lints
    assert [lint.field for lint in found] == ["evaluation.calibration_bins"]
    assert lints(spec) == {}
