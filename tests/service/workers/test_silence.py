"""A worker that says nothing: whether it computes, or hangs."""

from collections.abc import Callable

import pytest
from tests.service.workers.conftest import gone

from dropnorm_service.jobs.ports import Finished, Launch, Lost, Outcome
from dropnorm_service.workers import ForkServer, machine
from dropnorm_service.workers.attempt import Patience, follow
from dropnorm_service.workers.memory import MemoryWatch

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHILDREN = "tests.service.workers.children"
FOR_EVER = 3600.0


async def outcome_of(habit: str, forks: ForkServer, launch: Launch, patience: Patience) -> Outcome:
    child = await forks.fork(f"{CHILDREN}:{habit}", {})
    memory = MemoryWatch(child, 2**40)
    [outcome] = [item async for item in follow(child, launch, patience, memory)]
    await child.end()
    assert await gone(child.pid)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("habit", ["compute_for_a_while", "let_a_child_compute"])
async def test_a_long_operation_is_no_hanging(
    habit: str, bare_forks: ForkServer, launch: Callable[..., Launch]
) -> None:
    # Each look is a second from the next, so that a crowded machine has given the child its turn in between.
    patience = Patience(idle=2.0, busy=FOR_EVER)
    assert await outcome_of(habit, bare_forks, launch(), patience) == Finished()


@pytest.mark.parametrize("habit", ["hang_silently", "compute_and_then_sleep"])
async def test_a_worker_that_sleeps_hangs(
    habit: str, bare_forks: ForkServer, launch: Callable[..., Launch]
) -> None:
    outcome = await outcome_of(habit, bare_forks, launch(), Patience(idle=0.8, busy=FOR_EVER))
    assert isinstance(outcome, Lost)
    assert outcome.error.reason == "WORKER_HUNG"
    assert "gave no sign of life" in outcome.error.message


async def test_an_endless_loop_ends_at_last(
    bare_forks: ForkServer, launch: Callable[..., Launch]
) -> None:
    patience = Patience(idle=0.8, busy=2.0)
    outcome = await outcome_of("compute_for_ever", bare_forks, launch(), patience)
    assert isinstance(outcome, Lost)
    assert outcome.error.reason == "WORKER_HUNG"
    assert outcome.error.metadata == {"seconds": "2"}
    assert "computed for 2 seconds" in outcome.error.message
    assert "heartbeat_timeout" in outcome.error.message


async def test_where_nobody_knows_the_cpu_time_silence_alone_counts(
    bare_forks: ForkServer, launch: Callable[..., Launch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cpu_use", lambda group: None)
    patience = Patience(idle=0.8, busy=FOR_EVER)
    outcome = await outcome_of("compute_for_ever", bare_forks, launch(), patience)
    assert isinstance(outcome, Lost)
    assert outcome.error.metadata == {"seconds": "0.8"}
