"""`dropnorm doctor`: what keeps a client from reaching a service, and what keeps a service from running here."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from rich.markup import escape

import dropnorm
from dropnorm import errors
from dropnorm.cli.options import connect
from dropnorm.cli.render import stdout

_PATIENCE = 5.0
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failure": "[bold red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; the service's own doctor says them in the same form."""

    check: str
    status: str
    text: str
    do: str = ""


def service_is_installed() -> bool:
    """Whether this machine could run a service, or was to."""
    return find_spec("dropnorm_service") is not None and find_spec("pydantic_settings") is not None


def examine_service(arguments: Sequence[str]) -> Iterator[Finding]:
    """What the service's doctor finds, in a process of its own, as it finds it."""
    # -P: the working folder may hold a module of any name.
    command = [sys.executable, "-P", "-m", "dropnorm_service.doctor", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Finding(**json.loads(line))
    if process.returncode not in (0, 1):
        yield Finding(
            "service",
            "failure",
            f"Its checks ended with status {process.returncode}; what it said is above.",
            "Correct the flags (`dropnorm serve --help`), or install it anew: pip install 'dropnorm[service]'.",
        )


def examine_client(address: str) -> Iterator[Finding]:
    """What a client finds that wants to use the service at an address."""
    version = f"dropnorm {dropnorm.__version__}, Python {platform.python_version()}"
    yield Finding("client", "ok", f"{version}, grpcio {_grpc_version()}.")
    try:
        with connect(address) as client:
            workers = client.workers(timeout=_PATIENCE)
    except (errors.Unavailable, errors.DeadlineExceeded) as error:
        yield Finding(
            "service",
            "failure",
            str(error),
            "Start it (`dropnorm serve`), or give its --address, and see to it that no firewall is in between "
            "and that both sides use TLS, or neither.",
        )
    except (errors.PermissionDenied, errors.Unauthenticated) as error:
        yield Finding(
            "service",
            "failure",
            f"{address} answers, and does not let us in: {error}",
            "Ask for a token (`dropnorm tokens create` on the service's machine) and set DROPNORM_TOKEN.",
        )
    except errors.InvalidRequest as error:  # what a client is given, before anything is sent
        yield Finding("access", "failure", str(error), "Correct the address, token or TLS files.")
    except errors.DropnormError as error:
        yield Finding("service", "failure", str(error), "See the service's log.")
    else:
        slots = sum(len(worker.slots) for worker in workers)
        yield Finding("service", "ok", f"{address} answers; it has {slots} slots.")
        yield _skew(workers[0].version if workers else "")


def show(findings: Iterator[Finding], *, as_json: bool) -> int:
    """Print findings as they come; the exit status."""
    counts = dict.fromkeys(_MARKS, 0)
    for finding in findings:
        counts[finding.status] += 1
        if as_json:
            print(json.dumps(asdict(finding)), flush=True)
            continue
        stdout.print(
            f"{_MARKS[finding.status]} [bold]{escape(finding.check)}[/]: {escape(finding.text)}",
            soft_wrap=True,
        )
        if finding.do:
            stdout.print(f"    [dim]→[/] {escape(finding.do)}", soft_wrap=True)
    if not as_json:
        stdout.print(f"\n{counts['failure']} failures, {counts['warning']} warnings.")
    return int(counts["failure"] > 0)


def _skew(theirs: str) -> Finding:
    ours = dropnorm.__version__
    if theirs == ours:
        return Finding("version", "ok", f"The service runs dropnorm {theirs} too.")
    return Finding(
        "version",
        "warning",
        f"The service runs dropnorm {theirs or 'of before 0.1'}, and this client is {ours}.",
        "The older one does not know all that the newer one can; install the same version on both sides.",
    )


def _grpc_version() -> str:
    import grpc

    return str(grpc.__version__)
