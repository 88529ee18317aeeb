"""What can go wrong, as one tree. Every message is a sentence that names the thing and says what to do.

DropnormError
├── InvalidRequest (ValueError)      `problems` names every wrong field
├── NotFound (LookupError)
├── AlreadyExists
├── WrongState                       the job's state does not allow it
├── ExportRefused                    the model does not go into that form, or not exactly enough
├── ResourceExhausted                a limit is reached; `retry_after` says when it is worth trying again
├── Unauthenticated
├── PermissionDenied
├── Unimplemented                    the service is of another version
├── Unavailable (ConnectionError)    nobody answers, or not now
├── DeadlineExceeded (TimeoutError)  no answer within the call's timeout
├── Internal                         the service's own error; `request_id` finds it in the service's log
├── ClientClosed                     the client was closed before
├── StartFailed                      an embedded service did not start
├── ResultTimeout (TimeoutError)     the job did not end within `result(timeout=...)`
├── JobFailed                        `error` says why
└── JobCancelled

A service's error travels as a google.rpc.Status with one ErrorInfo, whose reason chooses the class, and where fields
are wrong a BadRequest. Nobody but this module reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from dropnorm.results import JobError
from dropnorm.spec import Problem

DOMAIN = "dropnorm.dev"

_REQUEST_ID_KEY = "x-request-id"
_DETAILS_KEY = "grpc-status-details-bin"


class DropnormError(Exception):
    """The root of all errors of this package.

    Attributes:
        reason: the service's stable code for what happened, UPPER_SNAKE; empty when it did not come from a service.
        metadata: the values the message speaks of, by name.
        request_id: the id under which the service's log has the call; empty when no service answered.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata)
        self.request_id = request_id


class InvalidRequest(DropnormError, ValueError):
    """What was asked for breaks one or more rules.

    Attributes:
        problems: every wrong field, as a dotted path in the protobuf contract, with what is wrong and what to do.
    """

    def __init__(
        self,
        message: str = "",
        *,
        problems: Sequence[Problem] = (),
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        request_id: str = "",
    ) -> None:
        super().__init__(
            _with_problems(message, problems),
            reason=reason,
            metadata=metadata,
            request_id=request_id,
        )
        self.problems = tuple(problems)


class NotFound(DropnormError, LookupError):
    """There is no such job."""


class AlreadyExists(DropnormError):
    """The id asked for is taken."""


class WrongState(DropnormError):
    """The job's state does not allow what was asked."""


class ExportRefused(DropnormError):
    """The model does not go into the form asked for, or would not predict the same in it."""


class ResourceExhausted(DropnormError):
    """A limit is reached: of the queue, of streams, of uploads, of sizes.

    Attributes:
        retry_after: seconds after which it is worth trying again; None: not before something is given up.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        request_id: str = "",
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, request_id=request_id)
        self.retry_after = retry_after


class Unauthenticated(DropnormError):
    """The service does not know who is asking."""


class PermissionDenied(DropnormError):
    """Who is asking may not do this."""


class Unimplemented(DropnormError):
    """The service does not know this call: it is older than this client, or something else."""


class Unavailable(DropnormError, ConnectionError):
    """Nobody answers, or the service cannot answer now. Asking again later may succeed."""


class DeadlineExceeded(DropnormError, TimeoutError):
    """The service did not answer within the call's timeout. Whether it did what was asked is not known."""


class Internal(DropnormError):
    """An error of the service's own; its log has it under `request_id`."""


class ClientClosed(DropnormError):
    """The client was used after it had been closed."""


class StartFailed(DropnormError):
    """An embedded service did not start."""


class ResultTimeout(DropnormError, TimeoutError):
    """The job did not end within `result(timeout=...)`. It goes on; ask again."""


class JobFailed(DropnormError):
    """The job ended by an error.

    Attributes:
        job: resource name of the job.
        error: why it failed.
    """

    def __init__(self, message: str, *, job: str = "", error: JobError | None = None) -> None:
        super().__init__(
            message,
            reason=error.reason if error else "",
            metadata=error.metadata if error else {},
        )
        self.job = job
        self.error = error


