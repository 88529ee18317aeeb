"""Which layer went wrong first, in networks in which a layer of the test's choice does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training import test_families, test_generative, test_token_families
from tests.service.training.made import classification, regression, split_of
from tests.service.training.shorthand import mlp
from tests.service.training.stopping import Asked, Place, run
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm.results import CheckpointWritten, Payload, Phase
from dropnorm_service.training import Checkpoints, Diverged, Interrupted, Order, SplitData, fit
from dropnorm_service.training.checks import check
from dropnorm_service.training.model import model_of
from dropnorm_service.training.network import Network
from dropnorm_service.training.schedules import learning_rates

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm())
STEP = 4


def of_mlp(**parts: Any) -> tuple[dn.TrainingSpec, SplitData]:
    asked = dn.Optimization(epochs=3, batch_size=48)
    whole: dict[str, Any] = {"optimization": asked, "regularization": BOTH, **parts}
    spec = mlp(16, 8, **whole)
    return spec, split_of(spec, classification(6))


def of_family(name: str) -> tuple[dn.TrainingSpec, SplitData]:
    asked = dn.Optimization(epochs=3, batch_size=16)
    spec = test_families.spec(test_families.SMALL[name], optimization=asked)
    return spec, split_of(spec, classification(3, 32, 32, samples=60))


def of_tokens(name: str) -> tuple[dn.TrainingSpec, SplitData]:
    spec = test_token_families.asked(name)
    return spec, test_token_families.data_of(name, spec)


def of_gan() -> tuple[dn.TrainingSpec, SplitData]:
    spec = test_generative.asked(test_generative.SMALL["gan"], epochs=3)
    return spec, test_generative.data_of(spec)


class Poison(torch.autograd.Function):
    """Passes values on; its gradient is no number."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def poison(monkeypatch: pytest.MonkeyPatch, layer: str, what: str, step: int = STEP) -> None:
    """From a step on the layer's output, or the gradient that it passes on, is no number."""

    def poisoned(*arguments: object) -> Network:
        network = model_of(*arguments)  # type: ignore[arg-type]
        batches = iter(range(1, 10**6))
        now = 0

        def begin(module: nn.Module, inputs: object) -> None:
            nonlocal now
            if module.training:
                now = next(batches)

        def harm_output(module: nn.Module, inputs: object, output: Any) -> Any:
            if not module.training or now < step:
                return None
            if isinstance(output, tuple):  # of a recurrent layer, whose state comes along
                return (output[0] * math.nan, *output[1:])
            return output * math.nan

        def harm_gradient(
            module: nn.Module, inputs: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...] | None:
            if now < step:
                return None
            first, *rest = inputs
            return (Poison.apply(first), *rest)  # type: ignore[no-untyped-call]

        network.register_forward_pre_hook(begin)
        module = network.get_submodule(layer)
        if what == "output":
            module.register_forward_hook(harm_output)
        else:
            module.register_forward_pre_hook(harm_gradient)
        return network

    monkeypatch.setattr("dropnorm_service.training.state.model_of", poisoned)


def diverged(spec: dn.TrainingSpec, data: SplitData, **options: object) -> Diverged:
    with pytest.raises(Diverged) as raised:
        fit(spec, data, **options)  # type: ignore[arg-type]
    return raised.value


def origin(error: Diverged) -> tuple[str, str, int]:
    facts = error.metadata
    return facts["layer"], facts["layer_value"], int(facts["layer_step"])


def names(spec: dn.TrainingSpec, data: SplitData) -> list[str]:
    return [layer.element.name for layer in check(spec, data.summary).walk()]


def test_the_layer_and_the_step_are_found(monkeypatch: pytest.MonkeyPatch):
    spec, data = of_mlp()
    for name in names(spec, data)[1::3]:
        with monkeypatch.context() as patch:
            poison(patch, name, "output")
            error = diverged(spec, data)
        assert origin(error) == (name, "output", STEP), name
        assert error.metadata["step"] == str(STEP)
        assert f"It began in the output of {name} at step {STEP}." in error.message


