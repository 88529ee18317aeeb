"""A DatasetService on a folder of its own, whose inspector looks into files in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.service.callers import AsCaller

from dropnorm.results import Dataset, TrainingJob
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.service import DatasetService
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.workers.child.inspector import answer
from dropnorm_service.workers.messages import Inspect


class DirectInspector:
    """What the inspector's process does, without the process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def inspect(self, dataset_id: str, path: Path) -> Dataset:
        asked = Inspect(
            dataset_id=dataset_id,
            path=path,
            samples=self._limits.samples,
            values=self._limits.values,
        )
        reply = await asyncio.to_thread(answer, asked)
        assert not reply.trace, reply.trace
        if reply.dataset is None:
            raise InvalidRequest(reply.problems)
        return reply.dataset


class Folder:
    """A service, the jobs that are said to use its data sets, and how often it said that a name changed."""

    def __init__(self, folder: Path, limits: Limits | None = None, **more: Any) -> None:
        self.folder, self.limits = folder, limits or Limits()
        self.jobs: dict[str, Sequence[TrainingJob]] = {}
        self.changes = 0
        self.datasets = DatasetService(
            folder,
            DirectInspector(self.limits),
            jobs_using=self._using,
            on_change=self._changed,
            limits=self.limits,
            **more,
        )
        self.service = self.as_(LOCAL)

    def as_(self, caller: Caller) -> Any:
        """The service as a caller meets it."""
        return AsCaller(self.datasets, caller)

    async def _using(self, dataset_id: str) -> Sequence[TrainingJob]:
        return self.jobs.get(dataset_id, ())

    def _changed(self) -> None:
        self.changes += 1