class JobCancelled(DropnormError):
    """The job was cancelled.

    Attributes:
        job: resource name of the job.
    """

    def __init__(self, message: str, *, job: str = "") -> None:
        super().__init__(message)
        self.job = job


BY_REASON: Mapping[str, type[DropnormError]] = MappingProxyType(
    {
        "INVALID_REQUEST": InvalidRequest,
        "INVALID_LIST_REQUEST": InvalidRequest,
        "REQUEST_ID_REUSED": InvalidRequest,
        "CANNOT_FIT": InvalidRequest,
        "TOO_MANY_INPUTS": InvalidRequest,
        "JOB_NOT_FOUND": NotFound,
        "NO_SUCH_SERVICE": NotFound,
        "JOB_ALREADY_EXISTS": AlreadyExists,
        "NOT_OWNER": PermissionDenied,
        "LIMIT_REACHED": ResourceExhausted,
        "WRONG_STATE": WrongState,
        "MODEL_UNUSABLE": WrongState,
        "MODEL_NOT_FOUND": NotFound,
        "MODEL_ALREADY_EXISTS": AlreadyExists,
        "NO_REGISTRY": WrongState,
        "REGISTRY_UNAVAILABLE": Unavailable,
        "EXPORT_NOT_FOUND": NotFound,
        "CANNOT_EXPORT": ExportRefused,
        "EXPORT_DEVIATES": ExportRefused,
        "DISK_FULL": ResourceExhausted,
        "EXPORTER_UNAVAILABLE": Unavailable,
        "PREDICTOR_UNAVAILABLE": Unavailable,
        "DATASET_NOT_FOUND": NotFound,
        "DATASET_ALREADY_EXISTS": AlreadyExists,
        "DATASET_IN_USE": WrongState,
        "UPLOAD_TOO_LARGE": ResourceExhausted,
        "UPLOAD_IN_PROGRESS": WrongState,
        "UPLOAD_STALLED": Unavailable,
        "PATH_NOT_ALLOWED": PermissionDenied,
        "INSPECTION_FAILED": Unavailable,
        "PLANNER_UNAVAILABLE": Unavailable,
        "STORE_UNAVAILABLE": Unavailable,
        "SHUTTING_DOWN": Unavailable,
        "UNAUTHENTICATED": Unauthenticated,
        "ROLE_REQUIRED": PermissionDenied,
        "METHOD_UNDECLARED": PermissionDenied,
        "INTERNAL": Internal,
    }
)
"""The class for each reason of domain `dropnorm.dev`. A reason from a newer service goes by its status code."""

