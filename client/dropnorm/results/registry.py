"""Registered models, as MLflow's model registry has them."""

from __future__ import annotations

from datetime import datetime

from dropnorm.results._base import ResultModel


class ModelVersion(ResultModel):
    """One version of a registered model. It stays when its job is deleted."""

    name: str
    """Resource name, `models/{id}@{version}`; an alias may stand for the number."""
    version: int
    """Number of the version, from 1."""
    aliases: tuple[str, ...] = ()
    """Aliases that mean this version."""
    training_job: str
    """Name of the training job that made it, `trainingJobs/{id}`."""
    mlflow_run_id: str
    """MLflow's id of the job's run."""
    sha256: str
    """SHA-256 (hex) of its spec, its data set and the sum of its weights, as they stand in its `model.json`: what tells
    it from others."""
    create_time: datetime
    """When it was registered."""


class Model(ResultModel):
    """A registered model: versions under one name."""

    name: str
    """Resource name, `models/{id}`."""
    versions: tuple[ModelVersion, ...] = ()
    """Its versions, the newest first; at most 1,000."""
    owner: str = "local"
    """User who made it."""
    shared: bool = False
    """Whether the project's other users may see and use it, but not change it."""

    @property
    def id(self) -> str:
        """The last part of the resource name."""
        return self.name.rpartition("/")[2]

    @property
    def aliases(self) -> dict[str, int]:
        """Every alias, and the version that it means."""
        return {alias: each.version for each in self.versions for alias in each.aliases}
