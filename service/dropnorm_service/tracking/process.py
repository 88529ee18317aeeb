"""The server's end of a mirror process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable

from dropnorm_service.environment import mirror_environment
from dropnorm_service.output import Output
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import (
    Batch,
    Done,
    LogRecord,
    Message,
    Progress,
    Reply,
    RunMade,
    Setup,
    Unavailable,
    replies,
)

_REPLY_TIMEOUT = 900.0  # between two signs of life; MLflow may be slow, and a batch be of many jobs
_LONGEST_LINE = 2**26  # a page of registered models, each with its versions

CLOSING_TIME = 5.0
"""Seconds in which a process may finish what it does."""

log = logging.getLogger(__name__)
_printed = logging.getLogger("dropnorm_service.tracking.output")


class ProcessEnded(Exception):
    """The mirror process died, or was killed because it hung or could not be understood."""


class MirrorProcess:
    """A mirror process, started when it is needed.

    It ends by itself when this end of its pipe closes, so a server that is killed leaves none behind.
    """

    def __init__(self, setup: Setup, on_run: Callable[[RunMade], Awaitable[None]]) -> None:
        """A process that is not yet started.

        Args:
            setup: what it writes, and where.
            on_run: called for each run as soon as it is made. When it raises, the process is ended, and told of its
                run again by the next one that gets the batch.
        """
        self._setup = setup
        self._on_run = on_run
        self._process: asyncio.subprocess.Process | None = None
        self._output: Output | None = None
        self._ready = False

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    async def prepare(self) -> None:
        """Start the process and let it open its store, unless that is done: seconds, the first time.

        Raises:
            MlflowUnavailable: MLflow cannot be reached.
            ProcessEnded: the process died.
        """
        if self._process is None:
            self._process = await self._start()
        if not self._ready:
            await self._exchange(self._process, self._setup)
            self._ready = True

    async def deliver(self, batch: Batch) -> Done:
        """Have a batch written; returns when it is durable in MLflow, but for the jobs that the answer names.

        Raises:
            MlflowUnavailable: MLflow cannot be reached; part of the batch may have been written.
            ProcessEnded: the process died.
        """
        await self.prepare()
        assert self._process is not None
        reply = await self._exchange(self._process, batch)
        assert isinstance(reply, Done)
        return reply

    async def ask(self, request: Message) -> Reply:
        """What the process answers to a request.

        Raises:
            MlflowUnavailable: MLflow cannot be reached.
            ProcessEnded: the process died.
        """
        await self.prepare()
        assert self._process is not None
        return await self._exchange(self._process, request)

    async def close(self, within: float = CLOSING_TIME) -> None:
        """Let the process end: it may finish what it does now, for some seconds, and is then killed."""
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            await _kill(process)
        if self._output is not None:
            await self._output.close()

    async def _start(self) -> asyncio.subprocess.Process:
        self._output, printing = await Output.to(_printed)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working folder may hold a module of any name
                "-m",
                "dropnorm_service.tracking.mirror",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=printing,
                limit=_LONGEST_LINE,
                # Nothing leaves the machine but what goes to the tracking store.
                env=mirror_environment()
                | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            )
        finally:
            os.close(printing)

    async def _exchange(self, process: asyncio.subprocess.Process, message: Message) -> Reply:
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT) as limit:
                return await self._converse(process, message, limit)
        except MlflowUnavailable:
            raise
        except Exception as error:
            # What it has yet to say would be taken for the answer to the next message.
            self._process, self._ready = None, False
            await _kill(process)
            if limit.expired():
                raise ProcessEnded("killed, since it did not answer") from error
            raise

    async def _converse(
        self, process: asyncio.subprocess.Process, message: Message, limit: asyncio.Timeout
    ) -> Reply:
        await _send(process, message)
        while True:
            reply = await _receive(process)
            limit.reschedule(asyncio.get_running_loop().time() + _REPLY_TIMEOUT)
            if isinstance(reply, Progress):
                continue
            if isinstance(reply, LogRecord):
                about = {"mirror": str(self._setup.role)}
                if reply.job:
                    about["job"] = reply.job
                logger = logging.getLogger(reply.logger)
                logger.log(reply.level, "%s", reply.message, extra=about)
            elif isinstance(reply, RunMade):
                await self._on_run(reply)
            elif isinstance(reply, Unavailable):
                raise MlflowUnavailable(reply.reason)
            else:
                return reply


async def _send(process: asyncio.subprocess.Process, message: Message) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(message.model_dump_json().encode() + b"\n")
        await process.stdin.drain()
    except ConnectionError as error:
        raise ProcessEnded(await _end_of(process)) from error


async def _receive(process: asyncio.subprocess.Process) -> Reply:
    assert process.stdout is not None
    try:
        if line := await process.stdout.readline():
            return replies.validate_json(line)
    except ConnectionError as error:
        raise ProcessEnded(await _end_of(process)) from error
    except ValueError as error:  # longer than a line may be, or not one of the replies
        raise ProcessEnded(f"killed, since its reply cannot be read: {error}") from error
    raise ProcessEnded(await _end_of(process))


async def _end_of(process: asyncio.subprocess.Process) -> str:
    code = await process.wait()
    return f"signal {-code}" if code < 0 else f"exit status {code}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
