"""MLflow's store: whether it can be reached. It is not opened, since MLflow migrates what it opens."""

from __future__ import annotations

import http.client
import re
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.settings import Settings
from dropnorm_service.store.inspection import StoreDamaged, check_sqlite
from dropnorm_service.tracking import TrackingConfig, UnsupportedTrackingUri

_PATIENCE = 5.0
_SKEW = timedelta(minutes=1)
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_AWAY = "Start it, or correct --mlflow-tracking-uri; jobs do not wait for it, and the mirror catches up."


def look(settings: Settings) -> Findings:
    """Ask a tracking server who it is, or look whether a database is there."""
    if not settings.tracking:
        yield ok("MLflow", "Jobs are not mirrored (--no-tracking).")
        return
    try:
        config = TrackingConfig.resolve(settings.data_dir, settings.mlflow_tracking_uri)
    except UnsupportedTrackingUri as error:
        yield failure("MLflow", f"{error}.", "Correct --mlflow-tracking-uri.")
        return
    uri = config.tracking_uri
    if config.remote:
        yield from _server(uri)
    elif uri.startswith("sqlite"):
        yield from _file(Path("/" + uri.partition(":///")[2].partition("?")[0].lstrip("/")))
    else:
        yield from _database(uri)


def _server(uri: str) -> Findings:
    shown = re.sub(r"//[^/@]*@", "//", uri)
    request = urllib.request.Request(f"{shown.rstrip('/')}/version")  # noqa: S310 - http(s), as checked
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:  # noqa: S310
            said, headers = reply.read(100).decode("ascii", "replace").strip(), reply.headers
    except urllib.error.HTTPError as error:
        text = f"The tracking server {shown} answers {error.code} {error.reason}."
        if error.code in (401, 403):
            yield ok("MLflow", f"{text} It wants a password, which MLFLOW_TRACKING_* may give.")
        else:
            yield failure("MLflow", text, "See its log: it must answer /version.")
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        yield failure("MLflow", f"The tracking server {shown} cannot be reached ({why}).", _AWAY)
        return
    yield from _compare(said, shown)
    yield from _clock(headers)


def _compare(said: str, shown: str) -> Findings:
    ours = version("mlflow")
    if not re.fullmatch(r"\d+\.\d+\S*", said):
        yield failure(
            "MLflow",
            f"{shown} answers, but is no MLflow tracking server.",
            "Correct --mlflow-tracking-uri.",
        )
    elif said.split(".")[0] != ours.split(".")[0]:
        yield warning(
            "MLflow",
            f"The tracking server runs MLflow {said}, and the mirror {ours}.",
            "Let both be of one major version.",
        )
    else:
        yield ok("MLflow", f"The tracking server {shown} runs MLflow {said}, the mirror {ours}.")


def _clock(headers: Message) -> Findings:
    if date := headers["Date"]:
        apart = parsedate_to_datetime(date) - datetime.now(UTC)
        if abs(apart) > _SKEW:
            yield warning(
                "clock",
                f"MLflow's clock and this one are {abs(apart).total_seconds():.0f} seconds apart.",
                "Set both, best by NTP: runs are dated by the one and shown by the other.",
            )


def _file(path: Path) -> Findings:
    if not path.exists():
        yield ok("MLflow", f"There is no {path} yet; the service makes it when it starts.")
        return
    try:
        check_sqlite(path)
    except StoreDamaged as error:
        yield failure(
            "MLflow",
            f"Its database {path} is damaged: {error}.",
            "Stop the service and restore the file from a backup, or move it away and lose what MLflow has.",
        )
    else:
        yield ok("MLflow", f"Its database {path} can be read.")


def _database(uri: str) -> Findings:
    parts = urlsplit(uri)
    host = parts.hostname or "localhost"
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0], 0)
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except OSError as error:
        yield failure(
            "MLflow", f"Its database on {host}:{port} cannot be reached ({error}).", _AWAY
        )
    else:
        yield ok("MLflow", f"Its database on {host}:{port} can be reached.")
