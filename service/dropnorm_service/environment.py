"""What processes that the service starts may know of its environment: no secrets that they do not need."""

from __future__ import annotations

import os
import re

# Settings reach them by messages, and a token is for clients.
_OWN = re.compile(r"DROPNORM_")
_OF_STORES = re.compile(r"AWS_|AZURE_|GOOGLE_|MLFLOW_|MYSQL_|PG")
_SECRET = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_DSN$|DATABASE_URL|"
    r"CONNECTION_STRING|_URI$",
    re.IGNORECASE,
)


def worker_environment() -> dict[str, str]:
    """For the fork server and what it forks: they train, and talk to nobody but the server."""
    return {
        name: value
        for name, value in os.environ.items()
        if not (_is_ours(name) or _is_secret(name))
    }


def mirror_environment() -> dict[str, str]:
    """For processes that write to MLflow: its libraries find the credentials of stores in it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _is_ours(name) and (_OF_STORES.match(name) or not _is_secret(name))
    }


def _is_ours(name: str) -> bool:
    return _OWN.match(name) is not None


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None
