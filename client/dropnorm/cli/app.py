"""The commands, and what each needs of the SDK."""

from __future__ import annotations

import json
import os
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

import dropnorm
from dropnorm._connection import TLS
from dropnorm.cli import datasets, jobs, models
from dropnorm.cli.doctor import examine_client, examine_service, service_is_installed, show
from dropnorm.cli.exits import EXIT_HELP, Exit, errors_to_status
from dropnorm.cli.options import (
    DEFAULT_ADDRESS,
    Address,
    Insecure,
    Json,
    Shared,
    TlsCa,
    TlsCertificate,
    TlsKey,
    TlsWanted,
    TokenFile,
    choose_access,
    connect,
)
from dropnorm.cli.render import evaluation_view, plan_view, stderr, stdout, workers_table
from dropnorm.embedded import require_service
from dropnorm.job_handle import JobHandle
from dropnorm.spec import TrainingSpec

app = typer.Typer(
    name="dropnorm",
    help="Train neural networks as a service, and learn what dropout and batch normalisation did for them.",
    epilog=EXIT_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")

# All that follows such a command is for the program that it goes on as.
_ANOTHER_PROGRAM = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}

SpecFile = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="A TrainingSpec as YAML or JSON; see `dropnorm schema`."),
]


def run() -> None:
    """Run the command line of this process; errors become exit statuses."""
    with errors_to_status():
        app(prog_name="dropnorm")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    token_file: TokenFile = None,
    tls: TlsWanted = None,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    insecure: Insecure = False,
) -> None:
    """Options of the command itself, and of how it reaches the service."""
    files = TLS(ca=tls_ca, certificate=tls_certificate, key=tls_key)
    choose_access(token_file=token_file, tls=tls, files=files, insecure=insecure)
    if version:
        print(dropnorm.__version__)
        raise typer.Exit


@app.command()
def train(
    spec_file: SpecFile,
    name: Annotated[str | None, typer.Option(help="Name for people; absent: the file's.")] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment of the run.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For filtering; repeatable.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="-1000 to 1000, higher first.")] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="The job's id.")] = None,
    shared: Shared = False,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the job's id and do not wait for it.")
    ] = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Train what a file describes; follow it and print its evaluation.

    With --json: the job, as one JSON object, once it has ended (or, with --detach, once it is accepted).
    """
    spec = TrainingSpec.from_file(spec_file)
    with connect(address) as client:
        job = client.train(
            spec,
            name=spec_file.stem if name is None else name,
            experiment=experiment,
            labels=_labels(label or []),
            priority=priority,
            shared=shared,
            job_id=job_id,
        )
        if detach:
            print(job.snapshot.model_dump_json() if as_json else job.id)
        else:
            _follow(job, as_json)


@app.command()
def plan(spec_file: SpecFile, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show what a file's training comes to, before anything is spent: layers, steps, memory, and likely mistakes."""
    spec = TrainingSpec.from_file(spec_file)
    with connect(address) as client:
        result = client.plan(spec)
    if as_json:
        print(result.model_dump_json())
    else:
        stdout.print(plan_view(result, spec))


@app.command()
def workers(as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show the machines that run jobs, their slots, and what each slot runs.

    With --json: one JSON object per machine and line.
    """
    with connect(address) as client:
        found = client.workers()
    if as_json:
        for worker in found:
            print(worker.model_dump_json())
    else:
        stdout.print(workers_table(found))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a TrainingSpec, for editors and other languages."""
    print(json.dumps(TrainingSpec.model_json_schema(), indent=2))


@app.command(context_settings=_ANOTHER_PROGRAM)
def tokens(context: typer.Context) -> None:
    """Make, list and revoke the tokens of a service on this machine, see `dropnorm tokens --help`."""
    _become("dropnorm_service.tokens", context.args)


@app.command(context_settings=_ANOTHER_PROGRAM)
def backup(context: typer.Context) -> None:
    """Copy all that a service of this machine keeps, while it runs, into a new folder, see `dropnorm backup --help`."""
    _become("dropnorm_service.backup", context.args)


@app.command(context_settings=_ANOTHER_PROGRAM)
def serve(context: typer.Context) -> None:
    """Run a service; every flag is the service's own, see `dropnorm serve --help`."""
    _become("dropnorm_service", context.args)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
    }
)
def doctor(
    context: typer.Context,
    as_json: Json = False,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="DROPNORM_ADDRESS",
            metavar="HOST:PORT",
            help="Also look whether this service can be used from here.",
        ),
    ] = None,
) -> None:
    """Check what a service needs to run here, or a client to reach one, and say what to do.

    Changes nothing, and may run beside a service. Takes the flags of `dropnorm serve` and checks what they mean; where
    the service is not installed it checks the client's side alone. Exit status: 0 all is well but for warnings · 1 not.

    With --json: one JSON object per finding and line.
    """
    findings = []
    if service_is_installed():
        findings.append(examine_service(context.args))
    if address is not None or not findings:
        findings.append(examine_client(address or DEFAULT_ADDRESS))
    raise typer.Exit(show(chain.from_iterable(findings), as_json=as_json))


@app.command()
def ui(
    data_dir: Annotated[
        Path | None, typer.Option(envvar="DROPNORM_DATA_DIR", help="Data folder of the service.")
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="DROPNORM_MLFLOW_TRACKING_URI", help="MLflow tracking URI; absent: the folder's."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Serve MLflow's page on a service's runs, until interrupted."""
    arguments = ["--port", str(port), "--data-dir", str(data_dir or _service_data_dir())]
    if tracking_uri is not None:  # it may have a password
        os.environ["DROPNORM_MLFLOW_TRACKING_URI"] = tracking_uri
    _become("dropnorm_service.tracking.ui", arguments)


@app.command()
def demo(
    mnist: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Train on MNIST, whose four files are here."),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("dropnorm-demo"),
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Repetitions of each way.")] = 3,
) -> None:
    """Train one network four ways (plain, dropout, batch norm, both) on real data, and compare them."""
    from dropnorm.cli.demo import run_demo  # the only command that draws

    run_demo(mnist=mnist, data_dir=data_dir, seeds=seeds)


def _follow(job: JobHandle, as_json: bool) -> None:
    """Wait for a job and show its evaluation; as JSON the job is shown however it ends."""
    if not as_json:
        stderr.print(f"[bold]{job.name}[/] is {job.state}")
    try:
        evaluation = job.result(progress=not as_json)
    except KeyboardInterrupt:
        stderr.print(
            f"\nThe job goes on. [bold]dropnorm jobs watch {job.id}[/] follows it, "
            f"[bold]dropnorm jobs cancel {job.id}[/] ends it."
        )
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        if as_json:
            print(job.snapshot.model_dump_json())
    if not as_json:
        stdout.print(evaluation_view(evaluation))


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"a label is KEY=VALUE, not {pair!r}", param_hint="--label")
        labels[key] = value
    return labels


def _service_data_dir() -> Path:
    """The service's own default."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "dropnorm"


def _become(module: str, arguments: list[str]) -> None:
    """Go on as another program."""
    require_service()
    sys.stdout.flush()
    # -P: the working folder may hold a module of any name.
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606
