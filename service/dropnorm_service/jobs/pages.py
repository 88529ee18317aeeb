"""Pages of journals out of the store, read once for all who replay the same journal at about the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial

from dropnorm.results import Event, TrainingJob
from dropnorm_service.jobs.ports import JobStore

# A reader keeps his page for as long as he does not read on, and an event takes up to 5 KB.
_SIZE = 16


class Pages:
    """Reads journals by pages, and keeps some pages. Journals only grow, so that a full page is what it will always be.

    Args:
        store: where journals are.
        capacity: pages to keep.
    """

    def __init__(self, store: JobStore, capacity: int = 64) -> None:
        self._store = store
        self._capacity = capacity
        self._pages: OrderedDict[Hashable, asyncio.Task[Sequence[Event]]] = OrderedDict()

    async def after(self, job: TrainingJob, sequence: int) -> Sequence[Event]:
        """Some events of a job from `sequence + 1` on; none when there are no more.

        Raises:
            StoreUnavailable: they cannot be read.
        """
        start = sequence - sequence % _SIZE
        for _ in range(
            2
        ):  # a page that was being read already may be older than what this reader knows of
            page = await asyncio.shield(self._page(job, start))
            if events := page[sequence - start :]:
                return events
        return ()

    def _page(self, job: TrainingJob, start: int) -> asyncio.Task[Sequence[Event]]:
        key = (job.name, job.create_time, start)  # a name may be given again to another job
        page = self._pages.get(key)
        if page is None:
            reading = self._store.events(job.id, after=start, limit=_SIZE)
            page = self._pages[key] = asyncio.ensure_future(reading)
            page.add_done_callback(partial(self._settle, key))
            while len(self._pages) > self._capacity:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(key)
        return page

    def _settle(self, key: Hashable, page: asyncio.Task[Sequence[Event]]) -> None:
        """Keep what has been read if it is a full page."""
        is_full = not page.cancelled() and not page.exception() and len(page.result()) == _SIZE
        if not is_full and self._pages.get(key) is page:
            del self._pages[key]
