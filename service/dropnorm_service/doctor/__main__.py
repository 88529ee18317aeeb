"""Runs the checks that the settings allow, each of them whatever the others find."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dropnorm_service.doctor import (
    data_folder,
    installation,
    limits,
    mlflow,
    places,
    ports,
    store,
    tls,
)
from dropnorm_service.doctor.findings import Finding, Findings, failure, ok
from dropnorm_service.settings import Settings, SettingsError

Check = Callable[[Settings], Findings]

CHECKS: Mapping[str, Check] = {
    "devices": installation.look_at_devices,
    "limits": limits.look,
    "data folder": data_folder.look,
    "store": store.look,
    "MLflow": mlflow.look,
    "places": places.look,
    "ports": ports.look,
    "TLS": tls.look,
}
"""What is looked at once the settings are known."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print findings; the exit status is 1 when one is a failure."""
    failed = False
    for finding in examine(sys.argv[1:] if arguments is None else arguments):
        print(finding.to_json(), flush=True)
        failed |= finding.status == "failure"
    return int(failed)


def examine(arguments: Sequence[str]) -> Findings:
    """Every finding for a service that is started with these flags."""
    yield from _guarded("installation", installation.look)
    try:
        settings = Settings.load(arguments)
    except SettingsError as error:
        yield failure("settings", f"{error}.", "Correct them; `dropnorm serve --help` lists all.")
        return
    yield ok("settings", f"They can be used; the data folder is {settings.data_dir}.")
    for name, look in CHECKS.items():
        yield from _guarded(name, partial(look, settings))


def _guarded(name: str, look: Callable[[], Findings]) -> Findings:
    """A check that breaks is a finding too, and no reason to leave out the others."""
    try:
        yield from look()
    except Exception as error:
        text = f"The check itself failed ({type(error).__name__}: {error})."
        yield Finding(name, "failure", text, "Please report this, with the output of --json.")


if __name__ == "__main__":
    sys.exit(main())
