"""Opening the MLflow store."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from dropnorm_service.durable import sync
from dropnorm_service.tracking.errors import MlflowUnavailable

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


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
                make = partial(SqlAlchemyStore, default_artifact_root=artifact_root.as_uri())
                if file := _new_file(tracking_uri):
                    _make_whole(file, make)
                make(tracking_uri)
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)
    except Exception as error:  # MLflow raises those of its database drivers too
        raise MlflowUnavailable(f"cannot open the store: {error}") from error


def _new_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite database that is still to be made; None: it is there, or is no file."""
    kind, _, rest = tracking_uri.partition(":///")
    name = rest.partition("?")[0]
    if kind != "sqlite" or name in ("", ":memory:"):
        return None
    file = Path(name)
    # An empty one is left to MLflow: this process may have it open, and would go on with what was replaced.
    return None if file.exists() else file


def _make_whole(file: Path, make: Callable[[str], SqlAlchemyStore]) -> None:
    """Make a database under another name first: MLflow makes table by table, and what a kill leaves it cannot mend."""
    draft = file.with_name(f".{file.name}.new")
    for left in (draft, draft.with_name(f"{draft.name}-journal")):
        left.unlink(missing_ok=True)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = make(f"sqlite:///{draft}")
    store.engine.dispose()
    sync(draft)
    draft.replace(file)
    sync(file.parent)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
