"""When a certificate expires, as another library made it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dropnorm_service.observability.certificates import CertificateUnreadable, expiry_of


@pytest.mark.parametrize("year", [2031, 2049, 2050, 9999])
def test_the_expiry_is_what_the_certificate_says(tmp_path: Path, year: int) -> None:
    expiry = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    path = tmp_path / "server.pem"
    path.write_bytes(
        b"some text before it\n" + certificate(expiry) + certificate(datetime.now(UTC))
    )
    assert expiry_of(path) == expiry


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"\xff\xfe",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.pem"
    path.write_bytes(content)
    with pytest.raises(CertificateUnreadable, match="holds no certificate in PEM"):
        expiry_of(path)


def test_one_that_is_cut_off_is_none_and_one_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    with pytest.raises(CertificateUnreadable, match=r"server\.pem cannot be read: No such file"):
        expiry_of(path)
    whole = certificate(datetime(2031, 1, 1, tzinfo=UTC)).splitlines(keepends=True)
    path.write_bytes(b"".join([*whole[:2], whole[-1]]))
    with pytest.raises(CertificateUnreadable, match="holds no certificate"):
        expiry_of(path)


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
