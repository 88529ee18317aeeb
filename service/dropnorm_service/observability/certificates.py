"""When a certificate expires.

The standard library tells it of a peer's certificate alone, so the DER is walked here (RFC 5280, section 4.1).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_END = "-----END CERTIFICATE-----"


class CertificateUnreadable(Exception):
    """There is no certificate, or not even the file; the message is for people."""


def expiry_of(path: Path) -> datetime:
    """When the first certificate of a PEM file expires.

    Raises:
        CertificateUnreadable: there is none.
    """
    try:
        return expiry_in(path.read_bytes())
    except OSError as error:
        raise CertificateUnreadable(f"{path} cannot be read: {error.strerror}") from error
    except CertificateUnreadable as error:
        raise CertificateUnreadable(f"{path} holds no certificate in PEM") from error


def expiry_in(pem: bytes) -> datetime:
    """When the first certificate of a PEM text expires.

    Raises:
        CertificateUnreadable: there is none.
    """
    try:
        first, end, _ = pem.decode("ascii").partition(_END)
        der = ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN CERTIFICATE-----") :] + end)
        return _not_after(der)
    except (ValueError, IndexError, StopIteration) as error:
        raise CertificateUnreadable("there is no certificate in PEM") from error


def _not_after(der: bytes) -> datetime:
    (_, certificate), *_ = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    # version (may be absent), serial number, signature algorithm, issuer, validity
    parts = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    _, (tag, text) = _elements(parts[3])
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element of a sequence's content."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        if len(der) < start + length:
            raise ValueError("the certificate is cut off")
        yield tag, der[start : start + length]
        der = der[start + length :]
