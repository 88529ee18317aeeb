"""MLflow's page on the mirror's store: `python -m dropnorm_service.tracking.ui`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dropnorm_service.tracking.config import TrackingConfig

DEFAULT_PORT = 5000

_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for language models: several processes more
}


def ui_command(config: TrackingConfig, *, port: int = DEFAULT_PORT) -> list[str]:
    """The command that serves the page on this machine only, until it is interrupted.

    Args:
        config: the MLflow store; not one of a tracking server, which serves a page itself.
        port: where to listen on 127.0.0.1.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", config.tracking_uri]
    if config.artifact_root is not None:
        command += ["--default-artifact-root", config.artifact_root.as_uri()]
    return command


def page_url(server: str) -> str:
    """The page to begin with on a tracking server: its experiments, shown as model training."""
    return f"{server.rstrip('/')}/#/experiments?workflowType=machine_learning"


def ui_environment() -> dict[str, str]:
    """The environment of that command: this one, without telemetry."""
    return os.environ | _ENVIRONMENT


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page, or say where it is."""
    parser = argparse.ArgumentParser(prog="dropnorm ui", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="data folder of the service")
    parser.add_argument("--tracking-uri", help="MLflow tracking URI; absent: the data folder's own")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port on 127.0.0.1")
    options = parser.parse_args(arguments)
    config = TrackingConfig.resolve(options.data_dir, options.tracking_uri)
    if config.remote:
        print(f"MLflow's page is at {page_url(config.tracking_uri)}")
        return
    page = page_url(f"http://127.0.0.1:{options.port}")
    print(f"MLflow's page: {page} (Ctrl-C ends it)", flush=True)
    command = ui_command(config, port=options.port)
    os.execve(command[0], command, ui_environment())  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