@pytest.mark.parametrize(
    "case",
    [
        lambda: of_family("resnet"),
        lambda: of_tokens("transformer"),
        lambda: of_tokens("seq2seq"),
        of_gan,
    ],
    ids=["resnet", "transformer", "seq2seq", "gan"],
)
def test_a_layer_deep_in_any_kind_of_network_is_found(case, monkeypatch: pytest.MonkeyPatch):
    spec, data = case()
    layers = names(spec, data)
    name = layers[len(layers) // 2]
    poison(monkeypatch, name, "output")
    assert origin(diverged(spec, data)) == (name, "output", STEP)


@pytest.mark.parametrize("layer", ["hidden.0.activation", "hidden.1.linear", "output.linear"])
def test_a_gradient_that_went_wrong_before_the_loss_did(
    layer: str, monkeypatch: pytest.MonkeyPatch
):
    spec, data = of_mlp()
    poison(monkeypatch, layer, "gradient")
    error = diverged(spec, data)
    assert int(error.metadata["step"]) == STEP + 1, "the loss shows it a step later"
    assert origin(error) == (layer, "gradient", STEP)


def test_a_training_that_diverges_by_itself():
    steep = dn.SGD(lr=1000.0, momentum=0.99)
    asked = dn.Optimization(epochs=5, batch_size=48, optimizer=steep)
    spec = mlp(32, activation="elu", optimization=asked)
    data = split_of(spec, regression(5))
    # Its outputs are large, but numbers; their squares are not.
    error = diverged(spec, data)
    assert origin(error) == ("output.linear", "output", error.step)


def test_a_validation_that_went_wrong(monkeypatch: pytest.MonkeyPatch):
    spec, data = of_mlp(regularization=dn.Regularization())
    steps = math.ceil(len(data.train) / 48)
    poison(monkeypatch, "hidden.1.linear", "gradient", step=steps)
    error = diverged(spec, data)
    assert (error.metric, error.step) == ("validation_loss", steps)
    assert origin(error) == ("hidden.1.linear", "gradient", steps)


def test_it_is_found_from_the_last_checkpoint_and_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec, data = of_mlp(optimization=dn.Optimization(epochs=50, batch_size=48))
    events: list[Payload] = []
    checkpoints = Checkpoints(tmp_path, interval_seconds=0.0)
    poison(monkeypatch, "hidden.1.linear", "output", step=60)
    error = diverged(spec, data, on_event=events.append, checkpoint=checkpoints)
    assert int(error.metadata["step"]) == 60
    written = [each.step for each in events if isinstance(each, CheckpointWritten)]
    assert all(step < 60 for step in written), "nobody could go on from such a one"


@pytest.mark.parametrize("older", [True, False], ids=["an older one", "the start"])
@pytest.mark.parametrize("phase", ["training", "validating"])
def test_a_checkpoint_of_ruined_weights_hides_no_layer(
    phase: Phase, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The weights are ruined by the last step before the checkpoint, whose own loss is still finite."""
    ruined = 6 if phase == "validating" else 5

    def ruining(*arguments: Any, **options: Any) -> list[float]:
        rates = learning_rates(*arguments, **options)
        epoch = arguments[2]
        return [
            math.inf if 3 * (epoch - 1) + n == ruined else each for n, each in enumerate(rates, 1)
        ]

    monkeypatch.setattr("dropnorm_service.training.loop.learning_rates", ruining)
    spec, data = of_mlp()
    assert math.ceil(len(data.train) / 48) == 3
    last = Place(phase, 1, ruined if phase == "training" else 1)
    for place in [Place("training", 0, 2), last] if older else [last]:
        with pytest.raises(Interrupted):
            run(spec, data, Asked(place), checkpoint=Checkpoints(tmp_path))
    asked = Asked()
    with asked.listening():
        error = diverged(spec, data, orders=asked, checkpoint=Checkpoints(tmp_path))
    assert origin(error) == ("hidden.0.linear", "weights", ruined)
    assert Place("training", 0, 3) in asked.places
    assert (Place("training", 0, 1) in asked.places) is not older


def test_whoever_stops_it_meanwhile_hears_of_the_divergence_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    spec, data = of_mlp()
    poison(monkeypatch, "hidden.0.linear", "output")
    questions = 0

    def orders(last: float = math.inf) -> Order:
        nonlocal questions
        questions += 1
        return Order.GO_ON if questions < last else Order.PAUSE

    assert "layer" in diverged(spec, data, orders=orders).metadata
    whole, questions = questions, 0  # of the training, and of the one that looks for the layer
    error = diverged(spec, data, orders=lambda: orders(whole - 2))
    assert "layer" not in error.metadata


def test_the_search_for_the_layer_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    spec, data = of_mlp()
    poison(monkeypatch, "hidden.0.linear", "output")
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    assert "layer" in diverged(spec, data, on_uncounted_step=count).metadata
    assert steps >= STEP
