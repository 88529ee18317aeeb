"""Opening the MLflow store."""

from __future__ import annotations

import logging
from pathlib import Path

from mlflow import MlflowClient

from dropnorm_service.tracking.errors import MlflowUnavailable


def open_store(tracking_uri: str, artifact_root: Path | None) -> MlflowClient:
    """A client of the store. The tables of a new database are made here, which takes seconds.

    Raises:
        MlflowUnavailable: the store cannot be opened.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if artifact_root is not None:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            # MLflow makes an experiment `Default` in a new database; this tells it where that one keeps its files.
            SqlAlchemyStore(tracking_uri, artifact_root.as_uri())
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)
    except Exception as error:  # MLflow raises those of its database drivers too
        raise MlflowUnavailable(f"cannot open the store: {error}") from error
