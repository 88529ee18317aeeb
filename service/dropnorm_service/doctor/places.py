"""What settings name beside the data folder: the audit log's file, folders of data sets, a collector of traces."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from dropnorm_service.doctor.findings import Findings, failure, ok, warning
from dropnorm_service.settings import Settings

_PATIENCE = 5.0
_PORTS = {"http": 80, "https": 443}


def look(settings: Settings) -> Findings:
    """Each of them that is set; nothing is written."""
    if settings.audit_log is not None:
        yield from _audit_log(settings.audit_log)
    folders = {"import_dirs": settings.import_dirs}
    if settings.datasets_dir is not None:
        folders["datasets_dir"] = [settings.datasets_dir]
    for setting, paths in folders.items():
        for path in paths:
            yield from _folder(setting, path)
    if settings.tracing_endpoint is not None:
        yield from _collector(settings.tracing_endpoint)


def _audit_log(path: Path) -> Findings:
    try:
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            what = "is not there" if not path.parent.exists() else "cannot be written"
            raise OSError(0, f"its folder {what}")
    except OSError as error:
        yield failure(
            "audit log",
            f"audit_log: {path} cannot be written: {error.strerror}.",
            "Make the folder for the service's user, or choose another --audit-log; the service does not start so.",
        )
        return
    yield ok("audit log", f"{path} can be written.")


def _folder(setting: str, path: Path) -> Findings:
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        yield warning(
            "data sets",
            f"{setting}: {path} cannot be read: {error.strerror}.",
            f"Make it readable for the service's user, or take it out of --{setting.replace('_', '-')}.",
        )
        return
    yield ok("data sets", f"{path} can be read.")


def _collector(endpoint: str) -> Findings:
    try:
        import dropnorm_service.observability.tracing  # noqa: F401 - whether it can be
    except ModuleNotFoundError as error:
        yield failure(
            "tracing",
            f"tracing_endpoint: traces need {error.name}, which is not installed.",
            "pip install 'dropnorm[tracing]', or set no --tracing-endpoint.",
        )
        return
    parts = urlsplit(endpoint)
    address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
    try:
        socket.create_connection(address, timeout=_PATIENCE).close()
    except OSError as error:
        yield warning(
            "tracing",
            f"No collector answers at {address[0]}:{address[1]} ({error.strerror or error}); traces alone are lost.",
            "Start it, or correct --tracing-endpoint.",
        )
        return
    yield ok("tracing", f"{address[0]}:{address[1]} takes connections.")
