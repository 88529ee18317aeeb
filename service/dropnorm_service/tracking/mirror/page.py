"""MLflow's server on the mirror's store; `dropnorm ui` goes on as this."""

from __future__ import annotations

import runpy
import sys

from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.mirror.store import open_store
from dropnorm_service.tracking.ui import parse, server_arguments


def main() -> None:
    """Open the store as a mirror process does, then go on as `mlflow server`."""
    config, port = parse()
    try:
        # The server would make the tables of a new database too, but not one at a time with the mirror.
        open_store(config.tracking_uri, config.artifact_root, config.store_lock)
    except MlflowUnavailable as error:
        sys.exit(f"dropnorm ui: {error}")
    sys.argv = ["mlflow", *server_arguments(config, port=port)]
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
