"""Has trained models written in other forms, each by a process of its own, which knows torch."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from dropnorm.results import ModelExport
from dropnorm.spec import ExportSettings
from dropnorm_service.durable import draft_of
from dropnorm_service.jobs.errors import (
    CannotExport,
    DiskFull,
    ExportDeviates,
    ExporterUnavailable,
    ModelUnusable,
)
from dropnorm_service.unbroken import changing
from dropnorm_service.workers.asking import AskedProcess, Died
from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.line import Line
from dropnorm_service.workers.machine import usable_cores
from dropnorm_service.workers.messages import DataSettings, ExportReply, ExportRequest

_ENTRY = "dropnorm_service.workers.child.exporter:main"

log = logging.getLogger(__name__)


class ExportFailed(Exception):
    """The exporter met an unexpected error; the log has its trace."""


class ProcessExporter:
    """Exports in a fresh process each, one at a time; users take turns. Implements `jobs.ports.Exporter`.

    What torch's exporters leave in memory goes with the process, and so does an export whose caller has
    gone. Half of the cores are left to training.

    Args:
        forks: where processes come from; running.
        data: where data sets are found.
        timeout: seconds an export may take, and may wait for its turn before.
    """

    def __init__(self, forks: ForkServer, *, data: DataSettings, timeout: float = 900.0) -> None:
        self._forks = forks
        self._data = data
        self._timeout = timeout
        self._line = Line()
        self._environment = {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": str(max(1, usable_cores() // 2)),
        }

    async def export(
        self,
        training_job: str,
        model: Path,
        settings: ExportSettings,
        *,
        name: str,
        folder: Path,
        user: str = "",
    ) -> ModelExport:
        """Write a model and prove it; see `jobs.ports.Exporter`."""

        def request(number: int) -> ExportRequest:
            return ExportRequest(
                number=number,
                model=model,
                settings=settings,
                name=name,
                folder=folder,
                data=self._data,
            )

        try:
            async with self._line.turn(user, self._timeout):
                process = AskedProcess(self._forks, _ENTRY, self._environment)
                before = await asyncio.to_thread(_identity, folder)
                try:
                    reply = await process.ask(request, self._timeout)
                finally:
                    await process.end()
                    # Of one that was ended in the middle of it; any other has removed it.
                    await asyncio.to_thread(shutil.rmtree, draft_of(folder), ignore_errors=True)
                    if await asyncio.to_thread(_identity, folder) != before:
                        changing()
        except TimeoutError:
            raise ExporterUnavailable(
                f"Nothing was exported within {self._timeout:g} seconds; try again later."
            ) from None
        except Died:
            raise ExporterUnavailable(
                "The exporter died over this model twice, perhaps for lack of memory; the log may say why."
            ) from None
        assert isinstance(reply, ExportReply)
        return _read(training_job, reply)


def _identity(folder: Path) -> int | None:
    """What tells a folder from the one that takes its place; None: there is none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _read(training_job: str, reply: ExportReply) -> ModelExport:
    if reply.trace:
        log.error("the exporter met an unexpected error", extra={"trace": reply.trace})
        raise ExportFailed(f"the model of {training_job} could not be exported")
    if reply.disk_full:
        raise DiskFull(f"this export of {training_job}")
    if reply.unusable:
        raise ModelUnusable(training_job, reply.unusable)
    if reply.refused:
        kind = ExportDeviates if reply.deviates else CannotExport
        raise kind(training_job, reply.refused)
    assert reply.export is not None
    return reply.export
