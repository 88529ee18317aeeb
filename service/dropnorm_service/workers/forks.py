"""The server's view of its fork server: a process that has torch loaded, and those forked from it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Self

from dropnorm_service.environment import worker_environment
from dropnorm_service.output import Output
from dropnorm_service.workers.channel import Channel
from dropnorm_service.workers.frames import encode
from dropnorm_service.workers.messages import (
    AnyMessage,
    Exited,
    Fork,
    Forked,
    ForkRefused,
    Ping,
    Pong,
    Up,
)
from dropnorm_service.workers.process import Child

_MODULE = "dropnorm_service.workers.child.forkserver"
_PRELOADED = ("dropnorm_service.workers.child.preload",)
# OpenBLAS starts its threads when numpy is imported, and threads do not survive a fork. Training
# leaves the computing to torch, whose threads are counted per slot.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_FIRST_PAUSE = 0.5
UNLIMITED = resource.RLIM_INFINITY
"""No limit on a process's memory but the system's own."""
_LONGEST_PAUSE = 10.0
_EXIT_TIME = 5.0
_ANSWER_TIME = 0.5

log = logging.getLogger(__name__)
_printed = logging.getLogger("dropnorm_service.workers.output")


class StartFailed(Exception):
    """The fork server ended before it was ready; its own messages are in the log."""


class _Pauses:
    """Seconds to wait between tries: each time twice as long, up to a limit."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    async def sleep(self) -> None:
        pause, self._next = self._next, min(2 * self._next, _LONGEST_PAUSE)
        await asyncio.sleep(pause)


class ForkServer:
    """Keeps a fork server running, as an async context manager.

    Should the fork server die, another takes its place, and the processes it had forked live on:
    they are connected to this process, and only the way in which they end remains unknown. While the
    system has no descriptors, processes or memory left, both it and its forks are tried again.
    """

    def __init__(self, preload: Sequence[str] = _PRELOADED) -> None:
        """`preload` names modules to import before anything is forked."""
        self._preload = tuple(preload)
        self.memory_limit = UNLIMITED
        """Bytes of memory that each process can get for which no other limit is given."""
        self._up = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._forking: dict[int, tuple[Channel, asyncio.Future[Child]]] = {}
        self._children: dict[int, Child] = {}
        self._pong: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._outputs: list[Output] = []
        self.restarts = 0
        """Fork servers that died and were replaced."""

    @property
    def pid(self) -> int | None:
        """Process id of the fork server that runs now."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        """Start.

        Raises:
            StartFailed: the fork server could not be started, or ended before it was ready.
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
        if self._process is not None and self._process.returncode is None:
            self._process.kill()  # it has nothing to lose, and a stopped one would not notice
        if self._keeper is not None:
            await _cancel(self._keeper)
        await asyncio.gather(*(output.close() for output in self._outputs))

    async def release(self) -> None:
        """Before the end: one that does not answer is killed, so that nobody waits for what it has to say.

        Nothing can be forked from then on.
        """
        if self._keeper is None or await self.answers(_ANSWER_TIME):
            return
        log.error("the fork server does not answer and is killed")
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await _cancel(self._keeper)

    async def answers(self, within: float) -> bool:
        """Whether the fork server is ready and answers within some seconds."""
        if self._control is None or not self._up.is_set():
            return False
        if self._pong is None:  # at most one is unanswered, so that none fill the connection
            self._pong = asyncio.get_running_loop().create_future()
            try:
                self._control.send(encode(Ping()))
            except OSError:
                self._pong = None
                return False
        pong = self._pong
        await asyncio.wait({pong}, timeout=within)
        return pong.done() and not pong.cancelled()

    async def fork(
        self, entry: str, environment: Mapping[str, str], *, memory_limit: int | None = None
    ) -> Child:
        """Fork a process that calls `entry`, `package.module:function`, with its connection.

        Waits for as long as there is no fork server, or nothing to make a process of.

        Args:
            entry: what it runs.
            environment: variables to set before that.
            memory_limit: bytes of memory that it can get of the system, or UNLIMITED; None: those of all.
        """
        pauses = _Pauses()
        while True:
            await self._up.wait()
            try:
                return await self._fork(entry, environment, memory_limit)
            except ConnectionError:
                pass  # the fork server died; the next one will do it
            except OSError as error:
                log.warning("no process can be forked now, will try again: %s", error)
                await pauses.sleep()

    async def _fork(
        self, entry: str, environment: Mapping[str, str], memory_limit: int | None
    ) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel.over(ours)
            command = Fork(
                number=next(self._numbers),
                entry=entry,
                environment=dict(environment),
                memory_limit=self.memory_limit if memory_limit is None else memory_limit,
            )
            answer = self._request(channel, command, theirs)
        try:
            return await answer
        except BaseException:
            channel.close()
            raise

    def _request(
        self,
        channel: Channel,
        command: Fork,
        connection: socket.socket,
    ) -> asyncio.Future[Child]:
        answer: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
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
        pauses = _Pauses()
        ever_up = False
        while True:
            was_up, end = await self._run()
            if was_up:
                ever_up, pauses = True, _Pauses()
            if not ever_up:
                raise StartFailed(f"the fork server {end} before it was ready")
            log.error("the fork server %s; another takes its place", end)
            self.restarts += 1
            await pauses.sleep()

    async def _run(self) -> tuple[bool, str]:
        """Run a fork server to its end: whether it was ready, and how it ended."""
        try:
            self._process, self._control, channel = await self._launch()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread to wait for it
            return False, f"could not be started ({error})"
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
        return was_up, f"ended with status {status}"

    async def _launch(self) -> tuple[asyncio.subprocess.Process, socket.socket, Channel]:
        output, printing = await Output.to(_printed)
        # One for each fork server; those of dead ones end with what they had forked.
        self._outputs = [each for each in self._outputs if not each.ended] + [output]
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the working folder may hold a module of any name
                    "-m",
                    _MODULE,
                    str(theirs.fileno()),
                    *self._preload,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=printing,
                    stderr=printing,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # out of reach of a terminal's ctrl-c
                    env=worker_environment() | _ENVIRONMENT,
                )
            except BaseException:
                ours.close()
                raise
            finally:
                os.close(printing)
        try:
            return process, ours, await Channel.over(ours)
        except BaseException:
            await _wait(process)
            raise

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
            case ForkRefused():
                _, answer = self._forking.pop(message.number)
                if not answer.done():
                    answer.set_exception(OSError(message.reason))
            case Pong():
                pong, self._pong = self._pong, None
                if pong is not None:
                    pong.set_result(None)
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
        if self._pong is not None:
            self._pong.cancel()
            self._pong = None


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