_BY_CODE: Mapping[grpc.StatusCode, type[DropnormError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: WrongState,
    grpc.StatusCode.ABORTED: WrongState,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


_HANDSHAKES: Mapping[str, str] = MappingProxyType(
    {
        "WRONG_VERSION_NUMBER": "does not speak TLS: check the address, or do without `tls` and `--tls`.",
        "handshake failed": "has a certificate that is not trusted here, or one of another host: name the "
        "authority that signed it, by `dropnorm.TLS(ca=...)` or `--tls-ca`, and call the service by a name that is in "
        "the certificate.",
        "last error: UNAVAILABLE": "closed the connection at once: it may speak TLS alone, by `tls=True` or `--tls`, "
        "or ask for a client's certificate, by `dropnorm.TLS(certificate=..., key=...)`.",
    }
)
"""What gRPC says of a handshake that failed -> what it means."""

_TOO_LARGE: Mapping[str, str] = MappingProxyType(
    {
        "message larger than max": "A message of a call to {address} is larger than goes over at once, 20 MiB to a "
        "service and 64 MiB from it; send, or ask for, less with one call.",
        "metadata size exceeds": "The headers of a call to {address} are larger than the 8 KiB that a service takes; "
        "look at the token, and at what a proxy adds.",
    }
)
"""What gRPC itself says of what is too large -> what to do."""


def from_rpc_error(error: grpc.RpcError, *, address: str) -> DropnormError:
    """The exception of this tree that an RPC's failure means. Raise it `from` the RPC's own.

    Args:
        error: what a synchronous or an asyncio call raised; both carry code, details and trailing metadata.
        address: the service that was called, for the message.
    """
    code: grpc.StatusCode = error.code()
    trailers = _trailers(error)
    status = _status(trailers.get(_DETAILS_KEY))
    infos = _details(status, error_details_pb2.ErrorInfo)
    info = next((info for info in infos if info.domain == DOMAIN), None)
    reason = info.reason if info else ""
    metadata = dict(info.metadata) if info else {}
    request_id = str(trailers.get(_REQUEST_ID_KEY, ""))

    kind = BY_REASON.get(reason) or _BY_CODE.get(code, Internal)
    message = _sentence(error.details() or "") if info else _transport_text(code, error, address)
    if issubclass(kind, InvalidRequest):
        problems = [
            Problem(violation.field, violation.description)
            for detail in _details(status, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        ]
        return kind(
            message, problems=problems, reason=reason, metadata=metadata, request_id=request_id
        )
    if issubclass(kind, ResourceExhausted):
        return kind(
            message,
            retry_after=_retry_after(status),
            reason=reason,
            metadata=metadata,
            request_id=request_id,
        )
    return kind(message, reason=reason, metadata=metadata, request_id=request_id)


def retry_after(error: grpc.RpcError) -> float | None:
    """Seconds after which the service says that a call is worth trying again; None: it does not say.

    It says so where a limit was met, or where something that the service needs is away.
    """
    if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return None
    return _retry_after(_status(_trailers(error).get(_DETAILS_KEY)))


def _retry_after(status: status_pb2.Status) -> float | None:
    told = next(_details(status, error_details_pb2.RetryInfo), None)
    return None if told is None else told.retry_delay.ToTimedelta().total_seconds()


def _trailers(error: grpc.RpcError) -> dict[str, str | bytes]:
    return dict(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))


def _status(details: str | bytes | None) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(details if isinstance(details, bytes) else b"")
    except DecodeError:  # a proxy's own idea of that header; code and text still tell the essence
        return status_pb2.Status()


_Detail = TypeVar("_Detail", bound=Message)


def _details(status: status_pb2.Status, kind: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            yield detail


def _transport_text(code: grpc.StatusCode, error: grpc.RpcError, address: str) -> str:
    """The message of a failure that no dropnorm service has put into words."""
    details = error.details() or code.name
    if code is grpc.StatusCode.UNAVAILABLE:
        for mark, text in _HANDSHAKES.items():
            if mark in details:
                return f"The service at {address} {text} ({details})"
        return (
            f"No dropnorm service answers at {address}. Start one with `dropnorm serve`, or in Python with "
            f"`dropnorm.local()`; or check the address, and whether the service speaks TLS, as its clients must then "
            f"too (`tls=True`, `--tls`). ({details})"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        for mark, text in _TOO_LARGE.items():
            if mark in details:
                return f"{text.format(address=address)} ({details})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return (
            f"The service at {address} did not answer in time; give the call a longer timeout, or look at "
            "whether the service is overloaded."
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return (
            f"The service at {address} does not know this call: it is of another version than this client, "
            f"or not dropnorm at all. ({details})"
        )
    if code is grpc.StatusCode.CANCELLED:
        return f"The call to {address} was cancelled before its answer came."
    return f"The call to {address} failed with {code.name}: {_sentence(details)}"


def _with_problems(message: str, problems: Sequence[Problem]) -> str:
    """Every wrong field by name; the service's own text has only as many as fit into a trailer."""
    if not problems:
        return message
    texts = (f"{field}: {text}" if field else text for field, text in problems)
    return f"The request is not valid. {'; '.join(texts).rstrip('.')}."


def _sentence(text: str) -> str:
    """Closed, and capitalised unless it begins with a name, which is to stay as it is."""
    text = text.strip()
    if text.partition(" ")[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?)" else f"{text}."
