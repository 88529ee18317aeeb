"""Options that many commands take, and those before a command, which say how all of them reach the service."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dropnorm._connection import DEFAULT_ADDRESS, TLS, read_token
from dropnorm.client import Client

__all__ = [
    "DEFAULT_ADDRESS",
    "Address",
    "Insecure",
    "Json",
    "Shared",
    "TlsCa",
    "TlsCertificate",
    "TlsKey",
    "TlsWanted",
    "TokenFile",
    "choose_access",
    "connect",
]

Address = Annotated[
    str, typer.Option(envvar="DROPNORM_ADDRESS", metavar="HOST:PORT", help="The service.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Shared = Annotated[
    bool, typer.Option("--shared", help="Let the project's other users see and use it.")
]

TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the token to show to the service; absent: DROPNORM_TOKEN, or DROPNORM_TOKEN_FILE.",
    ),
]
TlsWanted = Annotated[
    bool | None,
    typer.Option(
        "--tls/--no-tls", envvar="DROPNORM_TLS", help="Speak TLS; a --tls-ca says so too."
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        envvar="DROPNORM_TLS_CA", help="PEM file of the authorities to trust; absent: the system's."
    ),
]
TlsCertificate = Annotated[
    Path | None,
    typer.Option(
        envvar="DROPNORM_TLS_CERTIFICATE", help="PEM file of a certificate to show to the service."
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(envvar="DROPNORM_TLS_KEY", help="PEM file of that certificate's private key."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token in plain text, to any machine.")
]


@dataclass(frozen=True, kw_only=True)
class _Access:
    token_file: Path | None = None
    tls: bool | TLS | None = None
    insecure: bool = False


_access: ContextVar[_Access] = ContextVar("access", default=_Access())  # noqa: B039 - it is frozen


def choose_access(*, token_file: Path | None, tls: bool | None, files: TLS, insecure: bool) -> None:
    """Remember the options before the command; a file says that TLS is wanted, unless --no-tls does not want it."""
    wanted = tls or (tls is None and files != TLS())
    _access.set(_Access(token_file=token_file, tls=files if wanted else tls, insecure=insecure))


def connect(address: str) -> Client:
    """A client of the service at an address, as the options before the command say."""
    access = _access.get()
    return Client(
        address,
        token=read_token(access.token_file) if access.token_file else None,
        tls=access.tls,
        insecure=access.insecure,
    )
