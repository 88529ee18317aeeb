"""What can go wrong, and a seeded schedule of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from tests.chaos.processes import Processes
from tests.chaos.service import Service
from tests.chaos.tracking import Front, Trouble
from tests.chaos.wires import Wire

_OUTAGE = (1.0, 6.0)
_STALL = (0.5, 4.0)
_SUDDEN_PAUSE = (1.0, 10.0)
_LASTING_PAUSE = (0.5, 4.0)
_WAITS = 0.8

Fault = Callable[[], Awaitable[bool]]
"""Does its harm, undoes what does not pass by itself, and says whether there was anything to harm."""


class Database(Protocol):
    """A store that can be harmed."""

    @property
    def url(self) -> str | None:
        """What the service is told; None: its own SQLite."""

    def faults(self, chance: random.Random) -> Mapping[str, Fault]:
        """What can go wrong with it, by name."""


class Faults:
    """The schedule: bags with each kind once are emptied in a random order, one after the other.

    Attributes:
        done: how often each kind met something, by its name.
    """

    def __init__(
        self,
        seed: int,
        service: Service,
        processes: Processes,
        wire: Wire,
        front: Front,
        database: Database,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._random = random.Random(f"faults/{seed}")  # noqa: S311 - a schedule, no secret
        self._service = service
        self._processes = processes
        self._wire = wire
        self._front = front
        self._sudden: Mapping[str, Fault] = {
            "server killed": lambda: self._kill("server"),
            "worker killed": lambda: self._kill("worker"),
            "fork server killed": lambda: self._kill("fork server"),
            "mirror killed": lambda: self._kill("mirror"),
            "all killed at once": self._kill_all,
            "service restarted in good order": self._restart,
            "connections cut": self._cut,
        }
        self._lasting: Mapping[str, Fault] = {
            "connections stalled": self._stall,
            **{f"MLflow {kind}": self._outage(kind) for kind in Trouble if kind != Trouble.NONE},
            **database.faults(self._random),
        }

    @property
    def kinds(self) -> Sequence[str]:
        """Every kind of fault, by name."""
        return [*self._sudden, *self._lasting]

    async def run(self) -> None:
        """One sudden fault after the other while one lasting fault follows the other, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tracks:
                tracks.create_task(self._do(self._sudden, _SUDDEN_PAUSE))
                tracks.create_task(self._do(self._lasting, _LASTING_PAUSE))
        finally:
            self._front.trouble = Trouble.NONE

    async def _do(self, faults: Mapping[str, Fault], pause: tuple[float, float]) -> None:
        while True:
            for kind in self._random.sample(sorted(faults), len(faults)):
                await asyncio.sleep(self._random.uniform(*pause))
                if await faults[kind]():
                    self.done[kind] += 1
                # A service that never comes to serve does no work to be disturbed in; now and then it is
                # hit in its start.
                if self._random.random() < _WAITS:
                    await self._service.serving.wait()

    async def _kill(self, role: str) -> bool:
        pids = sorted(self._processes.by_role().get(role, ()))
        return bool(pids) and self._processes.kill([self._random.choice(pids)]) > 0

    async def _kill_all(self) -> bool:
        return self._processes.kill(self._processes.alive()) > 0

    async def _restart(self) -> bool:
        serving = self._service.serving.is_set()
        self._service.terminate()
        return serving

    async def _cut(self) -> bool:
        connections = self._wire.connections
        self._wire.cut()
        return connections > 0

    async def _stall(self) -> bool:
        await self._wire.stall(self._random.uniform(*_STALL))
        return self._wire.connections > 0

    def _outage(self, kind: Trouble) -> Fault:
        async def outage() -> bool:
            before = self._front.spoilt[kind]
            self._front.trouble = kind
            await asyncio.sleep(self._random.uniform(*_OUTAGE))
            self._front.trouble = Trouble.NONE
            return self._front.spoilt[kind] > before

        return outage
