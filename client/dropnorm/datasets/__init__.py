"""Your own data sets: from arrays, tables, images and texts to a file that the service trains on."""

from dropnorm.datasets.aio import AsyncDatasets
from dropnorm.datasets.bundle import Bundle, write_bundle
from dropnorm.datasets.client import Datasets
from dropnorm.datasets.errors import InvalidData

__all__ = ["AsyncDatasets", "Bundle", "Datasets", "InvalidData", "write_bundle"]
