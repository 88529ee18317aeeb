"""Experiments run in the service: what is shared by those of the papers.

Variants of one experiment share splits and seeds, so that they differ in what is compared and in nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from statistics import mean, stdev
from typing import Any

from tests.benchmarks.rows import Row
from tests.benchmarks.services import running
from tests.mnist import MNIST

import dropnorm as dn
from dropnorm.embedded import LocalService
from dropnorm.results import Evaluation

Specs = Mapping[str, list[dn.TrainingSpec]]
"""Name of a variant -> a spec for each seed."""
Results = Mapping[str, list[Evaluation]]
"""Name of a variant -> the evaluation of each seed."""


def rows(
    specs: Specs, compare: Callable[[Results, int], Row], name: str, target: str
) -> Iterator[Row]:
    """Run every spec, as many at once as there are cores, and compare what came back.

    Args:
        specs: what to run.
        compare: makes a row, without its name and target, of results and the number of seeds.
        name: of the row.
        target: of the row.
    """
    datasets = {spec.data.dataset for group in specs.values() for spec in group}
    if "mnist" in datasets and not MNIST.is_dir():
        reason = f"MNIST is not in {MNIST}; name its folder by DROPNORM_TEST_MNIST"
        yield Row(name, "", target, None, reason)
        return
    with running(
        datasets_dir=MNIST.parent, cpu_slots=os.cpu_count() or 1, threads_per_slot=1
    ) as service:
        results = _trained(service, specs)
    row = compare(results, max(map(len, specs.values())))
    yield Row(name, row.measured, target, row.reached, row.note)


def _trained(service: LocalService, specs: Specs) -> Results:
    jobs = {name: [service.train(spec) for spec in group] for name, group in specs.items()}
    return {name: [job.result() for job in group] for name, group in jobs.items()}


def asked(
    architecture: dn.Architecture,
    regularization: dn.Regularization,
    optimization: dn.Optimization,
    *,
    dataset: str = "mnist",
    seed: int = 0,
    **data: Any,
) -> dn.TrainingSpec:
    """A training on one CPU, over splits that all seeds share."""
    return dn.TrainingSpec(
        architecture=architecture,
        regularization=regularization,
        optimization=optimization,
        data=dn.Data(dataset=dataset, split_seed=0, **data),
        evaluation=dn.EvaluationSettings(train_metrics=False),
        compute=dn.Compute(device="cpu"),
        seed=seed,
    )


def measured(value: float | None) -> float:
    """A metric that the task has."""
    assert value is not None
    return value


def percent(values: list[float]) -> str:
    """Mean and standard deviation of some shares."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread} %"
