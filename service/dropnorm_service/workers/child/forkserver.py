"""A process that imports torch once and forks others from itself: `python -m ... FD MODULE...`.

multiprocessing has a fork server too, but its children run the parent's `__main__` again, and
starting one blocks the caller. This one knows nothing of what it forks. It stays single-threaded, runs no
parallel operation and no backward pass, and never touches CUDA, since none of these survive a fork.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from dropnorm_service.workers.frames import Frames, decode, encode
from dropnorm_service.workers.messages import (
    Exited,
    Fork,
    Forked,
    ForkRefused,
    Message,
    Ping,
    Pong,
    Up,
)

# Raised for the forked alone: where memory runs out, the kernel shall end a worker, not the server.
_OOM_SCORE = b"500"
# Seconds that the forked have to end by themselves when their server is gone.
_LAST_MOMENT = 3.0


class ForkServer:
    """Obeys one connection until it closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._frames = Frames()
        self._descriptors: deque[int] = deque()
        self._children: set[int] = set()
        # Python runs signal handlers between two bytecodes, so SIGCHLD alone would not end select().
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Fork and reap until the server goes away, then see to it that what was forked goes too."""
        # A terminal's ctrl-c, and what an init system sends to all of a service, are for the server, which lets
        # workers write their checkpoints. The forked inherit it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake)
        self._send(Up())
        while True:
            waited: list[Any] = [self._control, self._woken]
            readable, _, _ = select.select(waited, [], [])
            if self._woken in readable:
                self._reap()
            if self._control in readable and not self._obey():
                break
        self._leave()

    def _leave(self) -> None:
        """Let the forked, who notice as well, write their last checkpoints; end those that take too long for it, or are
        stopped, since a server that comes back will want their jobs and their devices."""
        deadline = time.monotonic() + _LAST_MOMENT
        while self._children and (left := deadline - time.monotonic()) > 0.0:
            select.select([self._woken], [], [], left)
            self._reap()
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _obey(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, 2**16, 16)
        self._descriptors.extend(descriptors)
        for body in self._frames.feed(data):
            match decode(body):
                case Fork() as command:
                    self._fork(command, self._descriptors.popleft())
                case Ping():
                    self._send(Pong())
                case other:
                    raise TypeError(f"a fork server cannot obey {other.kind}")
        return bool(data)

    def _fork(self, command: Fork, descriptor: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # no process or memory left
            os.close(descriptor)
            self._send(ForkRefused(number=command.number, reason=str(error)))
            return
        if pid == 0:
            self._become(command, descriptor)
        os.close(descriptor)
        self._children.add(pid)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # here and there, whoever comes first
        self._send(Forked(number=command.number, pid=pid))

    def _become(self, command: Fork, descriptor: int) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control.detach(), self._woken, self._wake, *self._descriptors):
                os.close(inherited)
            _volunteer_for_oom()
            _limit_memory(command.memory_limit)
            os.environ.update(command.environment)
            resolve(command.entry)(socket.socket(fileno=descriptor))
            status = 0
        except BaseException:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):  # the server that reads them is gone
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)  # no exit handlers: they belong to the fork server

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            # What it started goes too, as a compiler that would write where the next attempt reads. Before it is reaped
            # its number cannot mean another's group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._children.discard(pid)
            self._send(Exited(pid=pid, status=os.waitstatus_to_exitcode(status)))

    def _send(self, message: Message) -> None:
        with contextlib.suppress(ConnectionError):  # the next read finds the connection closed
            self._control.sendall(encode(message))


def resolve(entry: str) -> Callable[[socket.socket], None]:
    """The function that `package.module:function` names."""
    module, _, name = entry.partition(":")
    function: Callable[[socket.socket], None] = getattr(importlib.import_module(module), name)
    return function


def _volunteer_for_oom() -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, _OOM_SCORE)
        os.close(descriptor)


def _limit_memory(limit: int) -> None:
    # Of data, not of addresses: what is reserved and never used counts for the latter.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or limit < hard):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main() -> None:
    """Import the modules named on the command line, then serve the connection given there."""
    faulthandler.enable()
    descriptor, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the forked shall not copy pages only to find that nothing on them is garbage
    ForkServer(socket.socket(fileno=int(descriptor))).serve()


if __name__ == "__main__":
    main()
