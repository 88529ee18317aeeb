"""`dropnorm datasets`: your own data, in the service."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dropnorm.cli.options import DEFAULT_ADDRESS, Address, Json, Shared, connect
from dropnorm.cli.render import datasets_table, stderr, stdout, tell_sharing
from dropnorm.datasets import Bundle, write_bundle
from dropnorm.results import Dataset

app = typer.Typer(help="Upload, list, show and delete data sets.", no_args_is_help=True)

DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="Id or name of a data set.")]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="An .npz (X and y), .csv or .parquet file; IDX files of images and labels; a folder of images by class; "
        "a .txt file, or two with sources and targets line by line.",
    ),
]


class Task(StrEnum):
    """What the targets are."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class Tokens(StrEnum):
    """What a text is made of."""

    CHARACTERS = "characters"
    WORDS = "words"


Target = Annotated[
    str | None, typer.Option(help="Of a table: the target's column; absent: the last.")
]
Text = Annotated[
    str | None,
    typer.Option(help="Of a table: the column of texts that alone are the samples."),
]
TaskOption = Annotated[
    Task | None, typer.Option(help="Where the type of the targets does not say it.")
]
TokensOption = Annotated[Tokens, typer.Option(help="Of a text: what a token is.")]
Length = Annotated[
    int,
    typer.Option(min=2, max=4096, help="Of a text: tokens of a piece, of a table's texts at most."),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="HEIGHTxWIDTH", help="Of images: the size they are brought to."),
]


@app.command()
def upload(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What data.dataset will call it.")],
    files: Files,
    target: Target = None,
    text: Text = None,
    task: TaskOption = None,
    tokens: TokensOption = Tokens.CHARACTERS,
    length: Length = 128,
    size: Size = None,
    shared: Shared = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Upload a data set; run it again after a broken connection, and it goes on where it was."""
    bundle = _bundle(files, target, text, task, tokens, length, size)
    with connect(address) as client:
        _show(client.datasets.upload_bundle(name, bundle, shared=shared), as_json)


@app.command()
def pack(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write.")],
    files: Files,
    target: Target = None,
    text: Text = None,
    task: TaskOption = None,
    tokens: TokensOption = Tokens.CHARACTERS,
    length: Length = 128,
    size: Size = None,
) -> None:
    """Write a data set's file without uploading it, for a folder that the service imports from."""
    bundle = _bundle(files, target, text, task, tokens, length, size)
    digest = write_bundle(bundle, output)
    stderr.print(f"[bold]{escape(str(output))}[/] is written, SHA-256 {digest}", soft_wrap=True)


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What data.dataset will call it.")],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A packed file on the service's machine.")
    ],
    shared: Shared = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make a data set of a file on the service's machine, in a folder that its setting import_dirs names."""
    with connect(address) as client:
        _show(client.datasets.import_file(name, path, shared=shared), as_json)


@app.command("list")
def list_datasets(
    filter: Annotated[
        str, typer.Option(help="As in 'task = classification AND samples >= 1000'.")
    ] = "",
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """List the uploaded data sets.

    With --json: one JSON object per data set and line.
    """
    with connect(address) as client:
        found = list(client.datasets.list(filter=filter))
    if as_json:
        for dataset in found:
            print(dataset.model_dump_json())
    else:
        stdout.print(datasets_table(found) if found else "[dim]No data sets.")


@app.command()
def get(dataset: DatasetId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Show one data set."""
    with connect(address) as client:
        _show(client.datasets.get(dataset), as_json)


@app.command()
def share(dataset: DatasetId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Let the project's other users see a data set and train on it; they cannot change it."""
    with connect(address) as client:
        tell_sharing(client.datasets.share(dataset), as_json)


@app.command()
def unshare(dataset: DatasetId, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Let nobody but admins see a data set any more; jobs that were accepted on it go on."""
    with connect(address) as client:
        tell_sharing(client.datasets.unshare(dataset), as_json)


@app.command()
def delete(dataset: DatasetId, address: Address = DEFAULT_ADDRESS) -> None:
    """Delete a data set; refused while jobs that have not ended use it."""
    with connect(address) as client:
        client.datasets.delete(dataset)
    stderr.print(f"[bold]{escape(dataset)}[/] is deleted", soft_wrap=True)


def _bundle(
    files: list[Path],
    target: str | None,
    text: str | None,
    task: Task | None,
    tokens: Tokens,
    length: int,
    size: str | None,
) -> Bundle:
    from dropnorm.datasets.files import from_files  # numpy, which other commands need not wait for

    return from_files(
        files,
        target=target,
        text=text,
        task=task.value if task else None,
        tokens=tokens.value,
        length=length,
        size=_size(size),
    )


def _show(dataset: Dataset, as_json: bool) -> None:
    if as_json:
        print(dataset.model_dump_json())
    else:
        stdout.print(datasets_table([dataset]))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(
            f"a size is HEIGHTxWIDTH, 28x28, not {text!r}", param_hint="--size"
        )
    return int(height), int(width)
