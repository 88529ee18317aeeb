"""Every way a request can fail, in sentences for the caller. The edge maps each class to a status.

ServiceError
+-- InvalidRequest          fields are wrong; each is named
|   +-- InvalidListRequest  page size, page token, filter or order
|   +-- CannotFit           more GPUs than there are
|   +-- RequestIdReused     the request_id was accepted for something else
|   +-- TooManyInputs       what a model says of them does not fit into an answer
+-- JobNotFound
+-- NoSuchService           the health of something is asked that is no service
+-- JobAlreadyExists
+-- NotOwner                another user's, who shares it, and only he changes it
+-- LimitReached            the user, or the service, has as much as it may
+-- WrongState              the job's state does not allow it
+-- ModelUnusable           the job's model is not there, or damaged
+-- ModelNotFound           no registered model, version or alias of that name
+-- ModelAlreadyExists      the id of a registered model is another user's
+-- NoRegistry              the service runs without MLflow
+-- ExportNotFound
+-- CannotExport            the model does not go into that form
|   +-- ExportDeviates      it does, but not exactly enough
+-- DiskFull                there was no room for what was to be written
+-- PlannerUnavailable
+-- PredictorUnavailable
+-- ExporterUnavailable
+-- RegistryUnavailable
+-- StoreUnavailable
+-- ShuttingDown
+-- Unauthenticated         no valid token
+-- RoleRequired            the caller's role does not allow it
+-- MethodUndeclared        nobody has said who may call it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from dropnorm.results import State
from dropnorm.spec import InvalidSpecError, Problem
from dropnorm_service.jobs.callers import Caller, Role


class ServiceError(Exception):
    """A request that cannot be served.

    Attributes:
        reason: what kind of failure, UPPER_SNAKE and stable; one per class.
        message: what is wrong and what to do, for people.
        metadata: the values the message speaks of, by name.
        problems: the wrong fields, each with its path from the request's root; mostly none.
        retry_after: seconds after which it is worth trying again; None: that is not known, or never.
    """

    reason: ClassVar[str]
    problems: tuple[Problem, ...] = ()
    retry_after: float | None = None

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidRequest(ServiceError):
    """One or more fields of the request are wrong; `problems` names each."""

    reason = "INVALID_REQUEST"

    def __init__(
        self, problems: Sequence[Problem], metadata: Mapping[str, str] | None = None
    ) -> None:
        self.problems = tuple(problems)
        texts = (f"{field}: {text}" if field else text for field, text in self.problems)
        super().__init__("; ".join(texts), metadata)

    @classmethod
    def of(cls, field: str, message: str) -> Self:
        """One field is wrong."""
        return cls([Problem(field, message)])

    @classmethod
    def from_spec(cls, error: InvalidSpecError, prefix: str) -> Self:
        """The problems of a spec that stands at `prefix` in the request."""
        return cls([problem.below(prefix) for problem in error.problems])


class InvalidListRequest(InvalidRequest):
    """A page of jobs cannot be had: page size, page token, filter or order is wrong."""

    reason = "INVALID_LIST_REQUEST"


class CannotFit(InvalidRequest):
    """The job asks for more than the service has, so that it would wait for ever."""

    reason = "CANNOT_FIT"


class RequestIdReused(InvalidRequest):
    """The request_id was accepted before, for a request with other content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str, job_id: str) -> None:
        name = f"trainingJobs/{job_id}"
        text = (
            f"{request_id} was used for another request, which made {name}; "
            "use a new request_id for each new request"
        )
        super().__init__(
            [Problem("request_id", text)], {"request_id": request_id, "training_job": name}
        )


class TooManyInputs(InvalidRequest):
    """What a model says of so many inputs does not fit into an answer; `limit` in the metadata is how many do."""

    reason = "TOO_MANY_INPUTS"

    def __init__(self, problems: Sequence[Problem], limit: int) -> None:
        super().__init__(problems, {"limit": str(limit)})


class JobNotFound(ServiceError):
    """There is no such job, or it is deleted."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        name = f"trainingJobs/{job_id}"
        super().__init__(f"There is no training job {name}.", {"training_job": name})


class NoSuchService(ServiceError):
    """The health of something is asked that is no service here."""

    reason = "NO_SUCH_SERVICE"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The health service knows no service {name[:200]}; ask for the empty name, or for `liveness`.",
            {"service": name[:200]},
        )


class JobAlreadyExists(ServiceError):
    """The id that the caller chose is taken, perhaps by a deleted job that is not purged yet."""

    reason = "JOB_ALREADY_EXISTS"

    def __init__(self, job_id: str) -> None:
        name = f"trainingJobs/{job_id}"
        super().__init__(
            f"The id {job_id} is taken, perhaps by a job deleted a moment ago; choose another, "
            "or give none and the service makes one.",
            {"training_job": name},
        )


class NotOwner(ServiceError):
    """What is asked for is shared by another user, and only he and admins change it."""

    reason = "NOT_OWNER"

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(
            f"{name} belongs to {owner}, who shares it: you may see and use it, and only {owner} or an admin may "
            "change it.",
            {"resource": name, "owner": owner},
        )


class LimitReached(ServiceError):
    """Somebody has as much of something as the service's settings allow.

    Attributes:
        subject: who has: `user:NAME`, or `service`, which is all users together.
        retry_after: as in `ServiceError`; None: not before something is given up.
    """

    reason = "LIMIT_REACHED"

    def __init__(
        self, message: str, *, setting: str, limit: int, subject: str, retry_after: float | None
    ) -> None:
        super().__init__(message, {"setting": setting, "limit": str(limit)})
        self.subject = subject
        self.retry_after = retry_after


class WrongState(ServiceError):
    """The job's state does not allow what is asked."""

    reason = "WRONG_STATE"

    def __init__(self, name: str, state: State, message: str) -> None:
        super().__init__(message, {"training_job": name, "state": state.name})


