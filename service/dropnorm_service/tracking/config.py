"""Where MLflow's store is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dropnorm_service.tracking.errors import UnsupportedTrackingUri

_SERVERS = frozenset({"http", "https"})
_DATABASES = frozenset({"sqlite", "postgresql", "mysql", "mssql"})
_FILES = frozenset({"", "file"})
_FILES_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # MLflow's own switch: it keeps that store for old runs


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The MLflow store that jobs are mirrored to."""

    folder: Path
    """Folder of the mirror's own lock files, in the service's data folder."""
    tracking_uri: str
    """MLflow tracking URI: `http(s)://` of a tracking server, or a database such as `sqlite:///`."""
    artifact_root: Path | None = None
    """Where a database's new experiments keep their files; absent: where the store says."""

    @classmethod
    def resolve(cls, data_dir: Path, tracking_uri: str | None = None) -> TrackingConfig:
        """The store to use; without a URI, SQLite and a folder in the service's data folder.

        Raises:
            UnsupportedTrackingUri: MLflow has no store there.
        """
        data_dir = data_dir.absolute()
        uri = tracking_uri or f"sqlite:///{data_dir / 'mlflow.db'}"
        _check(uri)
        # Other stores have their own root. A bare database has none: its client would take the working directory.
        bare = _kind(uri) in _DATABASES
        return cls(
            folder=data_dir,
            tracking_uri=uri,
            artifact_root=data_dir / "mlflow-artifacts" if bare else None,
        )

    @property
    def store_lock(self) -> Path:
        """File held by whoever opens the store: two that make the tables of one database break it."""
        return self.folder / "mlflow-store.lock"

    @property
    def remote(self) -> bool:
        """A tracking server that others run, with a page of its own."""
        return _kind(self.tracking_uri) in _SERVERS


def _kind(uri: str) -> str:
    """The URI's scheme without a database's driver: `postgresql+psycopg2://` -> `postgresql`."""
    scheme, colon, _ = uri.partition(":")
    return scheme.partition("+")[0].lower() if colon else ""


def _check(uri: str) -> None:
    kind, shown = _kind(uri), re.sub(r"//[^/@]*@", "//...@", uri)  # without a password
    hint = "name a database, such as sqlite:////folder/mlflow.db, or a tracking server's http(s)://"
    if kind in _FILES:
        if os.environ.get(_FILES_ALLOWED, "").lower() not in ("true", "1"):
            raise UnsupportedTrackingUri(
                f"the MLflow tracking URI {shown} is a folder, and MLflow keeps new runs in none: {hint}, "
                f"or set {_FILES_ALLOWED}=true in the environment, with which MLflow takes a folder still"
            )
    elif kind not in _SERVERS | _DATABASES:
        known = ", ".join(sorted(_SERVERS | _DATABASES))
        raise UnsupportedTrackingUri(
            f"the MLflow tracking URI {shown} is of a kind that jobs cannot be written to (not {known}): {hint}"
        )
