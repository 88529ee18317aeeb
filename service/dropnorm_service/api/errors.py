"""The error catalogue: which gRPC status each domain error becomes, and with which details (AIP-193).

Exactly one ErrorInfo each. Besides it wrong fields are a BadRequest, a job that is not there or whose id is taken a
ResourceInfo, a state that does not allow what is asked a PreconditionFailure, a limit that is reached a
QuotaFailure, and what passes by waiting has a RetryInfo. Whatever is not in the catalogue is INTERNAL and tells the
caller nothing but the request id under which the log has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from dropnorm.spec import InvalidSpecError, Problem
from dropnorm.wire import ERROR_DOMAIN
from dropnorm_service.datasets import errors as datasets
from dropnorm_service.durable import no_room
from dropnorm_service.jobs import errors
from dropnorm_service.redaction import redact

STATUS: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidListRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CannotFit: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooManyInputs: grpc.StatusCode.INVALID_ARGUMENT,
    errors.JobNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NoSuchService: grpc.StatusCode.NOT_FOUND,
    errors.JobAlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotOwner: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelUnusable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ModelAlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.NoRegistry: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RegistryUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ExportNotFound: grpc.StatusCode.NOT_FOUND,
    errors.CannotExport: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExportDeviates: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ExporterUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PredictorUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PlannerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoleRequired: grpc.StatusCode.PERMISSION_DENIED,
    errors.MethodUndeclared: grpc.StatusCode.PERMISSION_DENIED,
    datasets.DatasetNotFound: grpc.StatusCode.NOT_FOUND,
    datasets.DatasetAlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    datasets.DatasetInUse: grpc.StatusCode.FAILED_PRECONDITION,
    datasets.UploadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    datasets.UploadInProgress: grpc.StatusCode.ABORTED,
    datasets.UploadStalled: grpc.StatusCode.ABORTED,
    datasets.PathNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    datasets.InspectionFailed: grpc.StatusCode.UNAVAILABLE,
}

CODES = {code.value[0]: code for code in grpc.StatusCode}
"""The status codes by their numbers."""

# gRPC sends a status in the trailers, which many peers limit to 8 KiB, base64 and all.
# The message travels a second time by itself, where a byte beyond ASCII takes three.
_MAX_DETAIL_BYTES = 4096
_MAX_TEXT_BYTES = 400

_RESOURCES: Mapping[type[errors.ServiceError], tuple[str, str]] = {
    errors.JobNotFound: ("TrainingJob", "training_job"),
    errors.JobAlreadyExists: ("TrainingJob", "training_job"),
    errors.ModelNotFound: ("Model", "model"),
    errors.ModelAlreadyExists: ("Model", "model"),
    errors.ExportNotFound: ("ModelExport", "export"),
    datasets.DatasetNotFound: ("Dataset", "dataset"),
    datasets.DatasetAlreadyExists: ("Dataset", "dataset"),
}
"""Errors about a thing that is not there or whose id is taken -> its type, and which metadata names it."""

_VIOLATIONS: Mapping[type[errors.ServiceError], tuple[str, str]] = {
    errors.WrongState: ("STATE", "training_job"),
    errors.ModelUnusable: ("MODEL", "training_job"),
    errors.CannotExport: ("MODEL", "training_job"),
    errors.ExportDeviates: ("MODEL", "training_job"),
    datasets.DatasetInUse: ("IN_USE", "dataset"),
}
"""Errors about a state that does not allow what is asked -> the violation's type, and which metadata is its subject."""


def to_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """The status an exception becomes."""
    if isinstance(error, InvalidSpecError):
        error = errors.InvalidRequest(error.problems)
    if isinstance(error, OSError) and no_room(error):
        error = errors.StoreUnavailable(
            "The disk of the service's data folder is full; try again when there is room."
        )
    code = STATUS.get(type(error)) if isinstance(error, errors.ServiceError) else None
    if code is None or not isinstance(error, errors.ServiceError):
        return _status(
            grpc.StatusCode.INTERNAL,
            f"the service met an error of its own; its log has it under request id {request_id}",
            error_details_pb2.ErrorInfo(
                reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"request_id": request_id}
            ),
        )
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=ERROR_DOMAIN,
        metadata={key: _cut(value) for key, value in error.metadata.items()},
    )
    return _status(code, error.message, info, *_more_details(error))


def code_of(error: BaseException) -> str:
    """The name of the status that an exception becomes."""
    return CODES[to_status(error, "").code].name


def _more_details(error: errors.ServiceError) -> Iterator[Message]:
    """What the standard details of the error's kind say, besides the ErrorInfo."""
    if isinstance(error, errors.InvalidRequest):
        yield _bad_request(error.problems)
    if resource := _RESOURCES.get(type(error)):
        kind, key = resource
        yield error_details_pb2.ResourceInfo(
            resource_type=f"{ERROR_DOMAIN}/{kind}",
            resource_name=error.metadata[key],
            description=_cut(error.message),
        )
    if violation := _VIOLATIONS.get(type(error)):
        kind, key = violation
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=kind, subject=error.metadata[key], description=_cut(error.message)
        )
        yield failure
    if isinstance(error, errors.LimitReached):
        exhausted = error_details_pb2.QuotaFailure()
        exhausted.violations.add(subject=error.subject, description=_cut(error.message))
        yield exhausted
    if error.retry_after is not None:
        yield error_details_pb2.RetryInfo(
            retry_delay=duration_pb2.Duration(seconds=math.ceil(error.retry_after))
        )


def _bad_request(problems: Sequence[Problem]) -> error_details_pb2.BadRequest:
    """The field violations, as many as fit; the last one counts those that do not."""
    detail = error_details_pb2.BadRequest()
    for index, problem in enumerate(problems):
        detail.field_violations.add(field=_cut(problem.field), description=_cut(problem.message))
        if detail.ByteSize() > _MAX_DETAIL_BYTES:
            detail.field_violations[-1].CopyFrom(
                error_details_pb2.BadRequest.FieldViolation(
                    description=f"{len(problems) - index} more fields are wrong; mend these first"
                )
            )
            break
    return detail


def _status(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=_cut(message))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _cut(text: str) -> str:
    text = redact(text)
    whole = text.encode()
    if len(whole) <= _MAX_TEXT_BYTES:
        return text
    return whole[: _MAX_TEXT_BYTES - len("…".encode())].decode(errors="ignore") + "…"
