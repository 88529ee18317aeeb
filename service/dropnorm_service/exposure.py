"""Whether the settings may be served: nobody listens to the network unguarded without having said so.

Metrics are another matter. They name no job and no user, and Prometheus comes from elsewhere as a rule; so whoever sets
`metrics_host` has said so, and is told once more.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from dropnorm_service.settings import Settings, SettingsError


def check_exposure(settings: Settings) -> None:
    """Refuse to listen to other machines without TLS and tokens, unless `insecure` is set.

    Raises:
        SettingsError: the settings say so, or half of what TLS needs is missing.
    """
    _check_tls_is_whole(settings)
    if settings.insecure or is_loopback(settings.host):
        return
    missing = []
    if settings.tls_certificate is None:
        missing.append("TLS (tls_certificate and tls_key)")
    if settings.authentication == "none":
        missing.append("authentication (authentication = tokens)")
    if missing:
        raise SettingsError(
            f"host: {settings.host or 'an empty host'} can be reached from other machines, and this service would have "
            f"no {' and no '.join(missing)}; set what is missing, listen on 127.0.0.1, or say --insecure if the "
            "network itself keeps others out"
        )


def exposure_of_metrics(settings: Settings) -> str:
    """What is to be known of who can read the metrics, a sentence; empty where it is this machine alone, or nobody.

    Raises:
        SettingsError: `metrics_host` has no address.
    """
    host = settings.metrics_host
    if settings.metrics_port is None or is_loopback(host, "metrics_host"):
        return ""
    return (
        f"the metrics at {host or 'every address'} can be read from other machines, without TLS and without a token; "
        "they name no job and no user, and belong in a network that only Prometheus shares"
    )


def is_loopback(host: str, setting: str = "host") -> bool:
    """Whether every address of a host is of this machine alone.

    Args:
        host: a name or a number.
        setting: what names it.

    Raises:
        SettingsError: the host has no address.
    """
    if not host:
        return False  # gRPC listens on every address then
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"{setting}: {host!r} has no address here ({error}); give one of this machine, as 127.0.0.1 or 0.0.0.0"
        ) from error
    return all(ip_address(address[0]).is_loopback for *_, address in found)


def _check_tls_is_whole(settings: Settings) -> None:
    pair = {"tls_certificate": settings.tls_certificate, "tls_key": settings.tls_key}
    missing = [name for name, path in pair.items() if path is None]
    if len(missing) == 1:
        other = next(name for name in pair if name not in missing)
        raise SettingsError(f"{missing[0]}: is missing, and {other} is of no use without it")
    if missing and settings.tls_client_ca is not None:
        raise SettingsError(
            "tls_client_ca: certificates of clients are checked with TLS only; set tls_certificate and tls_key too"
        )
