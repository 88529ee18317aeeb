"""What processes that the service starts may know of its environment: no secrets that they do not need."""

from __future__ import annotations

import os
import re

from dropnorm_service.redaction import hold_secrets

# Settings reach them by messages, and a token is for clients.
_OWN = re.compile(r"DROPNORM_")
_OF_STORES = re.compile(r"AWS_|AZURE_|GOOGLE_|MLFLOW_|MYSQL_|PG")
_SECRET = re.compile(
    r"PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|_KEY$|_PASS$|_PWD$|AUTH|HEADERS|_DSN$|DATABASE_URL|"
    r"CONNECTION_STRING|_URI$",
    re.IGNORECASE,
)
# Whoever goes through a proxy, as for the data sets that workers download, has to say its password.
_OF_PROXIES = re.compile(r"(?:HTTPS?|ALL)_PROXY", re.IGNORECASE)


def worker_environment() -> dict[str, str]:
    """For the fork server and what it forks: they train, and talk to nobody but the server and data sets' mirrors."""
    return {
        name: value
        for name, value in os.environ.items()
        if not (_OWN.match(name) or _OF_STORES.match(name) or _is_secret(name, value))
    }


def mirror_environment() -> dict[str, str]:
    """For processes that write to MLflow: its libraries find the credentials of stores in it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _OWN.match(name) and (_OF_STORES.match(name) or not _is_secret(name, value))
    }


def _is_secret(name: str, value: str) -> bool:
    if _OF_PROXIES.fullmatch(name):
        return False
    return _SECRET.search(name) is not None or hold_secrets([value])
