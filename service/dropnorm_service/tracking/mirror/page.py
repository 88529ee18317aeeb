"""MLflow's server on the mirror's store: `python -m dropnorm_service.tracking.mirror.page LOCK server ...`."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.mirror.store import open_store


def main(arguments: Sequence[str]) -> None:
    """Open the store as a mirror process does, then go on as `mlflow`.

    Args:
        arguments: the store's lock file, then those of `mlflow`.
    """
    lock, *command = arguments
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend-store-uri")
    parser.add_argument("--default-artifact-root", type=_path)
    store, _ = parser.parse_known_args(command)
    try:
        # The server makes the tables of a new database too, but without the lock.
        open_store(store.backend_store_uri, store.default_artifact_root, Path(lock))
    except MlflowUnavailable as error:
        sys.exit(f"dropnorm ui: {error}")
    sys.argv = ["mlflow", *command]
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)


def _path(uri: str) -> Path:
    return Path(url2pathname(urlparse(uri).path))


if __name__ == "__main__":
    main(sys.argv[1:])
