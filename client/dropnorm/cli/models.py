"""`dropnorm models`: trained models in use: predictions, exports, registered names."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dropnorm._arguments import job_name
from dropnorm.cli.model_views import export_view, models_table, predictions_table
from dropnorm.cli.options import DEFAULT_ADDRESS, Address, Json
from dropnorm.cli.render import stderr, stdout
from dropnorm.client import Client

app = typer.Typer(help="Predict, export, and register trained models.", no_args_is_help=True)

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A registered model, digits, digits@2 or digits@champion; or trainingJobs/ID of a job.",
    ),
]


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
    with Client(address) as client:
        said = client.models.predict(model, given, samples=samples, seed=seed)
    if as_json:
        for row in said.rows():
            print(json.dumps(row))
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
    with Client(address) as client:
        result = client.models.export(
            model,
            path,
            format=format.value if format else None,
            fold_batch_norm=fold_batch_norm,
            tolerance=tolerance,
        )
    if as_json:
        print(result.model_dump_json())
    else:
        stdout.print(export_view(result))


@app.command()
def register(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the registered model.")],
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id or name of the job.")],
    alias: Annotated[str | None, typer.Option(help="Means this version from now on.")] = None,
    as_json: Json = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Make the model of a job a version of a registered model in MLflow."""
    with Client(address) as client:
        version = client.models.register(name, job_name(job), alias=alias)
    if as_json:
        print(version.model_dump_json())
    else:
        stderr.print(f"[bold]{version.name}[/] is the model of {version.training_job}")


@app.command("alias")
def set_alias(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A version, digits@2; digits: the newest.")
    ],
    alias: Annotated[str, typer.Argument(metavar="ALIAS")],
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Let an alias mean a version of a registered model."""
    with Client(address) as client:
        known = client.models.set_alias(model, alias)
    stderr.print(f"[bold]{known.name}@{alias}[/] is version {known.aliases[alias]}")


@app.command("list")
def list_models(as_json: Json = False, address: Address = DEFAULT_ADDRESS) -> None:
    """List registered models, their versions and aliases.

    With --json: one JSON object per model and line.
    """
    with Client(address) as client:
        found = list(client.models.list())
    if as_json:
        for model in found:
            print(model.model_dump_json())
    else:
        stdout.print(models_table(found) if found else "[dim]No registered models.")


def _read(path: Path) -> Any:
    if str(path) == "-":
        return _parsed(sys.stdin.read())
    match path.suffix:
        case ".npy" | ".npz":
            return _array(path)
        case ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                return _numbers(list(csv.reader(file)))
        case ".json":
            return _parsed(path.read_text(encoding="utf-8"))
        case _:
            text = f"{path.name} is no .npy, .npz, .csv or .json file"
            raise typer.BadParameter(text, param_hint="INPUTS")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is not JSON: {error}", param_hint="INPUTS") from error


def _array(path: Path) -> Any:
    from importlib import import_module  # only who has such files has numpy

    try:
        loaded = import_module("numpy").load(path, allow_pickle=False)
        return loaded["X"] if path.suffix == ".npz" else loaded
    except (ValueError, KeyError) as error:
        text = f"{path.name} cannot be read: {error}; an .npz file has its inputs under X"
        raise typer.BadParameter(text, param_hint="INPUTS") from error


def _numbers(rows: list[list[str]]) -> list[list[float]]:
    numbers = []
    for index, row in enumerate(rows):
        try:
            numbers.append([float(cell) for cell in row])
        except ValueError as error:
            if index:  # the first one may have names
                text = f"row {index + 1}: {error}"
                raise typer.BadParameter(text, param_hint="INPUTS") from error
    return numbers
