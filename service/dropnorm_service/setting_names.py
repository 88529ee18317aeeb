"""Names in the environment and the folder of secrets that look like settings and are none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

_PREFIX = "DROPNORM_"
_OF_CLIENTS = {"ADDRESS", "TLS", "TLS_CA", "TOKEN", "TOKEN_FILE"}
_OF_CONTAINERS = {"DEV_PUBLISH", "IMAGE", "MEMORY", "PUBLISH", "SECRETS", "STOP_GRACE_PERIOD"}
_OF_TESTS = re.compile(r"TEST_")
# What Kubernetes and Docker tell of other services, whose names may begin as ours does.
_OF_LINKS = re.compile(r"(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|(\w+_)?PORT_\d+_(TCP|UDP|SCTP)(_\w+)?")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_NEAR = 0.8


def unknown_variables(known: Collection[str], environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that is neither a setting nor anything else that there is.

    Args:
        known: names of settings.
        environment: values by name.
    """
    for variable, value in sorted(environment.items()):
        prefix, name = variable[: len(_PREFIX)].upper(), variable[len(_PREFIX) :].upper()
        if prefix != _PREFIX or name.lower() in known or name in _OF_CLIENTS | _OF_CONTAINERS:
            continue
        of_link = _OF_LINKS.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS.match(value))
        if not of_link and not _OF_TESTS.match(name):
            near = _nearest(name.lower(), known, cutoff=0.6)
            meant = f"; is {_PREFIX}{near.upper()} meant?" if near else ""
            yield f"{variable}: there is no such setting{meant}; correct the variable, or unset it"


def unknown_files(known: Collection[str], folder: Path) -> Iterator[str]:
    """A sentence for each file of the folder of secrets that is no setting.

    Hidden ones, folders, and files with a suffix are of those who made the folder, as Kubernetes, unless such a file is
    named like a setting.

    Args:
        known: names of settings.
        folder: of secrets.

    Raises:
        OSError: it cannot be read.
    """
    for path in sorted(folder.iterdir()):
        name, dot, _ = path.name.lower().partition(".")
        if path.name.startswith(".") or path.is_dir() or (name in known and not dot):
            continue
        near = _nearest(name, known, cutoff=_NEAR if dot else 0.6)
        if near or not dot:
            meant = f"is {near} meant?" if near else "others belong into another folder"
            yield f"secrets_dir: {path} is no setting, as each file there is; {meant}"


def _nearest(name: str, known: Collection[str], cutoff: float) -> str:
    return next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), "")
