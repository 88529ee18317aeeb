"""When certificates are valid.

The standard library tells it of a peer's certificate alone, so the DER is walked here (RFC 5280, section 4.1).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


class Period(NamedTuple):
    """When a certificate is valid."""

    begin: datetime
    end: datetime


class CertificateUnreadable(Exception):
    """There is no certificate, or a damaged one; the message is for people."""


def expiry_in(pem: bytes) -> datetime:
    """When the first certificate of a PEM text expires.

    Raises:
        CertificateUnreadable: there is none.
    """
    for period in periods_in(pem):
        return period.end
    raise CertificateUnreadable("there is no certificate in PEM")


def periods_in(pem: bytes) -> Iterator[Period]:
    """When each certificate of a PEM text is valid; what stands around them may be in any encoding.

    Raises:
        CertificateUnreadable: one is damaged.
    """
    for text in pem.decode("ascii", errors="replace").split(_END)[:-1]:
        try:
            period = _period(ssl.PEM_cert_to_DER_cert(text[text.rindex(_BEGIN) :] + _END))
        except (ValueError, IndexError) as error:
            raise CertificateUnreadable("a certificate in PEM is damaged") from error
        yield period


def _period(der: bytes) -> Period:
    (_, certificate), *_ = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    # version (may be absent), serial number, signature algorithm, issuer, validity
    parts = [content for tag, content in _elements(to_be_signed) if tag != _VERSION]
    begin, end = _elements(parts[3])
    return Period(_time(*begin), _time(*end))


def _time(tag: int, text: bytes) -> datetime:
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
