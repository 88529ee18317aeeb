"""Server, workers, mirror and fork server killed at once, at each instant of a job's life: accepted means durable."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.chaos.promises import Findings
from tests.chaos.runs import Runs
from tests.e2e.conftest import SMALL
from tests.e2e.servers import (
    MIRROR_PATIENCE,
    Server,
    check_journal,
    ended,
    eventually,
    first,
    spec,
)

import dropnorm as dn
from dropnorm.results import State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

EPOCHS = 60
SEED = 4


def accepted(job: dn.JobHandle) -> None:
    """Nothing more than that."""


def running(job: dn.JobHandle) -> None:
    first(job, dn.StateChanged, lambda change: change.state is State.RUNNING)


def checkpointing(job: dn.JobHandle) -> None:
    first(job, dn.CheckpointWritten)


def evaluating(job: dn.JobHandle) -> None:
    first(job, dn.Evaluated)


def mirrored(job: dn.JobHandle) -> None:
    """Its run is made, and the rest is being written."""
    eventually(lambda: job.refresh().mlflow_run_id, "its run")


INSTANTS: tuple[Callable[[dn.JobHandle], None], ...] = (
    accepted,
    running,
    checkpointing,
    evaluating,
    mirrored,
)


def kill_everything(server: Server) -> None:
    """Every process of a service, so that none can tidy up after another."""
    whole = psutil.Process(server.process.pid)
    below = whole.children(recursive=True)
    for process in (*below, whole):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)  # none of them shall see another one die
    for process in (whole, *below):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    server.wait()
    eventually(lambda: ended(process.pid for process in below), "the end of all")


def test_nothing_is_lost_or_doubled_whenever_everything_is_killed(tmp_path: Path):
    chance = random.Random(SEED)  # noqa: S311 - instants, no secrets
    server = Server(tmp_path / "data", *SMALL, "--checkpoint-interval", "0.05").start()
    try:
        jobs = []
        for instant in INSTANTS:
            with server.client() as client:
                job = client.train(spec(epochs=EPOCHS), job_id=instant.__name__)
                jobs.append(job.name)
                instant(job)
                time.sleep(chance.uniform(0.0, 0.1))
            kill_everything(server)
            server.start()
        with server.client() as client:
            check(server, [client.job(name) for name in jobs])
    finally:
        server.end()


def check(server: Server, jobs: list[dn.JobHandle]) -> None:
    """Each job has succeeded once, with its journal, history and MLflow run whole."""
    for job in jobs:
        evaluation = job.result(timeout=120)
        assert [each.epoch for each in evaluation.history] == list(range(1, EPOCHS + 1)), job.name
        check_journal(list(job.watch()))
    with server.client() as client:
        assert sorted(job.name for job in client.jobs()) == sorted(job.name for job in jobs)
    database = server.data_dir / "mlflow.db"
    journals = {job.name: job for job in jobs}

    def mirrored_wholly() -> bool:
        told = {name: list(job.watch()) for name, job in journals.items()}
        return not Runs(database).unended(told)

    # The mirror gives way to all else on the machine.
    eventually(mirrored_wholly, "every run ended in MLflow", within=2 * MIRROR_PATIENCE)
    findings = Findings()
    for job in jobs:
        mirrored(job)
    Runs(database).check({name: list(job.watch()) for name, job in journals.items()}, findings)
    assert findings.none, findings.lines()
