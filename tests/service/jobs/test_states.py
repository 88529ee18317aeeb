"""Which state may follow which, and who wins when two things happen at once."""

import contextlib
import itertools
from datetime import UTC, datetime
from typing import get_args

import pytest
from tests.service.jobs.bench import SPEC

from dropnorm.results import JobError, State, TrainingJob
from dropnorm_service.jobs import states
from dropnorm_service.jobs.errors import WrongState
from dropnorm_service.jobs.ports import Broken, Finished, Lost, Outcome, Stopped

ERROR = JobError(code=10, reason="WORKER_LOST", message="The worker was killed.")
ACTIVE = [state for state in State if state.active]
ACTIONS: tuple[states.Action, ...] = get_args(states.Action)
OUTCOMES: list[Outcome] = [
    Finished(),
    Broken(ERROR),
    Lost(ERROR),
    Stopped("pause"),
    Stopped("cancel"),
]


def job_in(state: State) -> TrainingJob:
    now = datetime.now(UTC)
    return TrainingJob(
        name="trainingJobs/a",
        display_name="a",
        experiment="default",
        spec=SPEC,
        spec_digest="",
        state=state,
        create_time=now,
        update_time=now,
    )


def test_every_state_has_its_moves_and_only_final_ones_have_none():
    assert set(states.MOVES) == set(State)
    assert {state for state in State if not states.MOVES[state]} == {
        state for state in State if state.terminal
    }


@pytest.mark.parametrize("action", ACTIONS)
def test_what_a_caller_asks_leads_to_a_legal_state_and_may_be_repeated(action: states.Action):
    for state in State:
        with contextlib.suppress(WrongState):
            target = states.answer(job_in(state), action)
            assert target is state or target in states.MOVES[state]
            assert states.answer(job_in(target), action) is target


@pytest.mark.parametrize(
    ("action", "refused"),
    [
        ("cancel", {State.SUCCEEDED, State.FAILED}),
        ("pause", {State.CANCELLING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
        ("resume", {State.CANCELLING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    ],
)
def test_which_states_refuse_an_action(action: states.Action, refused: set[State]):
    for state in State:
        if state in refused:
            with pytest.raises(WrongState, match=state.name) as raised:
                states.answer(job_in(state), action)
            expected = {"training_job": "trainingJobs/a", "state": state.name}
            assert raised.value.metadata == expected
        else:
            states.answer(job_in(state), action)


@pytest.mark.parametrize(
    ("state", "outcome", "stopping", "may_retry"),
    list(itertools.product(ACTIVE, OUTCOMES, [False, True], [False, True])),
)
def test_every_outcome_leads_every_active_job_to_a_legal_state(
    state: State, outcome: Outcome, stopping: bool, may_retry: bool
):
    move = states.after(state, outcome, stopping=stopping, may_retry=may_retry)
    assert move.state in states.MOVES[state]
    assert not move.state.active
    assert (move.state is State.FAILED) <= (move.error is not None)


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (State.RUNNING, Finished(), State.SUCCEEDED),
        (State.PAUSING, Finished(), State.SUCCEEDED),
        (State.CANCELLING, Finished(), State.SUCCEEDED),
        (State.RUNNING, Broken(ERROR), State.FAILED),
        (State.PAUSING, Broken(ERROR), State.FAILED),
        (State.CANCELLING, Broken(ERROR), State.CANCELLED),
        (State.RUNNING, Lost(ERROR), State.QUEUED),
        (State.PAUSING, Lost(ERROR), State.PAUSED),
        (State.CANCELLING, Lost(ERROR), State.CANCELLED),
        (State.RUNNING, Stopped("pause"), State.QUEUED),
        (State.PAUSING, Stopped("pause"), State.PAUSED),
        (State.CANCELLING, Stopped("pause"), State.CANCELLED),
        (State.CANCELLING, Stopped("cancel"), State.CANCELLED),
    ],
)
def test_who_wins_when_an_outcome_crosses_a_request(
    state: State, outcome: Outcome, expected: State
):
    assert states.after(state, outcome, stopping=False, may_retry=True).state is expected


def test_a_job_whose_workers_are_lost_too_often_fails_with_the_last_reason():
    move = states.after(State.RUNNING, Lost(ERROR), stopping=False, may_retry=False)
    assert (move.state, move.error) == (State.FAILED, ERROR)
    assert "Too many attempts in a row" in move.message


def test_a_service_that_stops_fails_no_job_for_a_worker_that_it_lost():
    move = states.after(State.RUNNING, Lost(ERROR), stopping=True, may_retry=False)
    assert move.state is State.QUEUED


@pytest.mark.parametrize("state", ACTIVE)
def test_a_restart_leads_to_a_legal_state_and_says_why_unless_that_was_asked_for(state: State):
    move = states.after_restart(state, may_retry=True)
    assert move.state in states.MOVES[state]
    assert bool(move.message) is (move.state is not State.CANCELLED)
