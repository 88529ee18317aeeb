"""TLS: the server's certificate, looked at again with each new connection."""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

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
    have. A file that cannot be used is logged, and what was used before stays in use.

    Args:
        files: where they are.

    Raises:
        UnusableCertificate: a file is missing, damaged or expired, or the key is another certificate's.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = _fingerprint(files)
        self._first, self._in_use = _load(files)
        self._refused = False

    @property
    def in_use(self) -> bytes:
        """The certificate that new connections get, with those of the authorities after it, PEM."""
        return self._in_use

    @property
    def refused(self) -> bool:
        """Whether the files have changed into what cannot be used, as the last new connection found them."""
        return self._refused

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._current,  # type: ignore[arg-type]  # None is allowed: it keeps what is in use
            require_client_authentication=self._files.client_ca is not None,
        )

    def _current(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate; None: there is none. Called by gRPC, in its threads, with each connection."""
        seen = _fingerprint(self._files)
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            configuration, self._in_use = _load(self._files)
        except UnusableCertificate as error:
            self._refused = True
            log.error("the new certificate is not used, and the one before still is: %s", error)
            return None
        self._refused = False
        log.info("the new certificate is in use")
        return configuration


def _fingerprint(files: TlsFiles) -> tuple[object, ...]:
    """Differs whenever a file was written or replaced, also behind a symbolic link."""
    return tuple(_stamp(path) for path in (files.certificate, files.key, files.client_ca) if path)


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns


def _load(files: TlsFiles) -> tuple[grpc.ServerCertificateConfiguration, bytes]:
    """What gRPC takes, and the certificate in it."""
    certificate = _read("tls_certificate", files.certificate)
    key = _read("tls_key", files.key)
    authorities = _read("tls_client_ca", files.client_ca) if files.client_ca else None
    _rehearse(files)
    configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)
    return configuration, certificate


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
