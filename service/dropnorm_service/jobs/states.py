"""The life of a job: which state may follow which, and who wins when two things happen at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from dropnorm.results import JobError, State, StateChanged, TrainingJob
from dropnorm_service.jobs.errors import WrongState
from dropnorm_service.jobs.ports import Broken, Finished, Lost, Outcome, Stopped
from dropnorm_service.jobs.retries import SERVICE_LOST

_ABORTED = 10

MOVES: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.PAUSING, State.CANCELLING, State.SUCCEEDED, State.FAILED, State.QUEUED}
    ),
    State.PAUSING: frozenset(
        {State.PAUSED, State.RUNNING, State.CANCELLING, State.SUCCEEDED, State.FAILED}
    ),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
    State.CANCELLING: frozenset({State.CANCELLED, State.SUCCEEDED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""Every legal move."""

Action = Literal["cancel", "pause", "resume"]

# What a caller may ask for, from where, and where it leads. A repeat of what was asked before leads
# nowhere else and succeeds, so that a caller who lost the reply may ask again.
_ANSWERS: Mapping[Action, Mapping[State, State]] = {
    "cancel": {
        State.QUEUED: State.CANCELLED,
        State.RUNNING: State.CANCELLING,
        State.PAUSING: State.CANCELLING,
        State.PAUSED: State.CANCELLED,
        State.CANCELLING: State.CANCELLING,
        State.CANCELLED: State.CANCELLED,
    },
    "pause": {
        State.QUEUED: State.PAUSED,
        State.RUNNING: State.PAUSING,
        State.PAUSING: State.PAUSING,
        State.PAUSED: State.PAUSED,
    },
    "resume": {
        State.PAUSED: State.QUEUED,
        # The worker has its order already and will stop; the job is then queued, not paused.
        State.PAUSING: State.RUNNING,
        State.QUEUED: State.QUEUED,
        State.RUNNING: State.RUNNING,
    },
}

_PAST = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}

_GIVEN_UP = "Too many attempts in a row were lost, none further."
_KILLED_TOO_OFTEN = (
    "The service was killed too often while the job ran; that may be the job's doing."
)


def tells_of_a_loss(change: StateChanged) -> bool:
    """Whether an attempt ended so by no fault of its job, which goes on, or is given up.

    Its reason does not tell it: a worker that breaks by a job says INTERNAL too.
    """
    lost = not change.state.terminal or change.message in (_GIVEN_UP, _KILLED_TOO_OFTEN)
    return change.error is not None and lost


class Move(NamedTuple):
    """Where a job goes, and why."""

    state: State
    message: str = ""
    error: JobError | None = None


def answer(job: TrainingJob, action: Action) -> State:
    """The state that a caller's wish leads to; the job's own state when nothing is left to do.

    Raises:
        WrongState: the job's state does not allow it.
    """
    state = _ANSWERS[action].get(job.state)
    if state is None:
        why = "has ended" if job.state.terminal else "is on its way to its end"
        raise WrongState(
            job.name,
            job.state,
            f"{job.name} is {job.state.name} and cannot be {_PAST[action]}: it {why}.",
        )
    return state


def after(state: State, outcome: Outcome, *, stopping: bool, may_retry: bool) -> Move:
    """Where an attempt's outcome leads a job that is in an active state.

    What was finished counts as finished, whatever was asked meanwhile. Otherwise a cancelled job
    ends as CANCELLED however its worker ended, and a job to be paused is PAUSED with whatever
    checkpoint there is.

    Args:
        stopping: the service is going down.
        may_retry: another attempt is allowed after a lost one.
    """
    match outcome:
        case Finished():
            return Move(State.SUCCEEDED)
        case Broken() | Lost() if state is State.CANCELLING:
            return Move(State.CANCELLED, f"Cancelled; its worker ended so: {outcome.error.message}")
        case Broken():
            return Move(State.FAILED, error=outcome.error)
        case Lost() if state is State.PAUSING:
            return Move(
                State.PAUSED,
                "The worker was lost while it paused; the job goes on from its last checkpoint.",
                outcome.error,
            )
        case Lost() if may_retry or stopping:
            return Move(
                State.QUEUED, "The attempt was lost; another will go on in a moment.", outcome.error
            )
        case Lost():
            return Move(State.FAILED, _GIVEN_UP, outcome.error)
        case Stopped():
            return _stopped(state, stopping=stopping)


def after_restart(state: State, *, may_retry: bool) -> Move:
    """Where a job goes that was in an active state when the service before this one was killed.

    Args:
        state: where it was.
        may_retry: another attempt is allowed.
    """
    match state:
        case State.CANCELLING:
            return Move(State.CANCELLED)
        case State.PAUSING:
            return Move(
                State.PAUSED,
                "The service ended while the job paused; it goes on from its last checkpoint.",
            )
        case _ if may_retry:
            text = "The service ended while the job ran; it goes on from its last checkpoint."
            return Move(State.QUEUED, text, _service_lost(text))
        case _:
            return Move(State.FAILED, _KILLED_TOO_OFTEN, _service_lost(_KILLED_TOO_OFTEN))


def _service_lost(message: str) -> JobError:
    return JobError(code=_ABORTED, reason=SERVICE_LOST, message=message)


def _stopped(state: State, *, stopping: bool) -> Move:
    match state:
        case State.CANCELLING:
            return Move(State.CANCELLED)
        case State.PAUSING:
            return Move(State.PAUSED)
        case _ if stopping:
            return Move(State.QUEUED, "The service is stopping; the job goes on when it is back.")
        case _:
            return Move(State.QUEUED, "Resumed while it paused; it goes on from its checkpoint.")
