"""Where the data sets of a service are, for its processes."""

from __future__ import annotations

from dropnorm_service.training import DatasetCache
from dropnorm_service.workers.messages import DataSettings


def dataset_cache(settings: DataSettings) -> DatasetCache:
    """The data sets that the settings lead to."""
    return DatasetCache(
        settings.cache,
        datasets_dir=settings.folder,
        mirrors=settings.mirrors,
        uploads=settings.uploads,
    )
