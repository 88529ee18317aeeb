"""Looks at uploaded data sets in processes of their own, one each."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from dropnorm.results import Dataset
from dropnorm_service.datasets.errors import InspectionFailed
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.jobs.errors import InvalidRequest
from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.messages import Inspect, Inspected

_ENTRY = "dropnorm_service.workers.child.inspector:main"
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
_TIMEOUT = 600.0

log = logging.getLogger(__name__)


class ProcessInspector:
    """Implements `datasets.service.Inspector`: a file that brings its process down takes nothing else with it."""

    def __init__(self, forks: ForkServer, limits: Limits) -> None:
        self._forks, self._limits = forks, limits

    async def inspect(self, dataset_id: str, path: Path) -> Dataset:
        """What a file holds, without its SHA-256.

        Raises:
            InvalidRequest: it is no data set, or larger than allowed; the row or the tensor is named.
            InspectionFailed: nobody could say.
        """
        process = await self._forks.fork(_ENTRY, _ENVIRONMENT)
        try:
            async with asyncio.timeout(_TIMEOUT):
                limits = self._limits
                process.send(
                    Inspect(
                        dataset_id=dataset_id,
                        path=path,
                        samples=limits.samples,
                        values=limits.values,
                    )
                )
                reply = await process.receive()
        except TimeoutError:
            raise InspectionFailed(f"The file was not read within {_TIMEOUT:g} seconds.") from None
        finally:
            await process.end()
        if not isinstance(reply, Inspected) or reply.trace:
            trace = reply.trace if isinstance(reply, Inspected) else "the process died"
            log.error("an upload could not be inspected", extra={"trace": trace})
            raise InspectionFailed("The file could not be inspected; the service's log says why.")
        if reply.dataset is None:
            raise InvalidRequest(reply.problems)
        return reply.dataset
