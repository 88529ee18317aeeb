"""However often a job is killed, paused and resumed, it ends bit for bit like one that was left alone.

And whoever stops a job has it stopped before long, in every phase, and finds what it has done so far.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.e2e.conftest import SMALL
from tests.e2e.servers import (
    PATIENCE,
    SlowedServer,
    after_epoch,
    check_journal,
    eventually,
    first,
    spec,
    states,
)
from tests.service.training.stopping import timeless

import dropnorm as dn
from dropnorm.results import Phase, State
from dropnorm_service.jobs.states import MOVES

Outcome = tuple[str, Sequence[str]]

pytestmark = pytest.mark.slow

EPOCHS = 30
OFTEN = ("--checkpoint-interval", "0.05", "--max-attempts", "50")


def eventful(seed: int = 7, epochs: int = EPOCHS) -> dn.TrainingSpec:
    """A training with a state of every kind."""
    return spec(
        epochs=epochs,
        batch_size=32,
        averaging=dn.EMA(decay=0.9),
        schedule=dn.PlateauSchedule(gamma=0.5, patience=2),
        micro_batch_size=20,
    ).model_copy(
        update={
            "seed": seed,
            "regularization": dn.Regularization(
                dropout=dn.Dropout(rate=0.3), batch_norm=dn.BatchNorm()
            ),
            "evaluation": dn.EvaluationSettings(
                recalibrate_batch_norm="dropout_on", mc_dropout_passes=20, variance_shift=True
            ),
        }
    )


def outcome(server: SlowedServer, job: dn.JobHandle) -> Outcome:
    """All of a job's result but its times, and the sums of its model's files."""
    evaluation = repr(timeless(job.result(timeout=PATIENCE)))
    model = server.data_dir / "jobs" / job.id / "model"
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(model.iterdir())]
    return evaluation, files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowedServer]:
    server = SlowedServer(tmp_path_factory.mktemp("exact"), *SMALL, "--no-tracking", *OFTEN)
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def client(server: SlowedServer) -> Iterator[dn.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def expected(server: SlowedServer, client: dn.Client) -> Outcome:
    """What comes of a job that is left alone."""
    return outcome(server, client.train(eventful(), job_id="left-alone"))


def test_a_job_whose_workers_are_killed_ends_bit_for_bit_the_same(
    server: SlowedServer, client: dn.Client, expected: Outcome
) -> None:
    """At steps that chance has it, also while a checkpoint is written, of which there is one after the other."""
    chance = random.Random(11)  # noqa: S311 - the same kills each time
    targets = sorted(chance.sample(range(2, EPOCHS // 2), 3))
    with server.slow(after=9):  # enough for each, and in all too few to come to the end
        job = client.train(eventful(), job_id="killed")
        for attempt, target in enumerate(targets, start=1):
            after_epoch(job, target, attempt)
            os.kill(server.worker_of(job), signal.SIGKILL)
    assert outcome(server, job) == expected
    assert job.refresh().snapshot.attempt == 4
    check_journal(list(job.watch()))


def test_a_job_that_is_paused_again_and_again_ends_bit_for_bit_the_same(
    server: SlowedServer, client: dn.Client, expected: Outcome
) -> None:
    with server.slow(after=6):
        job = client.train(eventful(), job_id="paused")
        for pause in range(4):
            if pause:  # the first pause finds it wherever it is, the next a little further
                after_epoch(job, 5 * pause)
            job.pause()
            eventually(lambda: job.refresh().state is State.PAUSED, "the pause")
            job.resume()
    assert outcome(server, job) == expected
    epochs = [each.payload for each in job.watch() if isinstance(each.payload, dn.EpochCompleted)]
    assert [each.metrics.epoch for each in epochs] == list(range(1, EPOCHS + 1)), (
        "none was done twice"
    )


def at_phase(phase: Phase) -> dn.TrainingSpec:
    """A training that is long in one phase."""
    long: dict[str, Any] = {"epochs": 100_000, "batch_size": 16}
    if phase == "building":
        return spec(**long).model_copy(
            update={
                "architecture": dn.MLP(hidden=(5000, 5000, 5000)),
                "initialization": dn.Initialization(scheme="orthogonal"),
            }
        )
    if phase == "tuning":
        return spec(**long, auto_learning_rate=dn.AutoLearningRate(steps=10_000)).model_copy(
            update={"architecture": dn.MLP(hidden=(1024, 1024))}
        )
    if phase == "testing":
        return spec(epochs=1).model_copy(
            update={"evaluation": dn.EvaluationSettings(mc_dropout_passes=10_000)}
        )
    return spec(**long)


@pytest.mark.parametrize("order", ["pause", "cancel"])
@pytest.mark.parametrize("phase", ["loading_data", "building", "tuning", "training", "testing"])
def test_a_stop_is_obeyed_in_the_phase_that_it_finds(
    phase: Phase, order: str, client: dn.Client, server: SlowedServer
) -> None:
    """It is answered at once, and the job does not come to its end, nor anywhere near the end of a long phase."""
    with server.slow(after=1):
        job = client.train(at_phase(phase), job_id=f"{order}-{phase.replace('_', '-')}")
        first(job, dn.Progressed, lambda payload: payload.progress.phase == phase)
        getattr(job, order)()
    stopping = (
        {State.PAUSING, State.PAUSED} if order == "pause" else {State.CANCELLING, State.CANCELLED}
    )
    assert job.state in stopping
    asked = job.snapshot.last_sequence
    eventually(lambda: job.refresh().state in stopping - {State.PAUSING, State.CANCELLING}, order)
    job.cancel()
    later = [event.payload for event in job.watch() if event.sequence > asked]
    begun = {each.progress.phase for each in later if isinstance(each, dn.Progressed)}
    if phase in ("building", "tuning"):
        assert begun <= {phase}
    assert not any(isinstance(each, dn.Evaluated) for each in later)
    if phase in ("training", "testing"):
        assert any(isinstance(each, dn.CheckpointWritten) for each in later)


def test_a_cancelled_job_keeps_its_history_and_its_last_checkpoint(
    server: SlowedServer, client: dn.Client
) -> None:
    job = client.train(eventful(epochs=100_000), job_id="cancelled")
    after_epoch(job, 3)
    job.cancel()
    with pytest.raises(dn.JobCancelled, match=r"history\(\) has the epochs"):
        job.result(timeout=120)
    history = job.history()
    assert [each.epoch for each in history] == list(range(1, len(history) + 1))
    assert len(history) >= 3
    payloads = [event.payload for event in job.watch()]
    written = [each for each in payloads if isinstance(each, dn.CheckpointWritten)]
    assert written[-1].epoch == len(history)
    assert list((server.data_dir / "jobs" / job.id / "checkpoints").glob("*.json"))


def test_a_damaged_checkpoint_is_told_of_in_the_journal(
    server: SlowedServer, client: dn.Client, expected: Outcome
) -> None:
    with server.slow(after=8):
        job = client.train(eventful(), job_id="damaged")
        first(job, dn.CheckpointWritten, lambda payload: payload.epoch >= 5)
        job.pause()
        eventually(lambda: job.refresh().state is State.PAUSED, "the pause")
    newest = max((server.data_dir / "jobs" / job.id / "checkpoints").glob("*.safetensors"))
    os.truncate(newest, newest.stat().st_size - 1)
    job.resume()
    assert outcome(server, job) == expected
    warning = first(job, dn.Warned).payload
    assert isinstance(warning, dn.Warned)
    assert (warning.code, newest.stem in warning.message) == ("CHECKPOINT_DAMAGED", True)


@settings(max_examples=8, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    callers=st.lists(
        st.lists(st.sampled_from(["pause", "resume", "pause", "resume", "cancel"]), max_size=5),
        min_size=2,
        max_size=3,
    )
)
def test_calls_that_cross_end_in_a_legal_state(
    client: dn.Client, server: SlowedServer, expected: Outcome, callers: list[list[str]]
) -> None:
    """And a job that nobody cancelled ends bit for bit the same."""
    job = client.train(eventful())

    def call(actions: list[str]) -> None:
        mine = client.job(job.id)
        for action in actions:
            with contextlib.suppress(dn.WrongState):  # another was faster, or it is done
                getattr(mine, action)()

    threads = [threading.Thread(target=call, args=(actions,)) for actions in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with contextlib.suppress(dn.WrongState):
        job.resume()
    try:
        assert outcome(server, job) == expected
    except dn.JobCancelled:
        assert any("cancel" in actions for actions in callers)
    events = list(job.watch())
    check_journal(events)
    moves = pairwise(states(events))
    assert [(one, next_) for one, next_ in moves if next_ not in MOVES[one]] == []
