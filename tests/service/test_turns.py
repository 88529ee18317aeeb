"""A call is not kept waiting by what is told to many."""

import asyncio

from dropnorm_service.turns import Turns


async def test_one_goes_on_in_each_round_and_in_order():
    turns, went = Turns(), []

    async def go(number: int) -> None:
        await turns.mine()
        went.append(number)

    everybody = asyncio.gather(*(go(number) for number in range(100)))
    most, before = 0, 0
    while not everybody.done():
        await asyncio.sleep(0)
        most, before = max(most, len(went) - before), len(went)
    assert went == list(range(100))
    assert most == 1


async def test_who_gives_up_takes_nobodys_turn():
    turns = Turns()
    waiting = [asyncio.create_task(turns.mine()) for _ in range(5)]
    await asyncio.sleep(0)
    for each in waiting[:4]:
        each.cancel()
    await waiting[4]
    await turns.mine()
