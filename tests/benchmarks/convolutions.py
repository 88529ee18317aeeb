"""Image families in the service against a plain loop over the very same module, run one after the other in turn.

As `python -m tests.benchmarks.convolutions FAMILY FOLDER` it runs the loop and prints samples per second of each epoch.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.experiments import FAMILIES
from tests.benchmarks.peers import load
from tests.benchmarks.rows import Row, ratio
from tests.benchmarks.services import rounds, running, wait_until_idle
from tests.mnist import MNIST

import dropnorm as dn
from dropnorm.embedded import LocalService

_SAMPLES = 2048
_EPOCHS = 3
_BATCH = 64
_TARGET = 0.95
_COMPARED = ("VGG-11", "ResNet-20", "DenseNet")


def measure(quick: bool) -> Iterator[Row]:
    """A ratio per family: the service's rate over that of a plain loop, one thread each."""
    for name in _COMPARED:
        title = f"{name} training in the service to a plain loop over the same module"
        if not MNIST.is_dir():
            reason = f"MNIST is not in {MNIST}; name its folder by DROPNORM_TEST_MNIST"
            yield Row(title, "", f">= {_TARGET} x", None, reason)
            continue
        with running(datasets_dir=MNIST.parent, threads_per_slot=1) as service:
            pairs = []
            for _ in rounds(5, quick):
                wait_until_idle(service)
                ours = _service_rate(service, name)
                wait_until_idle(service)
                pairs.append((ours, _loop_rate(name)))
        ratios = [ours / theirs for ours, theirs in pairs]
        yield Row(
            title,
            ratio(ratios),
            f">= {_TARGET} x",
            statistics.median(ratios) >= _TARGET,
            f"narrow form, batch norm, batches of {_BATCH}, Adam, 1 thread; training steps only; samples/s: ours "
            f"{statistics.median([ours for ours, _ in pairs]):,.0f}",
        )


def spec_of(name: str) -> dn.TrainingSpec:
    """What both sides train."""
    return dn.TrainingSpec(
        architecture=FAMILIES[name],
        regularization=dn.Regularization(batch_norm=dn.BatchNorm()),
        optimization=dn.Optimization(epochs=_EPOCHS, batch_size=_BATCH),
        data=dn.Data(dataset="mnist", train_samples=_SAMPLES, validation_share=0.01),
        evaluation=dn.EvaluationSettings(train_metrics=False),
        compute=dn.Compute(device="cpu"),
    )


def _service_rate(service: LocalService, name: str) -> float:
    history = service.train(spec_of(name)).result().history
    return statistics.median([epoch.samples_per_second for epoch in history[1:]])


def _loop_rate(name: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.convolutions", name, str(MNIST)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    rates: list[float] = json.loads(output)
    return statistics.median(rates[1:])


def _loop(name: str, folder: Path) -> list[float]:
    import torch

    from dropnorm_service.training import build_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = (each[:_SAMPLES] for each in load(folder))
    x = x.view(-1, 1, 28, 28)
    model = build_model(spec_of(name), (1, 28, 28), 10).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    rates = []
    for _ in range(_EPOCHS):
        start = time.perf_counter()
        for index in torch.randperm(_SAMPLES).split(_BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
        rates.append(_SAMPLES / (time.perf_counter() - start))
    return rates


if __name__ == "__main__":
    print(json.dumps(_loop(sys.argv[1], Path(sys.argv[2]))))
