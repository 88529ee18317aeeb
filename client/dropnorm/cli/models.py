"""`dropnorm models`: trained models in use: predictions, exports, registered names."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import suppress
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any
from zipfile import BadZipFile

import typer
from rich.markup import escape

from dropnorm._arguments import job_name
from dropnorm.cli.model_views import export_view, models_table, predictions_table
from dropnorm.cli.options import DEFAULT_ADDRESS, Address, Json, Shared, connect
from dropnorm.cli.render import stderr, stdout, tell_sharing
from dropnorm.results import ModelExport

app = typer.Typer(help="Predict, export, and register trained models.", no_args_is_help=True)

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A registered model, digits, digits@2 or digits@champion; or trainingJobs/ID of a job.",
    ),
]


RegisteredName = Annotated[str, typer.Argument(metavar="NAME", help="Of the registered model.")]


class Format(StrEnum):
    """A form that a model leaves in."""

    SAFETENSORS = "safetensors"
    PT2 = "pt2"
    ONNX = "onnx"


@app.command()
def predict(
    model: ModelName,
    inputs: Annotated[
        Path,
        typer.Argument(
            metavar="INPUTS",
            help="Raw inputs: .npy, .npz (its X), .csv (a row each), or .json (lists in lists); - reads JSON.",
        ),
    ],
    samples: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Passes with dropout on (MC dropout).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is dropped.")] = 0,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Let a model predict.

    With --json: one JSON object per input and line.
    """
    given = _read(inputs)
    with connect(address) as client:
        said = client.models.predict(model, given, samples=samples, seed=seed)
    if as_json:
        for row in said.rows():
            print(json.dumps({name: _plain(value) for name, value in row.items()}))
    else:
        stdout.print(predictions_table(said))


@app.command()
def export(
    model: ModelName,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the file goes; .onnx, .pt2, .safetensors.")
    ],
    format: Annotated[Format | None, typer.Option(help="Absent: as the file's name ends.")] = None,
    fold_batch_norm: Annotated[
        bool,
        typer.Option(
            "--fold-batch-norm", help="Fold batch norm into the layer before it, take dropout out."
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest deviation, as a share of the largest output; absent: 1e-4."),
    ] = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Have a model written in another form, with proof that it predicts the same, and download it."""
    with connect(address) as client:
        result = client.models.export(
            model,
            path,
            format=format.value if format else None,
            fold_batch_norm=fold_batch_norm,
            tolerance=tolerance,
        )
    _show_export(result, as_json)


@app.command()
def download(
    export: Annotated[
        str,
        typer.Argument(metavar="EXPORT", help="Of a job: trainingJobs/ID/exports/onnx."),
    ],
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the file goes, or a folder for it.")
    ],
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Download the file of an export that was made before, and check it by its SHA-256."""
    with connect(address) as client:
        _show_export(client.models.download(export, path), as_json)


@app.command()
def register(
    name: RegisteredName,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id or name of the job.")],
    alias: Annotated[str | None, typer.Option(help="Means this version from now on.")] = None,
    shared: Shared = False,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make the model of a job a version of a registered model in MLflow."""
    with connect(address) as client:
        version = client.models.register(name, job_name(job), alias=alias, shared=shared)
    if as_json:
        print(version.model_dump_json())
    else:
        stderr.print(f"[bold]{version.name}[/] is the model of {version.training_job}")


@app.command()
def share(name: RegisteredName, as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """Let the project's other users see and use a registered model; they cannot change it."""
    with connect(address) as client:
        tell_sharing(client.models.share(name), as_json)


@app.command()
def unshare(
    name: RegisteredName, as_json: Json = False, address: Address = DEFAULT_ADDRESS
) -> None:
    """Let nobody but admins see a registered model any more."""
    with connect(address) as client:
        tell_sharing(client.models.unshare(name), as_json)


@app.command("alias")
def set_alias(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A version, digits@2; digits: the newest.")
    ],
    alias: Annotated[str, typer.Argument(metavar="ALIAS")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Let an alias mean a version of a registered model."""
    with connect(address) as client:
        known = client.models.set_alias(model, alias)
    stderr.print(f"[bold]{known.name}@{alias}[/] is version {known.aliases[alias]}")


@app.command("unalias")
def delete_alias(
    name: Annotated[str, typer.Argument(metavar="NAME@ALIAS")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Take an alias of a registered model away; the version that it means stays."""
    with connect(address) as client:
        client.models.delete_alias(name)
    stderr.print(f"[bold]{escape(name)}[/] means nothing any more")


@app.command()
def get(
    name: RegisteredName,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Show a registered model, its versions and aliases."""
    with connect(address) as client:
        model = client.models.get(name)
    if as_json:
        print(model.model_dump_json())
    else:
        stdout.print(models_table([model]))


@app.command("list")
def list_models(as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List registered models, their versions and aliases.

    With --json: one JSON object per model and line.
    """
    with connect(address) as client:
        found = list(client.models.list())
    if as_json:
        for model in found:
            print(model.model_dump_json())
    else:
        stdout.print(models_table(found) if found else "[dim]No registered models.")


def _show_export(export: ModelExport, as_json: bool) -> None:
    if as_json:
        print(export.model_dump_json())
    else:
        stdout.print(export_view(export))


def _read(path: Path) -> Any:
    if str(path) == "-":
        return _parsed(_text("standard input", sys.stdin.buffer.read()))
    match path.suffix:
        case ".npy" | ".npz":
            return _array(path)
        case ".csv":
            return _table(_text(path.name, path.read_bytes()))
        case ".json":
            return _parsed(_text(path.name, path.read_bytes()))
        case _:
            raise _wrong(f"{path.name} is no .npy, .npz, .csv or .json file")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"{name} is not UTF-8 from byte {error.start} on; save it as UTF-8"
        raise _wrong(text) from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"this is not JSON: {error}") from error


def _array(path: Path) -> Any:
    from importlib import import_module  # only who has such files has numpy

    try:
        loaded = import_module("numpy").load(path, allow_pickle=False)
        return loaded["X"] if path.suffix == ".npz" else loaded
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        text = f"{path.name} cannot be read: {error}; an .npz file has its inputs under X"
        raise _wrong(text) from error


def _table(text: str) -> list[list[int | float]]:
    """The rows of a CSV file. The first one is the header if none of its cells is a number; empty ones do not count."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise _wrong(f"line {reader.line_num}: {error}") from error
    if rows and all(_number(cell) is None for cell in rows[0][1]):
        del rows[0]
    width = len(rows[0][1]) if rows else 0
    return [_numbers(line, row, width) for line, row in rows]


def _numbers(line: int, row: list[str], width: int) -> list[int | float]:
    if len(row) != width:
        raise _wrong(f"row {line} has {len(row)} columns, and those before it {width}")
    numbers = []
    for column, cell in enumerate(row, start=1):
        number = _number(cell)
        if number is None:
            raise _wrong(f"row {line}, column {column}: {cell!r} is not a number")
        numbers.append(number)
    return numbers


def _number(cell: str) -> int | float | None:
    """What a cell says, whole where it is written so, as tokens are; None: no number."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(cell)
    return None


def _wrong(text: str) -> typer.BadParameter:
    return typer.BadParameter(text, param_hint="INPUTS")


def _plain(value: Any) -> Any:
    """Without NaN and infinities, which JSON has not."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
