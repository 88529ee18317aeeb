"""When a certificate expires, as another library made it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dropnorm_service.certificates import CertificateUnreadable, expiry_in, periods_in


@pytest.mark.parametrize("year", [2031, 2049, 2050, 9999])
def test_the_expiry_is_what_the_certificate_says(year: int) -> None:
    expiry = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    text = "some text before it, in Köln\n".encode("latin-1")
    assert expiry_in(text + certificate(expiry) + certificate(datetime.now(UTC))) == expiry


def test_each_certificate_of_several_has_its_dates() -> None:
    ends = [datetime(year, 1, 1, tzinfo=UTC) for year in (2031, 2060)]
    periods = list(periods_in(b"# \xff\n".join(certificate(end) for end in ends)))
    assert [period.end for period in periods] == ends
    assert all(period.begin < datetime.now(UTC) for period in periods)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"\xff\xfe",
        b"-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_a_sentence(content: bytes) -> None:
    with pytest.raises(CertificateUnreadable, match="certificate in PEM"):
        expiry_in(content)


def test_one_that_is_cut_off_is_damaged() -> None:
    whole = certificate(datetime(2031, 1, 1, tzinfo=UTC)).splitlines(keepends=True)
    with pytest.raises(CertificateUnreadable, match="is damaged"):
        expiry_in(b"".join([*whole[:2], whole[-1]]))


def certificate(expiry: datetime) -> bytes:
    """Signed by itself, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=365))
        .not_valid_after(max(expiry, datetime.now(UTC)))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
