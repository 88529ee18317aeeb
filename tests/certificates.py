"""Certificates for tests of TLS, made when they are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for this machine; `ca` is what those trust who trust it."""

    def __init__(
        self, folder: Path, name: str = "authority", *, ends_in: timedelta = 30 * _DAY
    ) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self._name, self._name, self._key, ends_in)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        certificate = builder.sign(self._key, SHA256())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        host: str = "localhost",
        ends_in: timedelta = 30 * _DAY,
        begins_in: timedelta = -60 * _DAY,
        password: bytes | None = None,
    ) -> Pair:
        """A new pair under a name; it takes the place of what was there, each file at one stroke."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names.append(x509.IPAddress(ip_address("127.0.0.1")))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(subject, self._name, key, ends_in, begins_in)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self._key, SHA256())
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        replace(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        replace(pair.certificate, certificate.public_bytes(Encoding.PEM))
        return pair


def replace(path: Path, content: bytes) -> None:
    """Write a file as careful people do."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    ends_in: timedelta,
    begins_in: timedelta = -60 * _DAY,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + ends_in)
    )
