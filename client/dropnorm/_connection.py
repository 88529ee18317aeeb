"""Where a service is, and how it is spoken to: address, TLS and token, given or from the environment."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc

from dropnorm.errors import InvalidRequest
from dropnorm.spec import Problem

DEFAULT_ADDRESS = "localhost:50051"

_MAX_SENT_BYTES = 20 * 2**20  # what a service takes
_MAX_RECEIVED_BYTES = 64 * 2**20

_CHANNEL_OPTIONS: Mapping[str, int] = {
    # A connection that went dead without a word is noticed within 40 s, while a call is open on it.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.max_pings_without_data": 0,
    # After a lost connection the channel itself waits before it tries again; its own default grows to 2 minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    # An evaluation carries its history: 100,000 epochs are some 10 MB.
    "grpc.max_receive_message_length": _MAX_RECEIVED_BYTES,
    "grpc.max_send_message_length": _MAX_SENT_BYTES,
}

Content = TypeVar("Content", str, bytes)

_TOKEN = re.compile(r"[\x21-\x7e]+")
_PLAIN = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)?([A-Za-z0-9.:\[\]-]+)")
_PARTS = ("ca", "certificate", "key")
_GRPC_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"


@dataclass(frozen=True, kw_only=True)
class TLS:
    """How a service proves who it is, and how its client does; all files are PEM.

    Attributes:
        ca: the authorities that are trusted; absent: those of the system.
        certificate: the client's own certificate, for a service that asks for one.
        key: its private key, not encrypted.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None


class _Hidden(str):
    """A text that debuggers and traces of whatever holds it do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Connection:
    """How a client speaks to its service. Made by `resolve`.

    Attributes:
        address: `host:port`.
        metadata: what goes with each call, the token among it.
    """

    address: str
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    _credentials: grpc.ChannelCredentials | None = field(repr=False)

    @classmethod
    def resolve(
        cls,
        address: str | None,
        *,
        token: str | None,
        tls: bool | TLS | None,
        insecure: bool,
    ) -> Connection:
        """What was given, and for what was not the environment's `DROPNORM_` variables.

        Raises:
            InvalidRequest: something cannot be used, or the token would travel in plain text.
        """
        address = (
            os.environ.get("DROPNORM_ADDRESS") or DEFAULT_ADDRESS if address is None else address
        )
        files = _tls_of_environment() if tls is None else tls
        bearer = _token_of_environment() if token is None else token
        if bearer and _TOKEN.fullmatch(bearer) is None:
            raise _wrong("token", "is no token: one is printable ASCII without spaces")
        if bearer and not files and not insecure and not is_loopback(address):
            raise _wrong(
                "token",
                f"it would go to {address} in plain text, for everybody on the way to read; speak TLS "
                "(tls=True, or dropnorm.TLS), or say insecure=True if the network itself keeps others out",
            )
        metadata = (("authorization", _Hidden(f"Bearer {bearer}")),) if bearer else ()
        credentials = _credentials(TLS() if files is True else files) if files else None
        return cls(address, metadata, credentials)

    def channel(self, kind: Any) -> Any:
        """A channel, made by `grpc` or `grpc.aio`."""
        options = dict(_CHANNEL_OPTIONS)
        if is_loopback(self.address):  # no HTTP proxy to this very machine
            options["grpc.enable_http_proxy"] = 0
        if self._credentials is None:
            return kind.insecure_channel(self.address, options=list(options.items()))
        return kind.secure_channel(self.address, self._credentials, options=list(options.items()))


def is_loopback(address: str) -> bool:
    """Whether an address is surely of this machine alone."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    plain = _PLAIN.fullmatch(address)
    try:
        name = (urlsplit(f"//{plain[1]}").hostname or "") if plain else ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _token_of_environment() -> str:
    if token := os.environ.get("DROPNORM_TOKEN"):
        return token.strip()
    path = os.environ.get("DROPNORM_TOKEN_FILE")
    return read_token(path) if path else ""


def read_token(path: str | Path) -> str:
    """The token in a file.

    Raises:
        InvalidRequest: it cannot be read.
    """
    return _read("token", path, lambda file: file.read_text(encoding="ascii").strip())


def _tls_of_environment() -> bool | TLS:
    wanted = os.environ.get("DROPNORM_TLS", "").lower()
    if wanted not in ("", "0", "1", "false", "true"):
        raise _wrong("tls", f"the variable DROPNORM_TLS is 1 or 0, not {wanted[:40]!r}")
    files = {name: os.environ.get(f"DROPNORM_TLS_{name.upper()}") for name in _PARTS}
    if wanted in ("0", "false") or not (wanted or any(files.values())):
        return False
    return TLS(**{name: path for name, path in files.items() if path})


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        missing = "key" if tls.key is None else "certificate"
        raise _wrong(f"tls.{missing}", "is missing; a client's certificate and its key go together")
    paths = {name: path for name in _PARTS if (path := getattr(tls, name)) is not None}
    content = {name: _read(f"tls.{name}", path, Path.read_bytes) for name, path in paths.items()}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # says what is wrong with them; gRPC does not
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (ssl.SSLError, OSError) as error:
        raise _wrong("tls.ca", f"{tls.ca} has no certificates in PEM") from error
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _wrong(
            "tls.certificate",
            f"{tls.certificate} and {tls.key} are not a certificate and its own key in PEM, the key not encrypted",
        ) from error
    return grpc.ssl_channel_credentials(
        content.get("ca") or _roots_of_system(), content.get("key"), content.get("certificate")
    )


def _roots_of_system() -> bytes | None:
    """The authorities that this machine trusts; None: gRPC knows where they are, or brings its own."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path and _GRPC_ROOTS not in os.environ else None


def _read(field_name: str, path: str | Path, read: Callable[[Path], Content]) -> Content:
    try:
        return read(Path(path).expanduser())
    except OSError as error:
        raise _wrong(field_name, f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _wrong(field_name, f"{path} is not plain text") from error


def _wrong(field_name: str, text: str) -> InvalidRequest:
    return InvalidRequest(problems=[Problem(field_name, text)])
