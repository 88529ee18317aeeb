import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.service.workers.conftest import training

from dropnorm.results import Plan
from dropnorm.spec import MLP, Data, InvalidSpecError
from dropnorm_service.jobs.errors import PlannerUnavailable
from dropnorm_service.training import DatasetCache
from dropnorm_service.workers import DataSettings, ForkServer, ProcessPlanner

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def planner(forks: ForkServer, data: DataSettings) -> AsyncIterator[ProcessPlanner]:
    async with planner_of(forks, data) as planner:
        yield planner


def planner_of(
    forks: ForkServer, data: DataSettings, memory: int | None = None, timeout: float = 30.0
) -> ProcessPlanner:
    return ProcessPlanner(forks, data=data, memory_limit=lambda _: memory, timeout=timeout)


async def test_a_spec_is_planned(planner: ProcessPlanner) -> None:
    spec = training(epochs=7)
    plan = await planner.plan(spec)
    assert plan.spec == spec
    assert plan.spec_digest == spec.digest()
    assert plan.parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert plan.total_steps == 7 * plan.steps_per_epoch


async def test_every_wrong_field_is_named(planner: ProcessPlanner) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        await planner.plan(training(data=Data(dataset="unheard_of")))
    assert [problem.field for problem in caught.value.problems] == ["data.dataset"]


async def test_what_does_not_fit_into_the_memory_is_refused(
    forks: ForkServer, data: DataSettings
) -> None:
    async with planner_of(forks, data, memory=2**20) as planner:
        await planner.plan(training())
        with pytest.raises(InvalidSpecError, match="architecture"):
            await planner.plan(training(architecture=MLP(hidden=(4096, 4096))))


async def test_answers_are_remembered_whatever_the_seed(
    planner: ProcessPlanner, data: DataSettings
) -> None:
    DatasetCache(data.cache).load("digits")  # a plan without the data's digest is not kept
    first = await planner.plan(training(seed=1))
    with stopped(planner):
        async with asyncio.timeout(5.0):
            second = await planner.plan(training(seed=2))
    assert second.spec.seed == 2
    assert second.spec_digest == training(seed=2).digest()
    assert different(first, second) == {"spec", "spec_digest"}


async def test_what_was_being_planned_when_names_changed_is_not_remembered(
    planner: ProcessPlanner, data: DataSettings
) -> None:
    DatasetCache(data.cache).load("digits")
    planner.forget()
    planning = asyncio.create_task(planner.plan(training()))
    await asyncio.sleep(0)
    planner.forget()
    await planning
    assert not planner._plans


async def test_of_large_plans_fewer_are_remembered(
    planner: ProcessPlanner, data: DataSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    DatasetCache(data.cache).load("digits")
    planner.forget()
    plan = await planner.plan(training(epochs=1))
    rows = len(plan.layers) + 1  # ten names of classes are one more
    monkeypatch.setattr("dropnorm_service.workers.planner._MOST_ROWS", 2 * rows)
    for epochs in (2, 3):
        await planner.plan(training(epochs=epochs))
    assert [each.spec.optimization.epochs for each in planner._plans.values()] == [2, 3]


async def test_plans_made_before_the_data_was_read_are_made_again(
    forks: ForkServer, tmp_path: Path
) -> None:
    async with planner_of(forks, DataSettings(cache=tmp_path)) as planner:
        before = await planner.plan(training())
        digest = DatasetCache(tmp_path).load("digits").digest
        after = await planner.plan(training())
    assert before.dataset.digest is None
    assert after.dataset.digest == digest


async def test_many_ask_at_once_and_each_gets_its_own_answer(planner: ProcessPlanner) -> None:
    specs = [training(epochs=epochs) for epochs in range(1, 21)]
    plans = await asyncio.gather(*map(planner.plan, specs))
    assert [plan.spec for plan in plans] == specs


async def test_a_planner_that_was_killed_is_replaced(planner: ProcessPlanner) -> None:
    await planner.plan(training(epochs=31))
    (pid,) = process_of(planner)
    os.kill(pid, signal.SIGKILL)
    assert (await planner.plan(training(epochs=32))).spec.optimization.epochs == 32
    assert process_of(planner) != [pid]


async def test_a_planner_that_does_not_answer_is_replaced(
    forks: ForkServer, data: DataSettings
) -> None:
    async with planner_of(forks, data, timeout=1.0) as planner:
        (pid,) = process_of(planner)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(PlannerUnavailable, match="within 1 seconds"):
            await planner.plan(training(epochs=33))
        planner._timeout = 30.0
        assert (await planner.plan(training(epochs=33))).spec.optimization.epochs == 33


async def test_one_who_gave_up_does_not_spoil_the_next_answer(planner: ProcessPlanner) -> None:
    with stopped(planner):
        impatient = asyncio.create_task(planner.plan(training(epochs=34)))
        for _ in range(5):
            await asyncio.sleep(0)
        impatient.cancel()
    assert (await planner.plan(training(epochs=35))).spec.optimization.epochs == 35
    assert impatient.cancelled()


async def test_users_take_turns(planner: ProcessPlanner) -> None:
    made: list[str] = []

    async def plan(user: str, epochs: int) -> None:
        await planner.plan(training(epochs=epochs), user=user)
        made.append(user)

    with stopped(planner):
        plans = [asyncio.create_task(plan("ada", epochs)) for epochs in range(40, 50)]
        await asyncio.sleep(0)
        plans.append(asyncio.create_task(plan("bob", 50)))
        await asyncio.sleep(0)
    await asyncio.gather(*plans)
    assert made[:3] == ["ada", "bob", "ada"]


async def test_those_who_go_leave_it_no_more_than_one_thing_to_do(planner: ProcessPlanner) -> None:
    with stopped(planner):
        asked = next(planner._process._numbers)
        for epochs in range(60, 80):
            impatient = asyncio.create_task(planner.plan(training(epochs=epochs), user="ada"))
            for _ in range(5):
                await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
    assert (await planner.plan(training(epochs=80), user="bob")).spec.optimization.epochs == 80
    assert next(planner._process._numbers) == asked + 3, "the first of hers, and his"


async def test_who_waits_too_long_ends_nothing(forks: ForkServer, data: DataSettings) -> None:
    async with planner_of(forks, data, timeout=1.0) as planner:
        before = process_of(planner)
        async with planner._process._line.turn("ada", 1.0):
            with pytest.raises(PlannerUnavailable, match="answered other requests for 1 seconds"):
                await planner.plan(training(epochs=81), user="bob")
        planner._timeout = 30.0
        await planner.plan(training(epochs=81), user="bob")
        assert process_of(planner) == before


async def test_a_huge_network_costs_the_planner_no_memory(planner: ProcessPlanner) -> None:
    plan = await planner.plan(training(architecture=MLP(hidden=(2**20, 2**19))))
    assert plan.parameters > 2**39
    assert plan.memory.total > 4 * 2**39


def different(one: Plan, other: Plan) -> set[str]:
    return {name for name in Plan.model_fields if getattr(one, name) != getattr(other, name)}


@contextmanager
def stopped(planner: ProcessPlanner) -> Iterator[None]:
    """Within it the planner's process does nothing."""
    (pid,) = process_of(planner)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def process_of(planner: ProcessPlanner) -> list[int]:
    process = planner._process._process
    return [process.pid] if process else []