class ModelUnusable(ServiceError):
    """The model of a job cannot be used."""

    reason = "MODEL_UNUSABLE"

    def __init__(self, training_job: str, why: str) -> None:
        super().__init__(
            f"The model of {training_job} cannot be used: {why.rstrip('.')}.",
            {"training_job": training_job},
        )


class ModelNotFound(ServiceError):
    """There is no registered model, version or alias of that name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no registered model {name}.", {"model": name})


class ModelAlreadyExists(ServiceError):
    """The id of a registered model is taken by another user's."""

    reason = "MODEL_ALREADY_EXISTS"

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"The id {model_id} is taken; choose another name for the model.",
            {"model": f"models/{model_id}"},
        )


class NoRegistry(ServiceError):
    """The service runs without MLflow, whose registry has the registered models."""

    reason = "NO_REGISTRY"

    def __init__(self) -> None:
        super().__init__(
            "This service mirrors nothing to MLflow, so it has no registered models; name a model by its job, "
            "trainingJobs/{id}, or start the service with tracking."
        )


class ExportNotFound(ServiceError):
    """There is no such export."""

    reason = "EXPORT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no export {name}; ExportModel makes one.", {"export": name})


class CannotExport(ServiceError):
    """A model does not go into the form asked for."""

    reason = "CANNOT_EXPORT"

    def __init__(self, training_job: str, why: str) -> None:
        super().__init__(
            f"The model of {training_job} is not exported: {why.rstrip('.')}.",
            {"training_job": training_job},
        )


class ExportDeviates(CannotExport):
    """An exported model does not predict what the original does, within the tolerance."""

    reason = "EXPORT_DEVIATES"


class DiskFull(ServiceError):
    """The disk of the data folder filled up while something was written for the caller; nothing of it is left."""

    reason = "DISK_FULL"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"There is no room for {what} on the disk of the service's data folder, and nothing of it is kept; free "
            "some, or give data_dir a larger disk."
        )


class PlannerUnavailable(ServiceError):
    """The planner did not answer within its limit."""

    reason = "PLANNER_UNAVAILABLE"


class PredictorUnavailable(ServiceError):
    """There was no prediction within its limit."""

    reason = "PREDICTOR_UNAVAILABLE"


class ExporterUnavailable(ServiceError):
    """There was no export within its limit."""

    reason = "EXPORTER_UNAVAILABLE"


class RegistryUnavailable(ServiceError):
    """MLflow's registry does not answer, or does not have a job's model yet."""

    reason = "REGISTRY_UNAVAILABLE"


class StoreUnavailable(ServiceError):
    """The database does not answer, or cannot write."""

    reason = "STORE_UNAVAILABLE"
    retry_after = 5.0  # a call that comes while it is away costs a try to connect


class ShuttingDown(ServiceError):
    """The service is on its way down."""

    reason = "SHUTTING_DOWN"

    def __init__(self) -> None:
        super().__init__("The service is shutting down; try again in a moment.")


class Unauthenticated(ServiceError):
    """Nobody knows who calls. One sentence for all reasons, so that it tells strangers nothing."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(
            "This service needs a valid token, and none was given, or one that is unknown, expired or revoked; "
            "ask for a new one whoever runs the service (`dropnorm tokens create`)."
        )


class RoleRequired(ServiceError):
    """The caller's role does not allow what is asked."""

    reason = "ROLE_REQUIRED"

    def __init__(self, caller: Caller, needed: Role, method: str) -> None:
        super().__init__(
            f"{method} needs the role {needed}, and the token of {caller.user} has the role {caller.role}; "
            "ask whoever runs the service for a token with that role.",
            {"role": str(caller.role), "needed_role": str(needed)},
        )


class MethodUndeclared(ServiceError):
    """The service has a method of which nobody has said who may call it."""

    reason = "METHOD_UNDECLARED"

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{method} is refused, since the service does not say who may call it.",
            {"method": method},
        )


SERVICE_ERRORS: tuple[type[ServiceError], ...] = (
    InvalidRequest,
    InvalidListRequest,
    CannotFit,
    JobNotFound,
    NoSuchService,
    JobAlreadyExists,
    NotOwner,
    LimitReached,
    WrongState,
    RequestIdReused,
    TooManyInputs,
    ModelUnusable,
    ModelNotFound,
    ModelAlreadyExists,
    NoRegistry,
    ExportNotFound,
    CannotExport,
    ExportDeviates,
    DiskFull,
    PlannerUnavailable,
    PredictorUnavailable,
    ExporterUnavailable,
    RegistryUnavailable,
    StoreUnavailable,
    ShuttingDown,
    Unauthenticated,
    RoleRequired,
    MethodUndeclared,
)
"""Every class a caller can meet; the edge must know a status for each."""
