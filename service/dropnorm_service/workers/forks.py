"""The server's view of its fork server: a process that has torch loaded, and those forked from it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from dropnorm_service.workers.channel import Channel
from dropnorm_service.workers.messages import (
    AnyMessage,
    Exited,
    Fork,
    Forked,
    Message,
    Up,
    encode,
)

_MODULE = "dropnorm_service.workers.child.forkserver"
_PRELOADED = ("dropnorm_service.workers.child.preload",)
# OpenBLAS starts its threads when numpy is imported, and threads do not survive a fork. Training
# leaves the computing to torch, whose threads are counted per slot.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_EXIT_TIME = 5.0

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """The fork server ended before it was ready; its own messages are on standard error."""


class Child:
    """A forked process: its connection, and how it ended."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self._channel = channel
        self._exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether it has closed its connection or ended."""
        known = self._exited.done() and self._exited.result() is not None
        return known or self._channel.closed.is_set()

    def send(self, message: Message) -> None:
        """Send it a message; without effect when it is gone."""
        self._channel.send(message)

    async def receive(self) -> AnyMessage | None:
        """Its next message; None when there will be none."""
        return await self._channel.receive()

    async def exit_status(self) -> int | None:
        """Wait for its end: the exit status, or minus a signal's number; None when nobody knows."""
        await self._channel.closed.wait()
        try:
            async with asyncio.timeout(_EXIT_TIME):
                return await asyncio.shield(self._exited)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """End it and the processes it started, at once."""
        # While its connection is open it lives, so that its number cannot mean another process.
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def end(self, within: float = 0.0) -> None:
        """Wait for its end for some seconds, then kill it; returns when it is gone."""
        try:
            async with asyncio.timeout(within):
                await self._channel.closed.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self.exit_status()
        self._channel.close()

    def note_exit(self, status: int | None) -> None:
        """The fork server says how it ended, or (None) can no longer say."""
        if not self._exited.done():
            self._exited.set_result(status)


class ForkServer:
    """Keeps a fork server running, as an async context manager.

    Should the fork server die, another takes its place, and the processes it had forked live on:
    they are connected to this process, and only the way in which they end remains unknown.
    """

    def __init__(self, preload: Sequence[str] = _PRELOADED) -> None:
        """`preload` names modules to import before anything is forked."""
        self._preload = tuple(preload)
        self._up = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._forking: dict[int, tuple[Channel, asyncio.Future[Child]]] = {}
        self._children: dict[int, Child] = {}
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the fork server that runs now."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            StartFailed: the fork server ended before it was ready.
        """
        self._keeper = asyncio.create_task(self._keep(), name="fork server")
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait({up, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            if not self._up.is_set():
                await _cancel(self._keeper)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End everything that was forked, then the fork server."""
        await asyncio.gather(*(child.end() for child in list(self._children.values())))
        if self._keeper is not None:
            await _cancel(self._keeper)

    async def fork(self, entry: str, environment: Mapping[str, str]) -> Child:
        """Fork a process that calls `entry`, `package.module:function`, with its connection.

        Waits for as long as there is no fork server.
        """
        while True:
            await self._up.wait()
            ours, theirs = socket.socketpair()
            with theirs:
                channel = await Channel.over(ours)
                answer = self._request(channel, entry, environment, theirs)
            try:
                return await answer
            except OSError:  # the fork server died; the next one will do it
                channel.close()
            except BaseException:
                channel.close()
                raise

    def _request(
        self,
        channel: Channel,
        entry: str,
        environment: Mapping[str, str],
        connection: socket.socket,
    ) -> asyncio.Future[Child]:
        answer: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        command = Fork(number=next(self._numbers), entry=entry, environment=dict(environment))
        try:
            if self._control is None:
                raise ConnectionError("there is no fork server")
            # Small, seldom and soon read: it always fits into the socket's buffer.
            socket.send_fds(self._control, [encode(command)], [connection.fileno()])
        except OSError as error:
            answer.set_exception(error)
        else:
            self._forking[command.number] = channel, answer
        return answer

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        ever_up = False
        while True:
            was_up, status = await self._run()
            ever_up |= was_up
            if not ever_up:
                raise StartFailed(
                    f"the fork server ended with status {status} before it was ready; "
                    "standard error says why"
                )
            log.error("the fork server ended; another takes its place", extra={"status": status})
            await asyncio.sleep(pause)
            pause = _FIRST_PAUSE if was_up else min(2 * pause, _LONGEST_PAUSE)

    async def _run(self) -> tuple[bool, int]:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working folder may hold a module of any name
                "-m",
                _MODULE,
                str(theirs.fileno()),
                *self._preload,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # out of reach of a terminal's ctrl-c
                env=os.environ | _ENVIRONMENT,
            )
        channel = await Channel.over(ours)
        self._control = ours
        try:
            while message := await channel.receive():
                self._handle(message)
        finally:
            was_up = self._up.is_set()
            self._up.clear()
            self._control = None
            channel.close()
            self._forget()
            status = await _wait(self._process)
            self._process = None
        return was_up, status

    def _handle(self, message: AnyMessage) -> None:
        match message:
            case Up():
                self._up.set()
            case Forked():
                channel, answer = self._forking.pop(message.number)
                child = self._children[message.pid] = Child(message.pid, channel)
                if answer.done():  # nobody waits any more
                    channel.close()
                else:
                    answer.set_result(child)
            case Exited():
                self._children.pop(message.pid).note_exit(message.status)
            case _:
                raise TypeError(f"a fork server cannot say {message.kind}")

    def _forget(self) -> None:
        for child in self._children.values():
            child.note_exit(None)
        self._children.clear()
        for _, answer in self._forking.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the fork server died"))
        self._forking.clear()


async def _wait(process: asyncio.subprocess.Process) -> int:
    try:
        async with asyncio.timeout(_EXIT_TIME):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
