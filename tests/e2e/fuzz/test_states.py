"""Calls in any order on the life of jobs: whatever is asked, and when, each lives by legal moves alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.e2e.fuzz.calls import EXAMPLES, counted
from tests.e2e.servers import Server, check_journal, eventually, spec, states

import dropnorm as dn
from dropnorm.results import State

# Written down from the contract, not from the service.
FOLLOWERS: Mapping[State, set[State]] = {
    State.QUEUED: {State.RUNNING, State.PAUSED, State.CANCELLED},
    State.RUNNING: {
        State.QUEUED,
        State.PAUSING,
        State.CANCELLING,
        State.SUCCEEDED,
        State.FAILED,
    },
    State.PAUSING: {
        State.PAUSED,
        State.RUNNING,
        State.CANCELLING,
        State.SUCCEEDED,
        State.FAILED,
    },
    State.PAUSED: {State.QUEUED, State.CANCELLED},
    State.CANCELLING: {State.CANCELLED, State.SUCCEEDED},
    State.SUCCEEDED: set(),
    State.FAILED: set(),
    State.CANCELLED: set(),
}
ENDS = {State.SUCCEEDED, State.FAILED, State.CANCELLED}

_machines = itertools.count()

names = st.integers(0, 4)
lengths = st.sampled_from((1, 2, 100_000))


class Jobs(RuleBasedStateMachine):
    """Up to five jobs, and callers who ask for anything. Its server is set by the test."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"m{next(_machines)}"
        self.client = self.server.client()
        self.alive: set[str] = set()
        self.gone: set[str] = set()
        self.cancelled: set[str] = set()
        self.requests: set[str | None] = set()

    def id_of(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    @initialize(epochs=st.lists(lengths, min_size=3, max_size=3))
    def begin(self, epochs: list[int]) -> None:
        """Calls on jobs that are there are the more telling ones."""
        for number, each in enumerate(epochs):
            self.create(number, each, None)

    @rule(number=names, epochs=lengths, request=st.none() | st.integers(0, 2))
    def create(self, number: int, epochs: int, request: int | None) -> None:
        job_id = self.id_of(number)
        request_id = None if request is None else f"{self.prefix}-{request}"
        try:
            with counted("CreateTrainingJob"):
                job = self.client.train(
                    spec(epochs=epochs, batch_size=256), job_id=job_id, request_id=request_id
                )
        except dn.AlreadyExists:
            assert job_id in self.alive | self.gone
        except dn.InvalidRequest:  # the request_id was another one's
            assert request_id in self.requests
        except dn.NotFound:  # a repeat, and what it made has been deleted
            assert job_id in self.gone
        else:
            assert job.id == job_id
            self.alive.add(job_id)
            self.gone.discard(job_id)
            self.requests.add(request_id)

    @rule(number=names)
    def pause(self, number: int) -> None:
        self.steer(number, "pause", {State.PAUSING, State.PAUSED}, ENDS | {State.CANCELLING})

    @rule(number=names)
    def resume(self, number: int) -> None:
        self.steer(number, "resume", {State.QUEUED, State.RUNNING}, ENDS | {State.CANCELLING})

    @rule(number=names)
    def cancel(self, number: int) -> None:
        if self.steer(
            number,
            "cancel",
            {State.CANCELLING, State.CANCELLED},
            {State.SUCCEEDED, State.FAILED},
        ):
            self.cancelled.add(self.id_of(number))

    def steer(self, number: int, action: str, reached: set[State], refusing: set[State]) -> bool:
        """Ask for something; whether the service agreed."""
        job_id = self.id_of(number)
        try:
            with counted(f"{action.title()}TrainingJob"):
                job = self.client.job(job_id)
                getattr(job, action)()
        except dn.NotFound:
            assert job_id not in self.alive
            return False
        except dn.WrongState:
            assert self.client.job(job_id).refresh().state in refusing
            return False
        assert job_id in self.alive
        assert job.state in reached
        return True

    @rule(number=names, force=st.booleans())
    def delete(self, number: int, force: bool) -> None:
        job_id = self.id_of(number)
        try:
            with counted("DeleteTrainingJob"):
                self.client.job(job_id).delete(force=force)
        except dn.NotFound:
            assert job_id not in self.alive
        except dn.WrongState:
            assert not force
        else:
            self.alive.remove(job_id)
            self.gone.add(job_id)
            self.cancelled.discard(job_id)
            with pytest.raises(dn.NotFound):
                self.client.job(job_id).refresh()

    @rule(number=names)
    def read(self, number: int) -> None:
        job_id = self.id_of(number)
        try:
            with counted("GetTrainingJob"):
                job = self.client.job(job_id).refresh()
        except dn.NotFound:
            assert job_id not in self.alive
        else:
            assert job_id in self.alive
            assert job.id == job_id

    @rule()
    def list(self) -> None:
        listed = {job.id for job in self.client.jobs() if job.id.startswith(f"{self.prefix}-")}
        assert listed == self.alive

    @rule(number=names)
    def wait_for_a_short_one(self, number: int) -> None:
        """Time passes, so that things happen between the calls."""
        job_id = self.id_of(number)
        if job_id in self.alive:
            job = self.client.job(job_id).refresh()
            if job.snapshot.spec.optimization.epochs <= 2 and job.state is State.RUNNING:
                eventually(lambda: job.refresh().state is not State.RUNNING, f"{job_id} goes on")

    def teardown(self) -> None:
        try:
            for job_id in sorted(self.alive):
                self.check_life(job_id)
            for job_id in sorted(self.alive):
                self.client.job(job_id).delete()
        finally:
            self.client.close()

    def check_life(self, job_id: str) -> None:
        """The whole journal of a job, once it has ended, tells of legal moves alone."""
        job = self.client.job(job_id).refresh()
        if job.state not in ENDS:
            try:
                job.cancel()
            except dn.WrongState:  # it ended meanwhile
                assert job.refresh().state in {State.SUCCEEDED, State.FAILED}
            else:
                self.cancelled.add(job_id)
        events = list(job.watch())
        check_journal(events)
        lived = states(events)
        assert lived[0] is State.QUEUED
        assert lived[-1] in ENDS
        for before, then in itertools.pairwise(lived):
            assert then in FOLLOWERS[before], f"{job_id}: {before.name} to {then.name}"
        if job_id in self.cancelled:
            assert lived[-1] in {State.CANCELLED, State.SUCCEEDED}


@pytest.mark.timeout(900)
def test_calls_in_any_order(target: Server):
    class OnTarget(Jobs):
        server = target

    run_state_machine_as_test(
        OnTarget,
        settings=settings(
            max_examples=max(20, EXAMPLES // 2),
            stateful_step_count=30,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
