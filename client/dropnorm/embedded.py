"""`dropnorm.local()`: a service of one's own, started with the program and stopped with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from dropnorm import _calls
from dropnorm.client import Client
from dropnorm.errors import StartFailed

DEFAULT_DATA_DIR = "dropnorm-data"

_START_TIMEOUT = 120.0  # torch takes long to load where a disk is slow
_OF_OTHERS = ("DROPNORM_AUTHENTICATION", "DROPNORM_TLS", "DROPNORM_TOKEN")
_GRACE = 30.0  # the service's own default
_STOP_MARGIN = 15.0
_LAST_LINES = 15

# One of each kind of library that dropnorm[service] brings and the bare client does not.
_NEEDED = ("dropnorm_service", "mlflow", "pydantic_settings", "sqlalchemy", "torch")


class LocalService(Client):
    """A Client with the service it talks to, which runs as a process of its own on a free port of this machine.

    Closing it, leaving its `with` block, or the end of the program stops the service: running jobs write a checkpoint
    and go on when a service is started on the same data folder again. Its log is in `log_file`.

    Attributes:
        data_dir: folder of the store, models, data cache and MLflow's store.
        log_file: the service's log.
    """

    def __init__(
        self,
        data_dir: str | Path = DEFAULT_DATA_DIR,
        *,
        timeout: float = _calls.DEFAULT_TIMEOUT,
        **settings: Any,
    ) -> None:
        require_service()
        self.data_dir = Path(data_dir).expanduser().absolute()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_file = self.data_dir / "service.log"
        self._process = _start(["--data-dir", str(self.data_dir), *_flags(settings)], self.log_file)
        patience = float(settings.get("grace") or _GRACE) + _STOP_MARGIN
        self._stop = weakref.finalize(
            self, _stop, self._process, patience
        )  # at the program's end too
        address = _address(self._process, self.log_file, self._stop)
        super().__init__(address, token="", tls=False, timeout=timeout)

    def close(self) -> None:
        """Close the connection and stop the service; waits until it has written what it must."""
        super().close()
        self._stop()


def local(
    data_dir: str | Path = DEFAULT_DATA_DIR,
    *,
    timeout: float = _calls.DEFAULT_TIMEOUT,
    **settings: Any,
) -> LocalService:
    """Start a service for this program alone, and connect to it: for notebooks, scripts and demos.

    Args:
        data_dir: where it keeps everything; jobs and MLflow runs are there again next time. One service at a time.
        timeout: seconds each call of the client may take.
        settings: settings of the service by name, `cpu_slots=2`; see `dropnorm serve --help`.

    Raises:
        StartFailed: it did not start; the message has the end of its log.
    """
    return LocalService(data_dir, timeout=timeout, **settings)


def require_service() -> None:
    """Make sure that the service's libraries are there.

    Raises:
        StartFailed: names those that are missing, and how to install them.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise StartFailed(
            "The service needs libraries that a client does without, and these are missing: "
            f"{', '.join(missing)}. Install them: pip install 'dropnorm[service]'"
        )


def _flags(settings: dict[str, Any]) -> list[str]:
    """`cpu_slots=2, tracking=False` -> `--cpu-slots 2 --no-tracking`."""
    flags = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            composed = isinstance(value, dict | list | tuple)
            text = json.dumps(value, default=os.fspath) if composed else str(value)
            flags += [f"--{flag}", text]
    return flags


def _start(flags: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-P",  # the working folder may hold a module of any name
        "-m",
        "dropnorm_service",
        "--port",
        "0",
        "--exit-with-parent",
        *flags,
    ]
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the program, which then stops the service in good order
        )


def _environment() -> dict[str, str]:
    """This program's, less what it says of other services: this one is for the program alone, in plain text."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS)}


def _address(
    process: subprocess.Popen[bytes], log_file: Path, stop: weakref.finalize[Any, Any]
) -> str:
    """The address that the service says on the first line of its standard output once it is serving."""
    assert process.stdout is not None
    try:
        line = _first_line(process.stdout, time.monotonic() + _START_TIMEOUT)
        return str(json.loads(line)["address"])
    except (TimeoutError, ValueError, KeyError) as error:
        if isinstance(error, TimeoutError):
            stop()
            what = f"was not serving after {_START_TIMEOUT:g} s"
        else:  # its output ended, a moment before the process itself does
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_MARGIN)
            stop()
            what = f"ended with exit status {process.returncode} before it was serving"
        raise StartFailed(
            f"The embedded service {what}. Its log, {log_file}, ends with:\n{_tail(log_file)}"
        ) from error
    except BaseException:  # Ctrl-C while waiting must not leave a process behind
        stop()
        raise


def _first_line(stream: IO[bytes], deadline: float) -> bytes:
    """The first line; shorter when the stream ended within it."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            raise TimeoutError
        piece = os.read(stream.fileno(), 1)
        if not piece:
            break
        line += piece
    return line


def _tail(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])


def _stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask the service to end, and make it when it takes longer than its own grace."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
