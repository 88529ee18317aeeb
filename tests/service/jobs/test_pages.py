"""Journals out of the store, read once for many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from tests.service.store.rows import NOON, draft

from dropnorm.results import Event, LogLine, TrainingJob
from dropnorm_service.jobs.errors import StoreUnavailable
from dropnorm_service.jobs.pages import Pages


class Journals:
    """The part of a store that pages are read from."""

    def __init__(self, events: int) -> None:
        self.length = events
        self.reads: list[int] = []
        self.begun = asyncio.Event()
        self.away = False

    async def events(self, job_id: str, *, after: int, limit: int) -> Sequence[Event]:
        self.reads.append(after)
        self.begun.set()
        last = min(after + limit, self.length)
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("The store is away.")
        return [event(job_id, number) for number in range(after + 1, last + 1)]


def event(job_id: str, number: int) -> Event:
    return Event(
        training_job=f"trainingJobs/{job_id}",
        sequence=number,
        time=NOON,
        attempt=1,
        payload=LogLine(message=f"line {number}"),
    )


async def replay(pages: Pages, job: TrainingJob, after: int = 0) -> list[int]:
    numbers: list[int] = []
    while events := await pages.after(job, after):
        numbers += [each.sequence for each in events]
        after = numbers[-1]
    return numbers


async def test_many_who_replay_a_journal_at_once_read_it_once():
    journals = Journals(100)
    pages = Pages(journals)  # type: ignore[arg-type]
    told = await asyncio.gather(*(replay(pages, draft("a"), start) for start in range(50)))
    assert told == [list(range(start + 1, 101)) for start in range(50)]
    assert len(journals.reads) < 3 * 100 / 16


async def test_a_journal_that_grows_is_told_to_its_end():
    journals = Journals(20)
    pages = Pages(journals)  # type: ignore[arg-type]
    assert await replay(pages, draft("a")) == list(range(1, 21))
    journals.length = 40
    assert await replay(pages, draft("a"), 20) == list(range(21, 41))


async def test_who_knows_of_more_than_was_there_when_a_page_was_begun_gets_it():
    journals = Journals(20)
    pages = Pages(journals)  # type: ignore[arg-type]
    before = asyncio.create_task(pages.after(draft("a"), 16))
    await journals.begun.wait()
    journals.length = 24
    assert [each.sequence for each in await pages.after(draft("a"), 20)] == [21, 22, 23, 24]
    assert [each.sequence for each in await before] == [17, 18, 19, 20]


async def test_another_job_of_the_same_name_has_a_journal_of_its_own():
    journals = Journals(16)
    pages = Pages(journals)  # type: ignore[arg-type]
    first = draft("a")
    await replay(pages, first)
    journals.reads.clear()
    again = first.model_copy(update={"create_time": first.create_time + timedelta(days=1)})
    assert await replay(pages, again) == list(range(1, 17))
    assert 0 in journals.reads


async def test_no_more_is_kept_than_there_is_room_for():
    journals = Journals(64)
    pages = Pages(journals, capacity=2)  # type: ignore[arg-type]
    for _ in range(2):
        assert await replay(pages, draft("a")) == list(range(1, 65))
    assert journals.reads.count(0) == 2


async def test_what_could_not_be_read_is_read_again():
    journals = Journals(16)
    pages = Pages(journals)  # type: ignore[arg-type]
    journals.away = True
    with pytest.raises(StoreUnavailable):
        await pages.after(draft("a"), 0)
    journals.away = False
    assert await replay(pages, draft("a")) == list(range(1, 17))


async def test_a_reader_who_goes_away_breaks_off_nobodys_reading():
    journals = Journals(16)
    pages = Pages(journals)  # type: ignore[arg-type]
    going, staying = (asyncio.create_task(replay(pages, draft("a"))) for _ in range(2))
    await asyncio.sleep(0)
    going.cancel()
    assert await staying == list(range(1, 17))
    assert journals.reads.count(0) == 1
