"""Whether the service of this machine can work: `python -m dropnorm_service.probe`, with the settings of that service.

It asks the standard health service, which needs no token, and is what containers call as their health check.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Sequence

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from dropnorm_service.settings import Settings, SettingsError

_TIMEOUT = 10.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to ask, not where to listen

_DIRECT = [("grpc.enable_http_proxy", 0)]


class NotServing(Exception):
    """The service cannot work, or does not answer; the message says which."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask; the exit status is 0 when the service can work, 1 when it cannot, 2 for wrong settings."""
    try:
        probe(Settings.load(sys.argv[1:] if arguments is None else arguments))
    except SettingsError as error:
        print(f"dropnorm probe: {error}", file=sys.stderr)
        return 2
    except NotServing as error:
        print(f"dropnorm probe: {error}", file=sys.stderr)
        return 1
    return 0


def probe(settings: Settings) -> None:
    """Ask the service with these settings whether it can work.

    Raises:
        NotServing: it says that it cannot, or does not answer within some seconds.
    """
    host, port = _ANYWHERE.get(settings.host, settings.host), settings.port
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with _channel(settings, host, address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                HealthCheckRequest.SerializeToString,
                HealthCheckResponse.FromString,
            )
            reply = check(HealthCheckRequest(), timeout=_TIMEOUT)
    except OSError as error:
        raise NotServing(f"nothing answers at {address}: {error}") from error
    except grpc.RpcError as error:
        raise NotServing(f"nothing answers at {address}: {error.details()}") from error
    if reply.status != HealthCheckResponse.SERVING:
        status = HealthCheckResponse.ServingStatus.Name(reply.status)
        raise NotServing(f"the service at {address} says {status}; its log says why")


def _channel(settings: Settings, host: str, address: str) -> grpc.Channel:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return grpc.insecure_channel(address, options=_DIRECT)
    # Where clients show certificates, its own is the only one that is surely here.
    own = (key.read_bytes(), certificate.read_bytes()) if settings.tls_client_ca else ()
    # Whoever listens here is trusted: it is asked how it is, and told nothing.
    served = ssl.DER_cert_to_PEM_cert(_handshake(settings, host, None)[0])
    names = _handshake(settings, host, served)[1]
    # The address it is asked under need not be one that its certificate is for.
    named = [("grpc.ssl_target_name_override", name.replace("*", "any", 1)) for name in names[:1]]
    credentials = grpc.ssl_channel_credentials(served.encode(), *own)
    return grpc.secure_channel(address, credentials, options=[*_DIRECT, *named])


def _handshake(settings: Settings, host: str, trusted: str | None) -> tuple[bytes, list[str]]:
    """The certificate that the service shows; with the names it is for where it is a trusted one, in PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])  # without it gRPC would log a broken client
    if trusted is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=trusted)
    if settings.tls_client_ca is not None and settings.tls_certificate is not None:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    with (
        socket.create_connection((host, settings.port), timeout=_TIMEOUT) as connection,
        context.wrap_socket(connection) as secured,
    ):
        subject = secured.getpeercert() or {}
        return (
            secured.getpeercert(binary_form=True) or b"",
            [str(entry[1]) for entry in subject.get("subjectAltName", ())],
        )


if __name__ == "__main__":
    sys.exit(main())
