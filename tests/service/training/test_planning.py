"""Plans: layer tables, steps, memory, and every reason to refuse."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.service.training.shorthand import listed, mlp, problems, summary
from tests.strategies import specs
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm.results import DatasetSummary, Plan
from dropnorm.spec import layers
from dropnorm_service.training import build_model, check, plan
from dropnorm_service.training.families import FAMILIES
from dropnorm_service.training.kept import kept_for_backward
from dropnorm_service.training.planning import size

DEMO = mlp(
    128,
    64,
    regularization=dn.Regularization(dropout=dn.Dropout(rate=0.5), batch_norm=dn.BatchNorm()),
    optimization=dn.Optimization(epochs=3, batch_size=128),
)
CONVOLUTIONAL = listed(
    layers.Conv(channels=8),
    layers.BatchNorm(),
    layers.Activation(),
    layers.Pool(),
    layers.Residual(layers=(layers.Conv(channels=16, stride=2), layers.Activation())),
    layers.Dropout(rate=0.2),
    layers.Pool(mode="global_average"),
)


def refused(
    spec: dn.TrainingSpec, dataset: DatasetSummary, limit: int | None = None
) -> dict[str, str]:
    with pytest.raises(dn.InvalidSpecError) as raised:
        plan(spec, dataset, memory_limit_bytes=limit)
    return problems(raised.value)


def planned(spec: dn.TrainingSpec, dataset: DatasetSummary) -> Plan | dn.InvalidSpecError:
    try:
        return plan(spec, dataset, memory_limit_bytes=2**40)
    except dn.InvalidSpecError as error:
        return error


def test_layer_table_of_the_demo_net() -> None:
    rows = [
        (row.name, row.type, row.output_shape, row.parameters, row.flops)
        for row in plan(DEMO, summary(1, 8, 8)).layers
    ]
    assert rows == [
        ("input.flatten", "Flatten", (64,), 0, 0),
        ("hidden.0.linear", "Linear(64 -> 128)", (128,), 64 * 128 + 128, 2 * 64 * 128),
        ("hidden.0.norm", "BatchNorm1d(128)", (128,), 2 * 128, 0),
        ("hidden.0.activation", "relu", (128,), 0, 0),
        ("hidden.0.dropout", "Dropout(0.5, inverted)", (128,), 0, 0),
        ("hidden.1.linear", "Linear(128 -> 64)", (64,), 128 * 64 + 64, 2 * 128 * 64),
        ("hidden.1.norm", "BatchNorm1d(64)", (64,), 2 * 64, 0),
        ("hidden.1.activation", "relu", (64,), 0, 0),
        ("hidden.1.dropout", "Dropout(0.5, inverted)", (64,), 0, 0),
        ("output.linear", "Linear(64 -> 10)", (10,), 64 * 10 + 10, 2 * 64 * 10),
    ]


@pytest.mark.parametrize("spec", [DEMO, CONVOLUTIONAL])
def test_totals_are_those_of_the_model(spec: dn.TrainingSpec) -> None:
    dataset = summary(1, 8, 8)
    found = plan(spec, dataset)
    model = build_model(spec, dataset.input_shape, dataset.outputs).eval()
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.parameters == sum(row.parameters for row in found.layers)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 1, 8, 8))
    assert found.forward_flops == counter.get_total_flops()
    assert found.forward_flops == sum(row.flops for row in found.layers)


def test_residual_blocks_in_order_of_execution() -> None:
    names = [row.name for row in plan(CONVOLUTIONAL, summary(1, 8, 8)).layers]
    block = "layers.4.residual"
    start = names.index(f"{block}.layers.0.conv")
    assert names[start : start + 4] == [
        f"{block}.layers.0.conv",
        f"{block}.layers.1.activation",
        f"{block}.shortcut",
        block,
    ]


@pytest.mark.parametrize(
    ("train", "last_batch", "steps", "last"),
    [(1000, "keep", 8, 104), (1000, "drop", 7, 128), (1024, "keep", 8, 128), (50, "drop", 1, 50)],
)
def test_steps(train: int, last_batch: str, steps: int, last: int) -> None:
    optimization = DEMO.optimization.model_copy(update={"last_batch": last_batch})
    spec = DEMO.model_copy(update={"optimization": optimization})
    found = plan(spec, summary(1, 8, 8, train=train))
    assert (found.steps_per_epoch, found.last_batch_size) == (steps, last)
    assert found.total_steps == 3 * steps


def test_a_plan_carries_spec_data_and_digest_through_json() -> None:
    found = plan(DEMO, summary(1, 8, 8))
    assert found.spec_digest == DEMO.digest()
    assert Plan.model_validate_json(found.model_dump_json()) == found


def test_memory_of_weights_state_and_data_is_exact() -> None:
    found = plan(DEMO, summary(1, 8, 8, train=800)).memory
    weights = 4 * plan(DEMO, summary(1, 8, 8)).parameters
    statistics = 2 * 4 * (128 + 64) + 2 * 8
    assert found.parameters == 2 * (weights + statistics)  # those in training, and the best epoch's
    assert found.gradients == weights
    assert found.optimizer == 2 * weights
    assert found.data == (800 + 100 + 100) * (64 * 4 + 8)
    parts = (found.parameters, found.gradients, found.optimizer, found.activations, found.data)
    assert found.total == sum(parts)


def test_memory_follows_optimizer_precision_and_targets() -> None:
    def memory(optimizer: dn.Optimizer, precision: str = "float32") -> dict[str, int]:
        spec = mlp(
            64,
            optimization=dn.Optimization(optimizer=optimizer),
            compute=dn.Compute.model_validate({"precision": precision}),
        )
        dataset = summary(8, outputs=3, task="regression", train=100)
        return plan(spec, dataset).memory.model_dump()

    plain = memory(dn.SGD())
    assert plain["optimizer"] == 0
    assert memory(dn.SGD(momentum=0.9))["optimizer"] == plain["gradients"]
    assert memory(dn.RMSprop(momentum=0.9))["optimizer"] == 2 * plain["gradients"]
    assert memory(dn.SGD(), "bfloat16")["activations"] < plain["activations"]
    assert plain["data"] == 300 * (8 * 4 + 3 * 4)


@pytest.mark.parametrize("spec", [DEMO, CONVOLUTIONAL, mlp(64, activation="gelu")])
def test_activations_are_what_autograd_keeps(spec: dn.TrainingSpec) -> None:
    """The same network for real on the CPU, where every tensor has an address."""
    model = build_model(spec, (1, 8, 8), 10)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(128, 1, 8, 8))
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert plan(spec, summary(1, 8, 8)).memory.activations == pytest.approx(real, rel=0.02)


def test_activations_grow_with_the_batch() -> None:
    with torch.device("meta"):
        model = build_model(mlp(64), (16,), 4)
    one, ten = (
        kept_for_backward(model, torch.zeros(batch, 16, device="meta")) for batch in (100, 1000)
    )
    assert ten == 10 * one


@pytest.mark.parametrize(
    ("spec", "train", "limit", "field", "text"),
    [
        (mlp(2**14, 2**14), 1000, 2**30, "architecture", "for weights, gradients and optimizer"),
        (
            mlp(*[2**12] * 4, optimization=dn.Optimization(batch_size=2**16)),
            2**17,
            2**30,
            "optimization.batch_size",
            "for activations",
        ),
        (mlp(8), 10**8, 2**30, "data.train_samples", "for the data set"),
    ],
)
def test_too_large_for_the_memory(
    spec: dn.TrainingSpec, train: int, limit: int, field: str, text: str
) -> None:
    dataset = summary(64, train=train)
    message = refused(spec, dataset, limit)[field]
    assert text in message
    assert "there are 1 GiB" in message
    assert plan(spec, dataset).memory.total > limit


@pytest.mark.parametrize("spec", [DEMO, listed(layers.Linear(units=4), layers.BatchNorm())])
@pytest.mark.parametrize(
    ("train", "optimization", "texts"),
    [
        (
            257,
            {"batch_size": 128},
            ("257 training samples in batches of 128", "last_batch to drop"),
        ),
        (257, {"batch_size": 1}, ("every batch is one", "a batch_size of at least 2")),
        (1, {}, ("the training split has a single sample", "use more data")),
    ],
)
def test_batch_norm_never_sees_a_single_value(
    spec: dn.TrainingSpec, train: int, optimization: dict[str, Any], texts: tuple[str, ...]
) -> None:
    changed = spec.model_copy(update={"optimization": dn.Optimization(**optimization)})
    message = refused(changed, summary(64, train=train))["optimization.batch_size"]
    assert all(text in message for text in texts)
    # It is so: torch refuses that batch.
    model = build_model(changed, (64,), 10)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.randn(1, 64))


def test_batch_norm_of_images_may_see_a_single_sample() -> None:
    spec = listed(
        layers.Conv(channels=2),
        layers.BatchNorm(),
        layers.Activation(),
        optimization=dn.Optimization(batch_size=128),
    )
    assert plan(spec, summary(1, 8, 8, train=257)).last_batch_size == 1
    pooled = listed(layers.Pool(mode="global_average"), layers.BatchNorm())
    assert "optimization.batch_size" in refused(pooled, summary(1, 8, 8, train=257))
    assert not build_model(spec, (1, 8, 8), 3)(torch.randn(1, 1, 8, 8)).isnan().any()


def test_dropping_the_last_batch_is_a_way_out() -> None:
    optimization = dn.Optimization(batch_size=128, last_batch="drop")
    spec = DEMO.model_copy(update={"optimization": optimization})
    assert plan(spec, summary(64, train=257)).last_batch_size == 128


def test_accuracy_selects_only_in_classification() -> None:
    spec = mlp(8, evaluation=dn.EvaluationSettings(selection="validation_accuracy"))
    assert plan(spec, summary(8)).parameters > 0
    dataset = summary(8, outputs=1, task="regression")
    assert "select by validation_loss" in refused(spec, dataset)["evaluation.selection"]


def test_a_network_without_weights_is_refused() -> None:
    spec = listed(layers.Flatten(), output_layer=False)
    with pytest.raises(dn.InvalidSpecError) as refused:
        plan(spec, summary(3, outputs=3))
    assert "no weights to learn" in problems(refused.value)["architecture"]


def test_every_problem_is_named_at_once() -> None:
    spec = listed(
        layers.Conv(channels=2),
        evaluation=dn.EvaluationSettings(selection="validation_accuracy"),
    )
    found = refused(spec, summary(8, outputs=1, task="regression"))
    assert set(found) == {"evaluation.selection", "architecture.sequential.layers[0].conv"}


def test_check_returns_the_network_on_paper() -> None:
    paper = check(DEMO, summary(64))
    assert [layer.element.name for layer in paper.layers][:2] == [
        "hidden.0.linear",
        "hidden.0.norm",
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    specs(),
    st.sampled_from([(64,), (1, 8, 8), (3, 32, 32)]),
    st.integers(1, 10**6),
)
def test_any_spec_has_a_plan_or_names_what_is_wrong(
    spec: dn.TrainingSpec, shape: tuple[int, ...], train: int
) -> None:
    found = planned(spec, summary(*shape, train=train))
    if isinstance(found, dn.InvalidSpecError):
        assert all(field and message for field, message in found.problems)
        return
    if spec.architecture.kind in FAMILIES:  # the others do not end with the data's outputs
        assert found.layers[-1].output_shape == (10,)
    assert found.memory.total <= 2**40
    assert found.forward_flops < 2**63


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2 GiB")]
)
def test_size_in_words(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("split", ["train", "validation_samples", "test_samples"])
def test_batch_norm_without_statistics_never_evaluates_a_single_value(split: str) -> None:
    """Found before the training, not when the test split is looked at in the end."""
    norm = dn.BatchNorm(track_running_stats=False)
    spec = mlp(8, regularization=dn.Regularization(batch_norm=norm))
    found = refused(spec, summary(64, **{"train": 1000, split: 2048 + 1}))
    field = "regularization.batch_norm.track_running_stats"
    assert "2049 samples, evaluated 2048 at a time" in found[field]
    tracking = mlp(8, regularization=dn.Regularization(batch_norm=dn.BatchNorm()))
    assert plan(tracking, summary(64, test_samples=1)).dataset.test_samples == 1
    model = build_model(spec, (64,), 10).eval()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.randn(1, 64))
