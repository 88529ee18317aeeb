"""A service under a supervisor that starts it again whenever it ends, as systemd or Docker would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

from tests.chaos.processes import MARK
from tests.e2e.servers import command

_LONGEST_PAUSE = 1.0
_START_TIME = 120.0
_EXIT_TIME = 60.0


class Service:
    """`python -m dropnorm_service` on a data folder and a port, kept running.

    Attributes:
        serving: set while it accepts calls.
        starts: how often it has come to that.
        own_ends: ends that nobody asked for: exit statuses of a service that had served.
    """

    def __init__(self, data_dir: Path, port: int, *flags: str, mark: str) -> None:
        self.data_dir = data_dir
        self.port = port
        self.serving = asyncio.Event()
        self.starts = 0
        self.own_ends: list[int] = []
        self._command = command("--data-dir", data_dir, "--port", port, *flags)
        self._environment = os.environ | {MARK: mark}
        self._process: asyncio.subprocess.Process | None = None
        self._asked_to_end = False
        self._pauses = random.Random(mark)  # noqa: S311 - a schedule, no secret

    @property
    def log(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    async def keep(self) -> None:
        """Run it until cancelled, then end it in good order."""
        try:
            while True:
                await self._run()
                await asyncio.sleep(self._pauses.uniform(0.0, _LONGEST_PAUSE))
        finally:
            await self._end()

    def terminate(self) -> None:
        """End it in good order; it comes again."""
        self._asked_to_end = True
        self.serving.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def _run(self) -> None:
        self._asked_to_end = False
        with self.log.open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        assert process.stdout is not None
        async with asyncio.timeout(_START_TIME):
            served = bool(await process.stdout.readline())
        if served:
            self.starts += 1
            self.serving.set()
        try:
            status = await process.wait()
        finally:
            self.serving.clear()
        if served and status != -signal.SIGKILL and not self._asked_to_end:
            self.own_ends.append(status)

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_EXIT_TIME):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
