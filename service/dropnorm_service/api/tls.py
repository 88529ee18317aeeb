"""TLS: the server's certificate, looked at again with each new connection."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import grpc

from dropnorm_service.certificates import CertificateUnreadable, periods_in

_PAUSE = 1.0  # seconds between two tries of files that are refused

log = logging.getLogger(__name__)


class UnusableCertificate(Exception):
    """A certificate or key cannot be used; the message names the setting and the file."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where the parts are, all PEM."""

    certificate: Path
    """The server's certificate, then those of the authorities between it and the root."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """Authorities whose certificates clients must show; None: clients show none."""


class Certificates:
    """Credentials for a server that follow their files.

    When a connection is opened and a file has changed, it is read again; connections that are open keep what they
    have. A file that cannot be used is logged, and what was used before stays in use. It is tried again with later
    connections: what was wrong may be nothing of the file's own, as its owner, the time, or a want of descriptors.

    Args:
        files: where they are.

    Raises:
        UnusableCertificate: a file is missing, damaged or expired, or the key is another certificate's.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = _fingerprint(files)
        self._first = self._used = _load(files)
        self._refusal = ""
        self._tried_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def in_use(self) -> bytes:
        """The certificate that new connections get, with those of the authorities after it, PEM."""
        return self._used.certificate

    @property
    def warning(self) -> str:
        """What is to be known of what is in use, a sentence; empty when all is well."""
        return self._used.warning

    @property
    def refused(self) -> bool:
        """Whether the files have changed into what cannot be used, as the last new connection found them."""
        return bool(self._refusal)

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first.configuration,
            self._current,  # type: ignore[arg-type]  # None is allowed: it keeps what is in use
            require_client_authentication=self._files.client_ca is not None,
        )

    def _current(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate; None: there is none. Called by gRPC, in its threads, with each connection."""
        with self._lock:
            seen = _fingerprint(self._files)
            if seen == self._seen and not self._try_again():
                return None
            self._seen, self._tried_at = seen, time.monotonic()
            try:
                self._used = _load(self._files)
            except UnusableCertificate as error:
                if str(error) != self._refusal:
                    text = "the new certificate is not used, and the one before still is: %s"
                    log.error(text, error)
                self._refusal = str(error)
                return None
            self._refusal = ""
            log.info("the new certificate is in use")
            if self.warning:
                log.warning("%s", self.warning)
            return self._used.configuration

    def _try_again(self) -> bool:
        return self.refused and time.monotonic() - self._tried_at >= _PAUSE


class _Loaded(NamedTuple):
    configuration: grpc.ServerCertificateConfiguration
    certificate: bytes
    warning: str


def _fingerprint(files: TlsFiles) -> tuple[object, ...]:
    """Differs whenever a file was written or replaced, also behind a symbolic link."""
    return tuple(_stamp(path) for path in (files.certificate, files.key, files.client_ca) if path)


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    # The last one tells of a new owner or mode too, and of a file that was given its old time.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(files: TlsFiles) -> _Loaded:
    certificate = _read("tls_certificate", files.certificate)
    key = _read("tls_key", files.key)
    authorities = _read("tls_client_ca", files.client_ca) if files.client_ca else None
    _rehearse(files)
    configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)
    return _Loaded(configuration, certificate, _look_at_dates(files.client_ca, authorities or b""))


def _look_at_dates(path: Path | None, authorities: bytes) -> str:
    """What is to be known of authorities whose time is over, or has not come; empty: nothing.

    Raises:
        UnusableCertificate: no client could connect.
    """
    now = datetime.now(UTC)
    try:
        periods = list(periods_in(authorities))
    except CertificateUnreadable as error:
        raise UnusableCertificate(f"tls_client_ca: {path}: {error}") from error
    invalid = [period for period in periods if not period.begin <= now <= period.end]
    if not invalid:
        return ""
    dates = ", ".join(
        f"expired on {period.end:%Y-%m-%d}"
        if period.end < now
        else f"not valid before {period.begin:%Y-%m-%d %H:%M} UTC"
        for period in invalid
    )
    if len(invalid) == len(periods):
        raise UnusableCertificate(
            f"tls_client_ca: no certificate in {path} is valid now ({dates}), so that no client could connect"
        )
    return (
        f"tls_client_ca: of {len(periods)} certificates in {path}, {len(invalid)} cannot be used now ({dates}): "
        "clients of these authorities are kept out"
    )


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableCertificate(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _rehearse(files: TlsFiles) -> None:
    """Shake hands with ourselves, since gRPC says nothing of what is wrong until nobody can connect."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(files.certificate, files.key, password=_refuse_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise UnusableCertificate(
            f"tls_certificate: {files.certificate} and tls_key: {files.key} cannot be used together: "
            f"{_reason(error)}; both are PEM, the key is not encrypted and is the certificate's own"
        ) from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself here
    client.load_verify_locations(files.certificate)
    try:
        _shake_hands(server, client)
    except ssl.SSLError as error:
        raise UnusableCertificate(
            f"tls_certificate: {files.certificate} would be trusted by nobody: {_reason(error)}"
        ) from error
    if files.client_ca is not None:
        try:
            client.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise UnusableCertificate(
                f"tls_client_ca: {files.client_ca} has no certificates in PEM: {_reason(error)}"
            ) from error


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A whole handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
