"""Who may reach the service: TLS, authentication, and when the certificate expires."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dropnorm_service.api.tls import Certificates, TlsFiles, UnusableCertificate
from dropnorm_service.certificates import expiry_in
from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.exposure import check_exposure, exposure_of_metrics, is_loopback
from dropnorm_service.settings import Settings, SettingsError

_SOON = timedelta(days=30)


def look(settings: Settings) -> Findings:
    """Whether the service would listen so, and with which certificate."""
    try:
        check_exposure(settings)
        local = is_loopback(settings.host)
        told = exposure_of_metrics(settings)
    except SettingsError as error:
        yield failure(
            "exposure", f"{error}.", "The service does not start so; correct the settings."
        )
        return
    if settings.authentication == "none" and not local:
        yield warning(
            "authentication",
            f"Everybody who reaches {settings.host} may do everything (--insecure).",
            "Set --authentication tokens, and give each user one with `dropnorm tokens create`.",
        )
    else:
        users = "of this machine" if local and settings.authentication == "none" else "with a token"
        yield ok("authentication", f"Callers {users} are served.")
    if told:
        yield warning(
            "metrics",
            f"{told[0].upper()}{told[1:]}.",
            "Leave --metrics-host on 127.0.0.1 otherwise.",
        )
    yield from _certificate(settings)


def _certificate(settings: Settings) -> Findings:
    if settings.tls_certificate is None or settings.tls_key is None:
        yield ok("TLS", "The service speaks none.")
        return
    files = TlsFiles(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        client_ca=settings.tls_client_ca,
    )
    try:
        certificates = Certificates(files)
    except UnusableCertificate as error:
        do = "Put valid files there; they are taken without a restart."
        yield failure("TLS", f"{error}.", do)
        return
    if certificates.warning:
        do = "Take them out, or put newer ones in their place; it is taken without a restart."
        yield warning("TLS", f"{certificates.warning}.", do)
    expiry = expiry_in(certificates.in_use)
    text = (
        f"The certificate {settings.tls_certificate} can be used and expires on {expiry:%Y-%m-%d}."
    )
    if expiry - datetime.now(UTC) < _SOON:
        yield warning("TLS", text, "Put a new one in its place; it is taken without a restart.")
    else:
        yield ok("TLS", text)
