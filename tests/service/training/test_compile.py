"""torch.compile on the CPU: the same training within rounding, and nothing of it left in the model."""

import shutil
from pathlib import Path

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import listed, mlp
from tests.service.training.stopping import Asked, Place, run
from tests.service.training.test_fit import numbers

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import Checkpoints, FitResult, Interrupted, fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the compiler takes its time
    # torch's compiler imports a part of torch that torch deprecates.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.skipif(
        shutil.which("g++") is None,
        reason="torch.compile needs a C++ compiler, and there is no g++",
    ),
]

# Without dropout, whose masks a compiled model draws in another order, and without a bias that batch norm
# takes away again: its gradient is rounding alone, which Adam makes a step of full size.
NETWORK = (
    layers.Conv(channels=4, bias=False),
    layers.Activation(),
    layers.Pool(),
    layers.Flatten(),
)
NORMED = dn.Regularization(batch_norm=dn.BatchNorm())


GHOSTS = dn.Regularization(
    batch_norm=dn.BatchNorm(ghost_batch_size=12, averaging="cumulative", freeze_after=2)
)


def trained(regularization: dn.Regularization, *, compile: bool) -> FitResult:
    spec = listed(
        *NETWORK,
        optimization=dn.Optimization(epochs=3, batch_size=32),
        regularization=regularization,
        compute=dn.Compute(device="cpu", compile=compile),
    )
    return fit(spec, split_of(spec, classification(2, 8, 8)))


@pytest.mark.parametrize("regularization", [NORMED, GHOSTS], ids=["plain", "frozen ghosts"])
def test_the_same_training_within_rounding(regularization: dn.Regularization) -> None:
    plain, compiled = (trained(regularization, compile=compile) for compile in (False, True))

    for expected, actual in zip(plain.evaluation.history, compiled.evaluation.history, strict=True):
        assert actual.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert actual.validation_loss == pytest.approx(expected.validation_loss, rel=1e-3)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    for name, weight in compiled.model.state_dict().items():
        torch.testing.assert_close(weight, plain.model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_a_repeat_and_a_resumption_have_the_same_numbers(tmp_path: Path):
    torch.compiler.reset()
    spec = mlp(
        16,
        optimization=dn.Optimization(epochs=3, batch_size=32),  # the last batch is not full
        regularization=dn.Regularization(
            dropout=dn.Dropout(rate=0.2, schedule=dn.LinearDropoutSchedule()),
            batch_norm=dn.BatchNorm(),
        ),
        compute=dn.Compute(device="cpu", compile=True),
    )
    data = split_of(spec, classification(20, samples=220))
    first, second = (fit(spec, data) for _ in range(2))
    assert numbers(second) == numbers(first)

    torch.compiler.reset()  # as a process that has compiled nothing yet
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(Interrupted):
        run(spec, data, Asked(Place("training", 0, 5)), checkpoint=checkpoints)
    assert numbers(fit(spec, data, checkpoint=checkpoints)) == numbers(first)
