"""The jobs' bench behind the real server."""

from __future__ import annotations

from pathlib import Path

from tests.service.datasets.folders import Folder
from tests.service.jobs.bench import Bench, BenchExporter, BenchPredictor

from dropnorm_service.api.places import CallLimits
from dropnorm_service.api.server import ApiServer
from dropnorm_service.jobs.authentication import Authenticator
from dropnorm_service.jobs.models import ModelService
from dropnorm_service.jobs.ports import Registry
from dropnorm_service.jobs.registered import RegisteredModels


def edge_of(
    bench: Bench,
    folder: Path,
    *,
    authenticator: Authenticator | None = None,
    uploads: Folder | None = None,
    registry: Registry | None = None,
    limits: CallLimits | None = None,
) -> ApiServer:
    """A server, not started."""
    models = ModelService(
        bench.jobs,
        BenchPredictor(),
        BenchExporter(),
        RegisteredModels(bench.jobs, registry, bench.store.models, folder / "models"),
    )
    datasets = (uploads or Folder(folder / "uploads")).datasets
    return ApiServer(bench.jobs, datasets, models, authenticator, limits=limits)
