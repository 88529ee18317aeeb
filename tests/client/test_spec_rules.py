"""Every rule of a spec: what it refuses, the field that it blames, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError
from tests import strategies

from dropnorm import spec as dn
from dropnorm.spec._base import problems_of

MINIMAL: dict[str, Any] = {
    "architecture": {"kind": "mlp", "hidden": [8]},
    "data": {"dataset": "digits"},
}


def problems(**values: Any) -> dict[str, str]:
    """What is wrong with MINIMAL, changed by these values: message by field."""
    with pytest.raises(dn.InvalidSpecError) as caught:
        dn.TrainingSpec.parse(MINIMAL | values)
    return dict(caught.value.problems)


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": {"kind": "sequential", "layers": layers}}


def optimization(**values: Any) -> dict[str, Any]:
    return {"optimization": values}


def dropout(**values: Any) -> dict[str, Any]:
    return {"regularization": {"dropout": values}}


RULES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no layers": (sequential(), "architecture.sequential.layers", "give at least one layer"),
    "an empty residual branch": (
        sequential({"kind": "flatten"}, {"kind": "residual", "layers": []}),
        "architecture.sequential.layers[1].residual.layers",
        "give the residual branch at least one layer",
    ),
    "too many layers in all": (
        sequential(
            *[{"kind": "flatten"}] * 500, {"kind": "residual", "layers": [{"kind": "flatten"}] * 12}
        ),
        "architecture.sequential.layers",
        "at most 512 layers, nested ones counted, not 513",
    ),
    "a slope that the function does not have": (
        sequential({"kind": "activation", "negative_slope": 0.2}),
        "architecture.sequential.layers[0].activation.negative_slope",
        "relu has no slope to set; leave it out, or choose leaky_relu",
    ),
    "groups that do not divide": (
        sequential({"kind": "conv", "channels": 6, "groups": 4}),
        "architecture.sequential.layers[0].conv.groups",
        "4 groups do not divide 6 channels",
    ),
    "too much pooling padding": (
        sequential({"kind": "pool", "kernel_size": 3, "padding": 2}),
        "architecture.sequential.layers[0].pool.padding",
        "pooling pads by at most half its kernel size, here 1",
    ),
    "a dropout of everything": (
        dropout(rate=1.0),
        "regularization.dropout.rate",
        "at 1 nothing is left to learn from",
    ),
    "a dropout of every input": (
        dropout(input_rate=1),
        "regularization.dropout.input_rate",
        "at 1 nothing is left to learn from",
    ),
    "rate and keep_prob": (
        dropout(rate=0.2, keep_prob=0.8),
        "regularization.dropout",
        "give either rate or keep_prob",
    ),
    "nothing kept": (
        dropout(keep_prob=0.0),
        "regularization.dropout.keep_prob",
        "Input should be greater than or equal to 0.000000000001, not 0.0",
    ),
    "so little kept that the rate would be 1": (
        dropout(keep_prob=1e-13),
        "regularization.dropout.keep_prob",
        "Input should be greater than or equal to 0.000000000001, not 1e-13",
    ),
    "nothing kept, and no rate": (
        dropout(rate=None, keep_prob=0.0),
        "regularization.dropout.keep_prob",
        "Input should be greater than or equal to 0.000000000001",
    ),
    "a window over the whole image": (
        sequential({"kind": "pool", "mode": "global_average", "kernel_size": 3}),
        "architecture.sequential.layers[0].pool.kernel_size",
        "global_average has no window; leave kernel_size out",
    ),
    "a stride over the whole image": (
        sequential({"kind": "pool", "mode": "global_average", "stride": 2}),
        "architecture.sequential.layers[0].pool.stride",
        "global_average has no window; leave stride out",
    ),
    "a padding of the whole image": (
        sequential({"kind": "pool", "mode": "global_average", "padding": 1}),
        "architecture.sequential.layers[0].pool.padding",
        "global_average has no window; leave padding out",
    ),
    "a distribution that the scheme has not": (
        {"initialization": {"scheme": "orthogonal", "distribution": "uniform"}},
        "initialization.distribution",
        "orthogonal takes no distribution; leave it out, or choose xavier, kaiming or lecun",
    ),
    "a gain that the scheme has not": (
        {"initialization": {"scheme": "lecun", "gain": 2.0}},
        "initialization.gain",
        "lecun takes no gain",
    ),
    "a std that the scheme has not": (
        {"initialization": {"scheme": "xavier", "std": 0.1}},
        "initialization.std",
        "xavier takes no std",
    ),
    "a bias under the default scheme": (
        {"initialization": {"bias": 0.5}},
        "initialization.bias",
        "the default scheme draws its biases",
    ),
    "nesterov without momentum": (
        optimization(optimizer={"kind": "sgd", "nesterov": True}),
        "optimization.optimizer.sgd.nesterov",
        "Nesterov's step needs momentum",
    ),
    "a momentum for a cumulative average": (
        {"regularization": {"batch_norm": {"averaging": "cumulative", "momentum": 0.2}}},
        "regularization.batch_norm.momentum",
        "a cumulative average has no momentum; leave it out",
    ),
    "an average of nothing": (
        sequential({"kind": "batch_norm", "averaging": "cumulative", "track_running_stats": False}),
        "architecture.sequential.layers[0].batch_norm.averaging",
        "there are no running statistics; set track_running_stats, or leave this out",
    ),
    "frozen statistics that nobody keeps": (
        {"regularization": {"batch_norm": {"freeze_after": 2, "track_running_stats": False}}},
        "regularization.batch_norm.freeze_after",
        "there are no running statistics",
    ),
    "gamma and beta frozen at no time": (
        {"regularization": {"batch_norm": {"freeze_affine": True}}},
        "regularization.batch_norm.freeze_affine",
        "give freeze_after too",
    ),
    "no gamma and beta to freeze": (
        {
            "regularization": {
                "batch_norm": {"freeze_affine": True, "freeze_after": 1, "affine": False}
            }
        },
        "regularization.batch_norm.freeze_affine",
        "there are no gamma and beta",
    ),
    "a momentum of no statistics": (
        {"regularization": {"batch_norm": {"track_running_stats": False, "momentum": 0.5}}},
        "regularization.batch_norm.momentum",
        "there are no running statistics; set track_running_stats, or leave this out",
    ),
    "a word for a part": (
        {"optimization": {"auto_learning_rate": "auto"}},
        "optimization.auto_learning_rate",
        "give the fields of AutoLearningRate by name, not 'auto'",
    ),
    "synchronised ghosts": (
        {"regularization": {"batch_norm": {"synchronized": True, "ghost_batch_size": 8}}},
        "regularization.batch_norm.synchronized",
        "leave either of the two out",
    ),
    "a ramp that is flat": (
        {"regularization": {"dropout": {"schedule": {"kind": "linear", "start_factor": 1.0}}}},
        "regularization.dropout.schedule.linear.end_factor",
        "from 1 to 1 there is no ramp",
    ),
    "a ramp that ends before it begins": (
        {
            "regularization": {
                "dropout": {"schedule": {"kind": "linear", "from_epoch": 3, "to_epoch": 3}}
            }
        },
        "regularization.dropout.schedule.linear.to_epoch",
        "the ramp begins after epoch 3 and would end with epoch 3; end it later",
    ),
    "a first step after the end": (
        optimization(epochs=5, schedule={"kind": "step", "step_size": 5}),
        "optimization.schedule.step.step_size",
        "the first step would come after 5 epochs, and training ends after 5",
    ),
    "a schedule longer than the training": (
        optimization(epochs=5, schedule={"kind": "cosine", "epochs": 6}),
        "optimization.schedule.cosine.epochs",
        "the schedule runs for 6 epochs and training for 5",
    ),
    "a last step after the end": (
        optimization(epochs=5, schedule={"kind": "multi_step", "milestones": [2, 5]}),
        "optimization.schedule.multi_step.milestones",
        "the last change would come after 5 epochs, and training ends after 5",
    ),
    "milestones out of order": (
        optimization(schedule={"kind": "multi_step", "milestones": [5, 2]}),
        "optimization.schedule.multi_step.milestones",
        "give epochs in rising order, each once",
    ),
    "no milestones": (
        optimization(schedule={"kind": "multi_step", "milestones": []}),
        "optimization.schedule.multi_step.milestones",
        "give at least one epoch",
    ),
    "a polynomial longer than the training": (
        optimization(epochs=5, schedule={"kind": "polynomial", "epochs": 6}),
        "optimization.schedule.polynomial.epochs",
        "the schedule runs for 6 epochs and training for 5",
    ),
    "a restart after the end": (
        optimization(epochs=5, schedule={"kind": "cosine_restarts", "first_epochs": 5}),
        "optimization.schedule.cosine_restarts.first_epochs",
        "the first restart would come after 5 epochs",
    ),
    "other batches after the end": (
        optimization(epochs=5, batch_size_schedule={"kind": "growth", "milestones": [5]}),
        "optimization.batch_size_schedule.growth.milestones",
        "the last change would come after 5 epochs, and training ends after 5",
    ),
    "as many sizes as milestones": (
        optimization(batch_size_schedule={"kind": "steps", "milestones": [2, 5], "sizes": [9]}),
        "optimization.batch_size_schedule.steps.sizes",
        "give a size for each of the 2 milestones",
    ),
    "an augmentation of nothing": (
        {"data": {"dataset": "mnist", "augmentation": {}}},
        "data.augmentation",
        "nothing is changed; give at least one setting, or leave augmentation out",
    ),
    "an average after the end": (
        optimization(epochs=5, averaging={"kind": "swa", "start_epoch": 6}),
        "optimization.averaging.swa.start_epoch",
        "averaging would begin with epoch 6, and training ends after 5",
    ),
    "batches that may not grow": (
        optimization(batch_size_schedule={"kind": "growth", "milestones": [2], "max_size": 64}),
        "optimization.batch_size_schedule.growth.max_size",
        "batches begin with 128 samples; give a max_size of at least that",
    ),
    "batches as large as can be, and by a schedule": (
        optimization(auto_batch_size={}, batch_size_schedule={"kind": "growth", "milestones": [2]}),
        "optimization.auto_batch_size",
        "leave auto_batch_size or batch_size_schedule out",
    ),
    "batches as large as can be, in parts": (
        optimization(auto_batch_size={}, micro_batch_size=8),
        "optimization.auto_batch_size",
        "a batch is computed in parts of 8 samples, so that memory sets no limit to it",
    ),
    "clipping of nothing": (
        optimization(gradient_clipping={}),
        "optimization.gradient_clipping.max_norm",
        "give max_norm, max_value or both",
    ),
    "Muon's nesterov without momentum": (
        optimization(optimizer={"kind": "muon", "momentum": 0.0}),
        "optimization.optimizer.muon.nesterov",
        "Nesterov's step needs momentum",
    ),
    "nothing but warm-up": (
        optimization(epochs=5, warmup={"epochs": 5}),
        "optimization.warmup.epochs",
        "a warm-up of 5 epochs leaves nothing of the 5 epochs of training",
    ),
    "GPUs for the cpu": (
        {"compute": {"device": "cpu", "gpus": 1}},
        "compute.gpus",
        "a job on the cpu takes no GPUs",
    ),
    "cuda without GPUs": (
        {"compute": {"device": "cuda", "gpus": 0}},
        "compute.gpus",
        "a job on cuda needs at least one GPU",
    ),
    "float16 without a GPU": (
        {"compute": {"precision": "float16"}},
        "compute.precision",
        "float16 needs a GPU",
    ),
    "a data set of an impossible name": (
        {"data": {"dataset": "../etc/passwd"}},
        "data.dataset",
        "give small letters, digits, _ and -, at most 63, the first a letter, not '../etc/passwd'",
    ),
    "too wide a list": (
        {"architecture": {"kind": "mlp", "hidden": [8] * 513}},
        "architecture.mlp.hidden",
        "give at most 512 items, not 513",
    ),
    "one number for a list": (
        {"architecture": {"kind": "mlp", "hidden": 8}},
        "architecture.mlp.hidden",
        "give a list, not 8",
    ),
    "a name for a part": (
        {"architecture": "mlp"},
        "architecture",
        "give a kind and its fields by name, not 'mlp'",
    ),
    "an unknown field": (
        {"learning_rate": 0.1},
        "learning_rate",
        "there is no such field; check the spelling or the version of the service",
    ),
    "a missing part": ({"data": None}, "data", "give the fields of Data by name, not None"),
    "an unknown kind": (
        {"architecture": {"kind": "perceptron"}},
        "architecture",
        "there is no kind 'perceptron'; choose one of mlp, sequential",
    ),
    "no kind": ({"architecture": {}}, "architecture", "say which one is meant by its kind"),
    "a number as text": (
        optimization(epochs="20"),
        "optimization.epochs",
        "Input should be a valid integer, not '20'",
    ),
    "a truth as a number": (
        optimization(batch_size=True),
        "optimization.batch_size",
        "Input should be a valid integer, not True",
    ),
    "a fraction of an epoch": (
        optimization(epochs=2.0),
        "optimization.epochs",
        "Input should be a valid integer, not 2.0",
    ),
    "a number as a truth": (
        {"compute": {"compile": 1}},
        "compute.compile",
        "Input should be a valid boolean, not 1",
    ),
    "a seed below zero": ({"seed": -1}, "seed", "greater than or equal to 0"),
    "a seed too large for protobuf": ({"seed": 2**63}, "seed", "less than 9223372036854775808"),
    "no number": (
        optimization(optimizer={"kind": "adam", "lr": float("nan")}),
        "optimization.optimizer.adam.lr",
        "Input should be a finite number, not nan",
    ),
}


@pytest.mark.parametrize(("values", "field", "message"), RULES.values(), ids=RULES.keys())
def test_a_broken_rule_blames_one_field(values: dict[str, Any], field: str, message: str) -> None:
    found = problems(**values)

    assert list(found) == [field]
    assert message in found[field]


def test_all_rules_speak_at_once():
    found = problems(
        **optimization(epochs=3, warmup={"epochs": 4.5}, schedule={"kind": "step", "step_size": 9}),
        compute={"device": "cpu", "gpus": 2, "precision": "float16"},
    )

    assert list(found) == [
        "optimization.schedule.step.step_size",
        "optimization.warmup.epochs",
        "compute.gpus",
        "compute.precision",
    ]
    assert "a warm-up of 4.5 epochs" in found["optimization.warmup.epochs"]


@pytest.mark.parametrize(
    "values",
    [
        dropout(rate=0.0),
        dropout(keep_prob=1),
        optimization(epochs=5, schedule={"kind": "step", "step_size": 4}),
        optimization(epochs=5, schedule={"kind": "cosine", "epochs": 5}),
        optimization(epochs=1, warmup={"epochs": 0.5}),
        optimization(optimizer={"kind": "sgd", "nesterov": True, "momentum": 0.9}),
        sequential({"kind": "pool", "kernel_size": 2, "padding": 1}),
        {"compute": {"device": "cpu", "gpus": 0}},
        {"compute": {"device": "cuda", "precision": "float16"}},
        {"initialization": {"scheme": "lecun", "std": 0.02}},
        {"initialization": {"scheme": "lecun", "distribution": "uniform"}},
        {"initialization": {"scheme": "orthogonal", "distribution": "normal"}},
        sequential({"kind": "pool", "mode": "global_average", "kernel_size": 2, "stride": None}),
        dropout(rate=None, keep_prob=0.5),
        dropout(keep_prob=1e-12),
        {"architecture": {"kind": "mlp", "hidden": []}},
    ],
)
def test_what_is_just_within_the_rules(values: dict[str, Any]) -> None:
    dn.TrainingSpec.parse(MINIMAL | values)


def test_eight_nested_blocks_are_within_the_rules():
    layer: dict[str, Any] = {"kind": "flatten"}
    for _ in range(8):
        layer = {"kind": "residual", "layers": [layer]}

    dn.TrainingSpec.parse(MINIMAL | sequential(layer))


@given(submission=strategies.submissions())
def test_a_resolved_submission_is_valid_again(submission):
    assert dn.Submission.model_validate(submission.model_dump()) == submission
    assert dn.Submission.model_validate_json(submission.model_dump_json()) == submission


class TestKeepProb:
    @pytest.mark.parametrize(
        ("keep_prob", "rate"), [(0.8, 0.2), (1, 0.0), (0.9, 0.1), (1e-3, 0.999)]
    )
    def test_it_is_the_complement_of_the_rate(self, keep_prob, rate):
        assert dn.Dropout(keep_prob=keep_prob) == dn.Dropout(rate=rate)

    def test_it_is_not_in_the_resolved_spec(self):
        assert dn.Dropout(keep_prob=0.8).keep_prob is None

    def test_a_layer_takes_it_too(self):
        assert dn.layers.Dropout(keep_prob=0.7).rate == 0.3

    @pytest.mark.parametrize("keep_prob", [True, "0.5", 1.5, float("nan")])
    def test_what_is_no_share_is_refused(self, keep_prob):
        assert list(problems(**dropout(keep_prob=keep_prob))) == [
            "regularization.dropout.keep_prob"
        ]


class TestSubmission:
    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"display_name": ""}, "display_name"),
            ({"display_name": "x" * 201}, "display_name"),
            ({"display_name": "two\nlines"}, "display_name"),
            ({"experiment": "\x1b[31m"}, "experiment"),
            ({"experiment": "a\u2028b"}, "experiment"),
            ({"display_name": "a\u202eb"}, "display_name"),
            ({"display_name": "a\u2066b"}, "display_name"),
            ({"labels": {"team": "a\u202ab"}}, "labels.team"),
            ({"labels": {"Upper": "x"}}, "labels"),
            ({"labels": {"a" * 64: "x"}}, "labels"),
            ({"labels": {"team": "x" * 64}}, "labels.team"),
            ({"labels": {f"k{number}": "" for number in range(65)}}, "labels"),
            ({"priority": 1001}, "priority"),
            ({"priority": -1001}, "priority"),
        ],
    )
    def test_what_is_beyond_its_limits(self, values, field):
        with pytest.raises(ValidationError) as caught:
            dn.Submission(spec=dn.TrainingSpec.parse(MINIMAL), **values)

        assert [problem.field for problem in problems_of(caught.value)] == [field]

    def test_what_is_at_its_limits(self):
        dn.Submission(
            spec=dn.TrainingSpec.parse(MINIMAL),
            display_name="ü" * 200,
            experiment="学习率",
            labels={f"k{number}": "x" * 63 for number in range(64)},
            priority=-1000,
        )


def test_a_data_set_is_named_by_its_resource_name_too():
    assert dn.Data(dataset="datasets/mine") == dn.Data(dataset="mine")
    with pytest.raises(ValidationError, match="should match pattern"):
        dn.Data(dataset="datasets/datasets/mine")
