"""Every field of a spec is a parameter, under a name that can be searched for."""

from hypothesis import given, settings
from tests.service.tracking.story import a_spec
from tests.strategies import specs

from dropnorm.spec import Data, Sequential, TrainingSpec, layers
from dropnorm_service.tracking.mirror.parameters import parameters


def test_each_field_has_a_dotted_name_and_a_value_as_in_yaml():
    found = parameters(a_spec(dropout=0.2, batch_norm=True))
    assert (
        found.items()
        >= {
            "architecture.kind": "mlp",
            "architecture.hidden": "[128, 64]",
            "architecture.bias": "true",
            "regularization.dropout.rate": "0.2",
            "regularization.dropout.rescaling": "inverted",
            "regularization.batch_norm.momentum": "0.1",
            "regularization.batch_norm.eps": "1e-05",
            "optimization.optimizer.kind": "adam",
            "optimization.optimizer.lr": "0.001",
            "optimization.schedule.kind": "constant",
            "data.dataset": "digits",
            "compute.precision": "float32",
            "seed": "7",
        }.items()
    )


def test_an_absent_part_is_none_and_an_absent_value_is_default():
    found = parameters(a_spec())
    assert found["regularization.dropout"] == "none"
    assert found["regularization.batch_norm"] == "none"
    assert found["optimization.early_stopping"] == "none"
    assert found["data.test_share"] == "default"
    assert found["compute.gpus"] == "default"
    assert "regularization.dropout.rate" not in found


def test_layers_are_numbered_and_nest():
    spec = TrainingSpec(
        architecture=Sequential(
            layers=(
                layers.Conv(channels=8),
                layers.Residual(layers=(layers.Conv(channels=8, kernel_size=1),)),
            )
        ),
        data=Data(dataset="mnist"),
    )
    found = parameters(spec)
    assert found["architecture.layers.0.kind"] == "conv"
    assert found["architecture.layers.0.padding"] == "default"
    assert found["architecture.layers.1.kind"] == "residual"
    assert found["architecture.layers.1.layers.0.kernel_size"] == "1"


def test_a_long_list_is_cut_to_what_mlflow_takes():
    spec = a_spec().model_copy(
        update={
            "architecture": a_spec().architecture.model_copy(update={"hidden": (1048576,) * 512})
        }
    )
    assert parameters(spec)["architecture.hidden"].startswith("[1048576, ")
    wide = tuple(range(10_000))
    spec = spec.model_copy(
        update={"architecture": spec.architecture.model_copy(update={"hidden": wide})}
    )
    assert len(parameters(spec)["architecture.hidden"]) == 6000


@settings(max_examples=30)
@given(specs())
def test_any_spec_has_parameters_that_mlflow_takes(spec: TrainingSpec):
    for name, value in parameters(spec).items():
        assert len(name) <= 250
        assert len(value) <= 6000
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz_0123456789.")
