"""Where MLflow's store is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The MLflow store that jobs are mirrored to."""

    folder: Path
    """Folder of the mirror's own lock files, in the service's data folder."""
    tracking_uri: str
    """MLflow tracking URI: `http(s)://` of a tracking server, or a database such as `sqlite:///`."""
    artifact_root: Path | None = None
    """Where new experiments keep their files; absent: where the tracking server says."""

    @classmethod
    def resolve(cls, data_dir: Path, tracking_uri: str | None = None) -> TrackingConfig:
        """The store to use; without a URI, SQLite and a folder in the service's data folder."""
        data_dir = data_dir.absolute()
        uri = tracking_uri or f"sqlite:///{data_dir / 'mlflow.db'}"
        # A tracking server has its own root. A bare database has none: its client would take the working directory.
        remote = uri.startswith(("http://", "https://"))
        return cls(
            folder=data_dir,
            tracking_uri=uri,
            artifact_root=None if remote else data_dir / "mlflow-artifacts",
        )

    @property
    def remote(self) -> bool:
        """A tracking server that others run, with a page of its own."""
        return self.tracking_uri.startswith(("http://", "https://"))
