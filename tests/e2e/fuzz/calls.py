"""Every rpc behind the port by its bytes, and a tally of what was answered."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import dropnorm as dn
import dropnorm.v1

PATIENCE = 60.0

EXAMPLES = int(os.environ.get("DROPNORM_TEST_FUZZ_EXAMPLES", "0"))
"""Examples for each test; 0: few, and the same in every run."""

OWN_FAULTS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)
"""What a server in good health has no reason to answer."""


@dataclass(frozen=True)
class Method:
    """An rpc: where it is called, what it takes, and on which side it streams."""

    path: str
    request: type[Message]
    client_streaming: bool
    server_streaming: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def endless(self) -> bool:
        """Whether its stream lasts as long as the caller wishes, whatever he asks for."""
        return self.path == "/grpc.health.v1.Health/Watch"


def contract() -> Sequence[Method]:
    """Every rpc of every service of dropnorm, of health and of reflection."""
    found = []
    files: list[Any] = [health_pb2, reflection_pb2]
    files += [
        import_module(f"dropnorm.v1.{module.name}")
        for module in iter_modules(dropnorm.v1.__path__)
        if module.name.endswith("_service_pb2")
    ]
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            found += [
                Method(
                    path=f"/{service.full_name}/{rpc.name}",
                    request=GetMessageClass(rpc.input_type),
                    client_streaming=rpc.client_streaming,
                    server_streaming=rpc.server_streaming,
                )
                for rpc in service.methods
            ]
    return sorted(found, key=lambda method: method.path)


class Tally:
    """Counts answers by their code, or by the SDK's exception; shown when the tests have ended."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()

    def count(self, method: str, answer: str) -> None:
        self.methods[method] += 1
        self.answers[answer] += 1

    def lines(self) -> Iterator[str]:
        """What was sent and answered, for people."""
        yield f"{self.methods.total():,} calls of {len(self.methods)} methods"
        for name, number in self.answers.most_common():
            yield f"  {name:<20} {number:>8,}"
        for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            if code.name not in self.answers:
                yield f"  {code.name:<20} {0:>8,}"


TALLY = Tally()


@contextmanager
def counted(method: str) -> Iterator[None]:
    """Count a call that is made through the SDK."""
    try:
        yield
    except dn.DropnormError as error:
        TALLY.count(method, type(error).__name__)
        raise
    TALLY.count(method, grpc.StatusCode.OK.name)


class Wire:
    """Sends bytes to any rpc of a server, as they are."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)

    def close(self) -> None:
        self._channel.close()

    def send(
        self,
        method: Method,
        requests: Sequence[bytes],
        *,
        most: int = 200,
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> grpc.StatusCode:
        """Call it, and look at the form of what comes back.

        Args:
            requests: one message, or for a client's stream any number.
            most: replies of a server's stream to read, before it is given up.
        """
        caller = multicallable(self._channel, method)
        request: Any = iter(requests) if method.client_streaming else requests[0]
        code = grpc.StatusCode.OK
        call: Any = None
        try:
            call = caller(request, timeout=PATIENCE, metadata=metadata)
            if method.server_streaming:
                drain(call, 1 if method.endless else most)
        except grpc.RpcError as error:
            code = error.code()
            if not (code is grpc.StatusCode.CANCELLED and method.server_streaming):
                blamed(error)
        TALLY.count(method.name, code.name)
        return code


def multicallable(channel: grpc.Channel, method: Method) -> Any:
    """What calls a method in its form."""
    if method.client_streaming and method.server_streaming:
        return channel.stream_stream(method.path)
    if method.client_streaming:
        return channel.stream_unary(method.path)
    if method.server_streaming:
        return channel.unary_stream(method.path)
    return channel.unary_unary(method.path)


def drain(call: Any, most: int) -> None:
    """Read some replies, then hang up."""
    for _ in itertools.islice(call, most):
        pass
    call.cancel()


def blamed(error: Any) -> tuple[str, ...]:
    """The fields that an error names, after a look at its form.

    It has a sentence, and unless it is gRPC's own (a message too large) exactly one ErrorInfo; each field has its own.
    """
    assert error.details()
    trailers = dict(error.trailing_metadata() or ())
    if "grpc-status-details-bin" not in trailers:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
        return ()
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    kinds = [detail.TypeName() for detail in status.details]
    assert kinds.count("google.rpc.ErrorInfo") == 1, error
    assert trailers["x-request-id"]
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad)
    assert all(violation.description for violation in bad.field_violations), error
    return tuple(violation.field for violation in bad.field_violations)


def parts(method: Method, messages: Iterable[bytes]) -> Sequence[bytes]:
    """As many messages as the method takes."""
    given = list(messages)
    return given if method.client_streaming else given[:1] or [b""]
