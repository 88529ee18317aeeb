"""What processes that the service starts may know of its environment: no secrets that they do not need."""

from __future__ import annotations

import os
import re

# Settings reach them by messages, and a token is for clients.
_OWN = re.compile(r"DROPNORM_")
_SECRET = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|^PG|^MLFLOW_|_DSN$|"
    r"DATABASE_URL|CONNECTION_STRING",
    re.IGNORECASE,
)


def worker_environment() -> dict[str, str]:
    """For the fork server and what it forks: they train, and talk to nobody but the server."""
    return {name: value for name, value in mirror_environment().items() if not _SECRET.search(name)}


def mirror_environment() -> dict[str, str]:
    """For processes that write to MLflow: their libraries find credentials of stores in it."""
    return {name: value for name, value in os.environ.items() if not _OWN.match(name)}
