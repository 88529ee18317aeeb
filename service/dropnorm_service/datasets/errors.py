"""How a request about data sets can fail, besides what is wrong with the request itself."""

from __future__ import annotations

from collections.abc import Sequence

from dropnorm_service.jobs.errors import ServiceError


class DatasetNotFound(ServiceError):
    """There is no such data set."""

    reason = "DATASET_NOT_FOUND"

    def __init__(self, dataset_id: str) -> None:
        name = f"datasets/{dataset_id}"
        super().__init__(f"There is no uploaded data set {name}.", {"dataset": name})


class DatasetAlreadyExists(ServiceError):
    """The name belongs to another file, or to another user."""

    reason = "DATASET_ALREADY_EXISTS"

    def __init__(self, dataset_id: str) -> None:
        name = f"datasets/{dataset_id}"
        super().__init__(
            f"The name {name} is taken, and data sets never change; choose another, or delete it first if it is yours.",
            {"dataset": name},
        )


class DatasetInUse(ServiceError):
    """Jobs that have not ended use the data set."""

    reason = "DATASET_IN_USE"

    def __init__(self, dataset_id: str, jobs: Sequence[str], others: int) -> None:
        """
        Args:
            dataset_id: last part of its name.
            jobs: names of the jobs that the caller sees.
            others: how many use it besides, which are not the caller's to know.
        """
        name = f"datasets/{dataset_id}"
        users = [", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")]
        users += [f"{others} of other users' jobs"] if others else []
        super().__init__(
            f"{name} is used by {' and '.join(filter(None, users))}; wait for their end, or have them cancelled.",
            {"dataset": name, **({"training_job": jobs[0]} if jobs else {})},
        )


class UploadTooLarge(ServiceError):
    """The file, or all files together, would be larger than the service allows."""

    reason = "UPLOAD_TOO_LARGE"


class UploadInProgress(ServiceError):
    """Another call uploads the same file now."""

    reason = "UPLOAD_IN_PROGRESS"


class UploadStalled(ServiceError):
    """An upload has sent nothing for too long."""

    reason = "UPLOAD_STALLED"


class PathNotAllowed(ServiceError):
    """The path is in no folder that data sets may be imported from."""

    reason = "PATH_NOT_ALLOWED"


class InspectionFailed(ServiceError):
    """Nobody could say what is in a file."""

    reason = "INSPECTION_FAILED"


DATASET_ERRORS: tuple[type[ServiceError], ...] = (
    DatasetNotFound,
    DatasetAlreadyExists,
    DatasetInUse,
    UploadTooLarge,
    UploadInProgress,
    UploadStalled,
    PathNotAllowed,
    InspectionFailed,
)
"""Every class a caller can meet; the edge must know a status for each."""
