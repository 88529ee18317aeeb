"""What the tests fork instead of workers: small processes, each with one habit."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from dropnorm_service.workers.frames import encode
from dropnorm_service.workers.messages import End, Trace


def tell(connection: socket.socket, **facts: object) -> None:
    connection.sendall(encode(Trace(text=json.dumps(facts))))


def introduce(connection: socket.socket) -> None:
    """Say what a forked process finds, and wait for the other side to close."""
    inherited = {}
    for number in os.listdir("/proc/self/fd"):
        if int(number) > 2:
            with contextlib.suppress(FileNotFoundError):  # the folder that is being listed
                inherited[number] = os.readlink(f"/proc/self/fd/{number}")
    tell(
        connection,
        environment=os.environ["ROOM"],
        descriptors=inherited,
        own=connection.fileno(),
        group=os.getpgid(0),
        pid=os.getpid(),
        ignores_interrupt=signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        threads=threading.active_count(),
    )
    connection.recv(1)


def exit_with_3(connection: socket.socket) -> None:
    os._exit(3)


def fail(connection: socket.socket) -> None:
    raise ValueError("a habit of this child")


def hang(connection: socket.socket) -> None:
    tell(connection)
    time.sleep(3600)


def hang_silently(connection: socket.socket) -> None:
    time.sleep(3600)


def compute_for_a_while(connection: socket.socket) -> None:
    """A single operation of some seconds, in which nothing can be said."""
    end = time.process_time() + 2.5
    while time.process_time() < end:
        sum(range(1000))
    connection.sendall(encode(End()))


def compute_for_ever(connection: socket.socket) -> None:
    while True:
        sum(range(1000))


def let_a_child_compute(connection: socket.socket) -> None:
    """As a compiler does that works in processes of its own."""
    program = "import time\nwhile time.process_time() < 2.5: sum(range(1000))"
    subprocess.run([sys.executable, "-c", program], check=True)
    connection.sendall(encode(End()))


def compute_and_then_sleep(connection: socket.socket) -> None:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    time.sleep(3600)


def with_a_child_of_its_own(connection: socket.socket) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    tell(connection, child=child.pid)
    time.sleep(3600)


def chatter(connection: socket.socket) -> None:
    """Say far more than anybody reads at once."""
    for number in range(5000):
        tell(connection, number=number, padding="x" * 1000)


def babble(connection: socket.socket) -> None:
    """Say what is no message."""
    connection.sendall((5).to_bytes(4, "big") + b"[1,2]")
    connection.recv(1)


def print_much(connection: socket.socket) -> None:
    """What libraries do: to standard output and standard error, in any form."""
    print("one line", flush=True)
    print('{"level": "error", "message": "forged"}', file=sys.stderr, flush=True)
    os.write(2, b"\xff not UTF-8\r\n\n" + b"long" * 10_000)


def grow(connection: socket.socket) -> None:
    """Take more and more memory, as something does that no limit of the process stops."""
    held = []
    while True:
        held.append(bytearray(b"x") * 2**23)
        time.sleep(0.005)
