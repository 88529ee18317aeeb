"""A mirror process: reads setup and batches from standard input, answers on standard output."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, Protocol

from dropnorm_service.log_context import fields_of
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import (
    Batch,
    Done,
    LogRecord,
    Message,
    Progress,
    Ready,
    Role,
    Setup,
    Unavailable,
    registry_requests,
)

_NICENESS = 10  # training comes first

# What has been acknowledged must be there, so nothing is written behind our back.
# Nor is anything sent again behind it: a run whose answer got lost would be made twice.
_REQUIRED = {"MLFLOW_ENABLE_ASYNC_LOGGING": "false", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

# The feed's own retries do the waiting, so that a call of a dead server returns soon.
_DEFAULTS = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

_PROGRESS_INTERVAL = 1.0
_MAX_TEXT_LENGTH = 8000  # the server reads lines up to 64 KiB


class Recorder(Protocol):
    """Writes batches to MLflow."""

    def record(self, batch: Batch) -> Done:
        """Write a batch; what could not be written of single jobs.

        Raises:
            MlflowUnavailable: the batch is to be recorded again later.
        """


Answer = Callable[[bytes], Message]
"""A line from the server -> the reply."""


class Replies(logging.Handler):
    """The way back to the server; log records take it too."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(logging.INFO)
        self._stream = stream
        self._writing = threading.Lock()
        self._said = 0.0
        self.setFormatter(logging.Formatter("%(message)s"))

    def send(self, message: Message) -> None:
        """Send one line."""
        with self._writing:
            self._stream.write(message.model_dump_json().encode() + b"\n")
            self._stream.flush()

    def progress(self) -> None:
        """Say that something is done of what takes long, once a second."""
        if time.monotonic() - self._said >= _PROGRESS_INTERVAL:
            self._said = time.monotonic()
            self.send(Progress())

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        self.send(
            LogRecord(
                level=record.levelno,
                logger=record.name,
                message=self.format(record)[:_MAX_TEXT_LENGTH],
                job=str(fields_of(record).get("job", "")),
            )
        )


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the pipe
    replies = Replies(_private_stdout())
    logging.basicConfig(level=logging.WARNING, handlers=[replies])
    logging.getLogger("dropnorm_service").setLevel(logging.INFO)
    # The guard reports what is retried in vain.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # What MLflow and torch have to say to developers is no news to an operator.
    warnings.simplefilter("ignore")
    os.environ.update(_DEFAULTS | os.environ | _REQUIRED)
    try:
        _serve(sys.stdin.buffer, replies)
    except BrokenPipeError:
        os._exit(1)  # the server is gone, and there is nobody to tell
    except Exception:
        logging.getLogger(__name__).exception("cannot go on")
        sys.exit(1)


def _serve(lines: BinaryIO, replies: Replies) -> None:
    answer: Answer | None = None
    for line in lines:
        try:
            if answer is None:
                answer = _open(Setup.model_validate_json(line), replies)
                replies.send(Ready())
            else:
                replies.send(answer(line))
        except MlflowUnavailable as error:
            replies.send(Unavailable(reason=str(error)[:_MAX_TEXT_LENGTH]))


def _open(setup: Setup, replies: Replies) -> Answer:
    # MLflow is imported only here, once the environment tells it how to behave.
    _wait_for_predecessor(setup.lock_file)
    if setup.role is Role.ARTIFACTS:
        os.nice(_NICENESS)
    from dropnorm_service.tracking.mirror.store import open_store

    client = open_store(setup.tracking_uri, setup.artifact_root, setup.store_lock)
    if setup.role is Role.ARTIFACTS:
        from dropnorm_service.tracking.mirror.artifacts import ArtifactRecorder

        return partial(_record, ArtifactRecorder(client, replies.progress))

    if setup.role is Role.REGISTRY:
        from dropnorm_service.tracking.mirror.registry import Registry

        registry = Registry(client)
        return lambda line: registry.answer(registry_requests.validate_json(line))

    from dropnorm_service.tracking.mirror.runs import RunRecorder

    os.nice(_NICENESS)  # not sooner: the first job's run waits for it
    recorder = RunRecorder(client, setup.artifact_root, replies.send, replies.progress)
    return partial(_record, recorder)


def _record(recorder: Recorder, line: bytes) -> Message:
    return recorder.record(Batch.model_validate_json(line))


@cache  # a store is opened again after a failure, and a second lock would wait for the first
def _wait_for_predecessor(lock_file: Path) -> None:
    """Let the process of a server that was killed finish what it does, so that no two write at a time."""
    lock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Left open: the lock is held until this process ends.
    fcntl.flock(os.open(lock_file, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)


def _private_stdout() -> BinaryIO:
    """Standard output for replies alone; what others print goes to standard error."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return stream


if __name__ == "__main__":
    main()
