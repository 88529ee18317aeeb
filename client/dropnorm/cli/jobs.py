"""`dropnorm jobs`: look at jobs and steer them."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from dropnorm.cli.exits import status_of_state
from dropnorm.cli.options import DEFAULT_ADDRESS, Address, Json, connect
from dropnorm.cli.render import event_line, job_view, jobs_table, stderr, stdout, tell_sharing
from dropnorm.job_handle import JobHandle

app = typer.Typer(help="List, show, follow and steer jobs.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id or name of a job.")]


@app.command("list")
def list_jobs(
    filter: Annotated[
        str, typer.Option(help="AIP-160: 'state = RUNNING AND labels.team = \"vision\"'.")
    ] = "",
    order_by: Annotated[str, typer.Option(help="AIP-132: 'priority desc, create_time'.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10**9, help="Jobs shown at most.")] = 20,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List jobs, newest first unless told otherwise.

    With --json: one JSON object per job and line.
    """
    with connect(address) as client:
        handles = client.jobs(
            filter=filter, order_by=order_by, page_size=min(limit + 1, 1000), evaluations=True
        )
        found = [handle.snapshot for handle in islice(handles, limit + 1)]
    if as_json:
        for job in found[:limit]:
            print(job.model_dump_json())
        return
    stdout.print(jobs_table(found[:limit]) if found else "[dim]No jobs.")
    if len(found) > limit:
        stderr.print(f"[dim]These are {limit}, and there are more: --limit shows them.")


@app.command()
def get(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show one job, with its evaluation."""
    with connect(address) as client:
        _show(client.job(job), as_json)


@app.command()
def watch(
    job: JobId,
    after: Annotated[int, typer.Option(min=0, help="Leave out events up to this one.")] = 0,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Follow a job's journal until the job has ended; the exit status says how.

    With --json: one JSON object per event and line.
    """
    with connect(address) as client:
        handle = client.job(job)
        for event in handle.watch(after=after):
            if as_json:
                print(event.model_dump_json(), flush=True)
            else:
                stdout.print(event_line(event), soft_wrap=True)
        raise typer.Exit(status_of_state(handle.state))


@app.command()
def cancel(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """End a job for good; its history and last checkpoint are kept."""
    with connect(address) as client:
        _moved(client.job(job).cancel(), as_json)


@app.command()
def pause(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Take a job out of its slot, to go on later from a checkpoint."""
    with connect(address) as client:
        _moved(client.job(job).pause(), as_json)


@app.command()
def resume(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Queue a paused job again."""
    with connect(address) as client:
        _moved(client.job(job).resume(), as_json)


@app.command()
def share(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Let the project's other users see and use a job; they cannot change it."""
    with connect(address) as client:
        tell_sharing(client.job(job).share().snapshot, as_json)


@app.command()
def unshare(job: JobId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Let nobody but admins see a job any more."""
    with connect(address) as client:
        tell_sharing(client.job(job).unshare().snapshot, as_json)


@app.command()
def delete(
    job: JobId,
    force: Annotated[bool, typer.Option("--force", help="End it first if need be.")] = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Delete a job, its journal and its files; its MLflow run stays.

    With --json: the job as it was last seen.
    """
    with connect(address) as client:
        handle = client.job(job)
        handle.delete(force=force)
    if as_json:
        print(handle.snapshot.model_dump_json())
    else:
        stderr.print(f"[bold]{handle.name}[/] is deleted")


def _show(job: JobHandle, as_json: bool) -> None:
    if as_json:
        print(job.snapshot.model_dump_json())
    else:
        stdout.print(job_view(job.snapshot))


def _moved(job: JobHandle, as_json: bool) -> None:
    if as_json:
        print(job.snapshot.model_dump_json())
    else:
        stderr.print(f"[bold]{job.name}[/] is {job.state}")
