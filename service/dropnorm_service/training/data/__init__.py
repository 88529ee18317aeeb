"""Data sets: where they come from, how they are read, split and scaled."""

from dropnorm_service.training.data.cache import DatasetCache
from dropnorm_service.training.data.catalog import CATALOG
from dropnorm_service.training.data.download import DataUnavailable
from dropnorm_service.training.data.info import DatasetInfo
from dropnorm_service.training.data.ranges import ValueRange
from dropnorm_service.training.data.split_data import (
    EXAMPLES,
    Dataset,
    Split,
    SplitData,
    raw_splits,
    split,
)
from dropnorm_service.training.data.splits import summarize
from dropnorm_service.training.data.standardization import Standardization
from dropnorm_service.training.data.uploads import UploadLimits
from dropnorm_service.training.data.uploads import inspect as inspect_upload

__all__ = [
    "CATALOG",
    "EXAMPLES",
    "DataUnavailable",
    "Dataset",
    "DatasetCache",
    "DatasetInfo",
    "Split",
    "SplitData",
    "Standardization",
    "UploadLimits",
    "ValueRange",
    "inspect_upload",
    "raw_splits",
    "split",
    "summarize",
]
