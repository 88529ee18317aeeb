"""MLflow's page on the mirror's store: `python -m dropnorm_service.tracking.ui`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dropnorm_service.redaction import hold_secrets
from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.errors import UnsupportedTrackingUri

DEFAULT_PORT = 5000

# A URI may have a password, and command lines are there for all to read.
_URI_VARIABLE = "DROPNORM_MLFLOW_TRACKING_URI"

_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # for language models: several processes more
    "PYTHONSAFEPATH": "1",  # `-P` for the processes that the server starts
}


def server_arguments(config: TrackingConfig, *, port: int = DEFAULT_PORT) -> list[str]:
    """The arguments of `mlflow` that serve the page on this machine only, until it is interrupted.

    Args:
        config: the MLflow store; not one of a tracking server, which serves a page itself.
        port: where to listen on 127.0.0.1.
    """
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # uvicorn puts the working folder on the path unless it is given another.
    arguments += ["--uvicorn-opts", f"--app-dir {os.devnull}"]
    arguments += ["--backend-store-uri", config.tracking_uri]
    if config.artifact_root is not None:
        arguments += ["--default-artifact-root", config.artifact_root.as_uri()]
    return arguments


def page_url(server: str) -> str:
    """The page to begin with on a tracking server: its experiments, shown as model training."""
    return f"{server.rstrip('/')}/#/experiments?workflowType=machine_learning"


def server_environment() -> dict[str, str]:
    """The environment of the server: this one, without telemetry."""
    return os.environ | _ENVIRONMENT


def parse(arguments: Sequence[str] | None = None) -> tuple[TrackingConfig, int]:
    """The store and the port that a command line names; ends the process when it names none that can be.

    Args:
        arguments: the command line; absent: the process's own.
    """
    parser = argparse.ArgumentParser(prog="dropnorm ui", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="data folder of the service")
    parser.add_argument(
        "--tracking-uri",
        default=os.environ.get(_URI_VARIABLE),
        help=f"MLflow tracking URI, one with a password in {_URI_VARIABLE}; absent: the data folder's own",
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port on 127.0.0.1")
    if hold_secrets(sys.argv[1:] if arguments is None else arguments):
        parser.error(
            f"the command line has a password, and everybody on this machine can read it there; set {_URI_VARIABLE}"
        )
    options = parser.parse_args(arguments)
    try:
        return TrackingConfig.resolve(options.data_dir, options.tracking_uri), options.port
    except UnsupportedTrackingUri as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page, or say where it is."""
    config, port = parse(arguments)
    if config.remote:
        print(f"MLflow's page is at {page_url(config.tracking_uri)}")
        return
    page = page_url(f"http://127.0.0.1:{port}")
    print(f"MLflow's page: {page} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-P", "-m", "dropnorm_service.tracking.mirror.page"]
    command += ["--data-dir", str(config.folder), "--port", str(port)]
    environment = server_environment() | {_URI_VARIABLE: config.tracking_uri}
    os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter


if __name__ == "__main__":
    main()
