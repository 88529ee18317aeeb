"""MLflow's server and page as a process of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropnorm_service.tracking import TrackingConfig


@contextmanager
def mlflow_server(config: TrackingConfig, port: int, log: Path) -> Iterator[str]:
    """Serve a store as `dropnorm ui` does; yields the URL, ends with its whole process group."""
    command = [sys.executable, "-m", "dropnorm_service.tracking.ui", "--port", str(port)]
    command += ["--data-dir", str(config.folder), "--tracking-uri", config.tracking_uri]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:  # noqa: S310 - our own URL
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
