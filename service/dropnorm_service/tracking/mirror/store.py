"""Opening the MLflow store."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from dropnorm_service.tracking.errors import MlflowUnavailable


def open_store(tracking_uri: str, artifact_root: Path | None, lock: Path) -> MlflowClient:
    """A client of the store. The tables of a new database are made here, which takes seconds.

    Args:
        tracking_uri: the store.
        artifact_root: where a new database keeps the files of its first experiment; None: the store says so itself.
        lock: file that all who open the store hold meanwhile.

    Raises:
        MlflowUnavailable: the store cannot be opened.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if artifact_root is not None:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            with _held(lock):
                # MLflow makes an experiment `Default` in a new database; this tells it where that one keeps its files.
                SqlAlchemyStore(tracking_uri, artifact_root.as_uri())
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)
    except Exception as error:  # MLflow raises those of its database drivers too
        raise MlflowUnavailable(f"cannot open the store: {error}") from error


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
