"""Users take turns before a process, however much one of them asks."""

from __future__ import annotations

import asyncio

import pytest

from dropnorm_service.workers.line import Line

LONG = 60.0


class Front:
    """A line, and in which order those who wait there are served, each until it is told to go on."""

    def __init__(self) -> None:
        self.line = Line()
        self.served: list[str] = []
        self._go_on = asyncio.Semaphore(0)

    async def come(self, name: str) -> asyncio.Task[None]:
        """Stand in the line; the first letter is the user."""
        task = asyncio.create_task(self._serve(name))
        await asyncio.sleep(0)
        return task

    async def _serve(self, name: str) -> None:
        async with self.line.turn(name[0], LONG):
            self.served.append(name)
            await self._go_on.acquire()

    async def next(self) -> None:
        """Let the one who is served go."""
        self._go_on.release()
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def front() -> Front:
    return Front()


async def test_users_take_turns_and_of_each_who_came_first(front: Front):
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        await front.come(name)
    for _ in range(6):
        await front.next()
    assert front.served == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_who_comes_new_waits_for_no_more_than_one_of_each_other(front: Front):
    for n in range(20):
        await front.come(f"a{n}")
    await front.next()
    await front.come("b1")
    await front.next()
    assert front.served == ["a0", "a1", "b1"]
    await front.next()
    assert front.served[-1] == "a2", "nor does who has waited longest wait for ever"


async def test_who_gives_up_takes_nobodys_turn(front: Front):
    tasks = [await front.come(name) for name in ("a1", "b1", "b2", "c1")]
    for each in tasks[1:3]:
        each.cancel()
    await front.next()
    assert front.served == ["a1", "c1"]
    tasks[3].cancel()
    await asyncio.wait([tasks[3]])
    await front.come("d1")
    assert front.served[-1] == "d1"


async def test_a_turn_that_comes_as_its_user_gives_up_is_the_nexts(front: Front):
    first, second, _ = [await front.come(name) for name in ("a1", "b1", "c1")]
    first.cancel()
    await asyncio.sleep(0)  # the turn has been given to b, who does not know it yet
    second.cancel()
    await asyncio.wait([first, second])
    await asyncio.sleep(0)
    assert front.served[-1] == "c1"


async def test_one_does_not_wait_for_ever(front: Front):
    await front.come("a1")
    with pytest.raises(TimeoutError):
        async with front.line.turn("b", 0.01):
            pass
    await front.next()
    async with front.line.turn("b", LONG):
        pass
