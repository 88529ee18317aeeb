"""What a worker uses of the machine's memory: watched, so that one which explodes takes nobody along."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dropnorm.results import JobError
from dropnorm_service.workers import machine
from dropnorm_service.workers.process import Child

_INTERVAL = 0.25
_RESOURCE_EXHAUSTED = 8
# Used by the server, the kernel and all that is no worker.
_RESERVED_SHARE = 0.1


def share(slots: int) -> int:
    """Bytes that each worker of so many slots may use."""
    return int(machine.memory_bytes() * (1 - _RESERVED_SHARE) / max(1, slots))


class MemoryWatch:
    """Looks at a worker's memory again and again, and kills it where it uses more than it may.

    On a CPU its own limit (`Fork.memory_limit`) stops an allocation before that, with an error that it can explain;
    this is for what that limit cannot be set for, as with CUDA, which reserves far more than it uses.

    Attributes:
        used: bytes at the last look.
        limit: bytes allowed.
        exceeded: whether it was killed for it.
    """

    def __init__(self, worker: Child, limit: int) -> None:
        self._worker = worker
        self._kills = machine.memory_kills()
        self.used = 0
        self.limit = limit
        self.exceeded = False

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch within a block."""
        task = asyncio.create_task(self._watch(), name=f"memory of {self._worker.pid}")
        try:
            yield
        finally:
            task.cancel()

    @property
    def kernel_killed(self) -> bool:
        """Whether the kernel ended some process for want of memory since the watch began."""
        now = machine.memory_kills()
        return self._kills is not None and now is not None and now > self._kills

    def error(self) -> JobError:
        """Why a worker that used too much was killed."""
        return JobError(
            code=_RESOURCE_EXHAUSTED,
            reason="OUT_OF_MEMORY",
            message=f"The worker used {self.used >> 20} MiB of memory and may use {self.limit >> 20} MiB. Give a "
            "smaller batch_size or a smaller network; Plan estimates what a spec needs.",
            metadata={"used_bytes": str(self.used), "limit_bytes": str(self.limit)},
        )

    async def _watch(self) -> None:
        while not self._worker.gone:
            used = machine.anonymous_bytes(self._worker.pid)
            if used is not None:
                self.used = used
            if self.used > self.limit:
                self.exceeded = True
                self._worker.kill()
                return
            await asyncio.sleep(_INTERVAL)
