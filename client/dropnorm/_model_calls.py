"""Requests about models, and what their replies come to, for both clients. No input or output."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from pydantic import ValidationError

from dropnorm import wire
from dropnorm._arguments import job_name, model_name, request
from dropnorm._arrays import joined, packed
from dropnorm._calls import SHARED, Attempts, Call, Page
from dropnorm.errors import Internal, InvalidRequest
from dropnorm.results import Model, ModelExport, ModelVersion, Prediction
from dropnorm.spec import DropoutSampling, ExportFormat, ExportSettings, Problem
from dropnorm.spec._base import problems_of
from dropnorm.v1 import model_pb2, model_service_pb2

_CALL_PASSES = 100_000
_TENSORS = (
    "outputs",
    "probabilities",
    "entropy",
    "standard_deviation",
    "mutual_information",
)


class Predicting:
    """Predict, a call for each piece of the inputs, and what comes of them all.

    Args:
        model: its name.
        inputs: an array of any kind.
        samples: passes with dropout on; None: a single one with dropout off.
        seed: of what is dropped.
        batch_size: inputs of a call; None: as many as fit.

    Raises:
        InvalidRequest: the inputs are no array, or samples, seed or batch_size out of range.
    """

    def __init__(
        self, model: str, inputs: Any, *, samples: int | None, seed: int, batch_size: int | None
    ) -> None:
        self._model = model_name(model)
        self._sampling = None if samples is None else {"samples": samples, "seed": seed}
        self._sampling_at(0)
        self._inputs = packed(inputs)
        self._count = self._inputs.inputs_of_a_call(batch_size)
        if samples is not None:  # each input has passes of its own, and a call has a time limit
            self._count = max(1, min(self._count, _CALL_PASSES // samples))
        self._parts: list[Prediction] = []
        self._done = 0

    def calls(self) -> Iterator[Call[Prediction]]:
        """One call after the other; each is answered by `accept` or `refuse` before the next is taken."""
        while not self._parts or self._done < len(self._inputs):
            piece = self._inputs.cut(self._done, self._count)
            asked = request(model_service_pb2.PredictRequest, model=self._model)
            asked.inputs.CopyFrom(wire.to_message(piece, model_pb2.Tensor))
            if sampling := self._sampling_at(self._done):
                asked.sampling.CopyFrom(wire.to_message(sampling, model_pb2.DropoutSampling))
            yield Call(method="Predict", request=asked, read=_read_prediction)

    def accept(self, part: Prediction) -> None:
        """Keep what was said of a piece."""
        self._parts.append(part)
        self._done += len(part)

    def refuse(self, error: InvalidRequest) -> None:
        """Cut smaller from the refused piece on, if its outputs were too many.

        Raises:
            InvalidRequest: something else was wrong.
        """
        limit = int(error.metadata.get("limit", 0)) if error.reason == "TOO_MANY_INPUTS" else 0
        if not 0 < limit < self._count:
            raise error
        self._count = limit

    def together(self) -> Prediction:
        """The predictions of all pieces as one."""
        first, *others = self._parts
        if not others:
            return first
        whole = {
            name: joined([getattr(part, name) for part in self._parts])
            for name in _TENSORS
            if getattr(first, name) is not None
        }
        return first.model_copy(update=whole)

    def _sampling_at(self, offset: int) -> DropoutSampling | None:
        if self._sampling is None:
            return None
        try:
            return DropoutSampling.model_validate({**self._sampling, "offset": offset})
        except ValidationError as error:
            raise InvalidRequest(problems=problems_of(error)) from error


def export(
    model: str,
    path: str | Path | None,
    *,
    format: ExportFormat | None,
    fold_batch_norm: bool,
    tolerance: float | None,
) -> Call[ModelExport]:
    """ExportModel. Repeating it does the work again.

    Raises:
        InvalidRequest: there is no such format, the path does not tell it, or no file can be written there.
    """
    known = get_args(ExportFormat)
    if path is not None:
        path = target(path)
    kind = format or (Path(path).suffix.removeprefix(".") if path is not None else "")
    if format is None and kind not in known:
        text = f"give one of {', '.join(known)}, or a path that ends with one"
        raise InvalidRequest(problems=[Problem("settings.format", text)])
    said: dict[str, Any] = {"format": kind, "fold_batch_norm": fold_batch_norm}
    if tolerance is not None:
        said["tolerance"] = tolerance
    try:
        settings = ExportSettings.model_validate(said)
    except ValidationError as error:
        problems = [problem.below("settings") for problem in problems_of(error)]
        raise InvalidRequest(problems=problems) from error
    asked = request(model_service_pb2.ExportModelRequest, model=model_name(model))
    asked.settings.CopyFrom(wire.to_message(settings, model_pb2.ExportSettings))
    return Call(method="ExportModel", request=asked, read=_read_export, repeatable=False)


def get_export(name: str) -> Call[ModelExport]:
    """GetModelExport."""
    asked = request(model_service_pb2.GetModelExportRequest, name=name)
    return Call(method="GetModelExport", request=asked, read=_read_export)


def register(name: str, job: str, *, alias: str | None, shared: bool) -> Call[ModelVersion]:
    """RegisterModel. A repeat finds the version that the first one made."""
    asked = request(
        model_service_pb2.RegisterModelRequest,
        model_id=name.removeprefix("models/"),
        training_job=job_name(job),
        alias=alias,
        shared=shared,
    )
    return Call(method="RegisterModel", request=asked, read=_read_version)


def get_model(name: str) -> Call[Model]:
    """GetModel."""
    asked = request(model_service_pb2.GetModelRequest, name=model_name(name))
    return Call(method="GetModel", request=asked, read=_read_model)


def list_models(page_token: str) -> Call[Page[Model]]:
    """ListModels: the call for the page behind a token."""
    asked = request(model_service_pb2.ListModelsRequest, page_token=page_token)
    return Call(method="ListModels", request=asked, read=_read_models)


def share(name: str, shared: bool) -> Call[Model]:
    """UpdateModel."""
    model = request(model_pb2.Model, name=model_name(name), shared=shared)
    asked = request(model_service_pb2.UpdateModelRequest, model=model, update_mask=SHARED)
    return Call(method="UpdateModel", request=asked, read=_read_model)


def set_alias(name: str, alias: str) -> Call[Model]:
    """SetModelAlias."""
    asked = request(model_service_pb2.SetModelAliasRequest, name=model_name(name), alias=alias)
    return Call(method="SetModelAlias", request=asked, read=_read_model)


def delete_alias(name: str) -> Call[Model]:
    """DeleteModelAlias. A repeat would be told that there is no such alias."""
    asked = request(model_service_pb2.DeleteModelAliasRequest, name=model_name(name))
    return Call(method="DeleteModelAlias", request=asked, read=_read_model, repeatable=False)


def target(path: str | Path) -> Path:
    """Where a file is to go, once it is sure that one can be written there.

    Raises:
        InvalidRequest: it is no path, or a file cannot be written there.
    """
    try:
        given = Path(path)
    except TypeError:
        text = f"give the path of a file or a folder, not {path!r}"
        raise InvalidRequest(problems=[Problem("path", text)]) from None
    try:
        folder = given if given.is_dir() else given.parent
        if os.path.lexists(folder):  # or else opening the file below says so
            os.stat(folder / given.name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise _not_writable(given, error) from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            return given
    except OSError as error:
        raise _not_writable(given, error) from error


def _not_writable(path: Path, error: OSError | ValueError) -> InvalidRequest:
    why = str(error)
    if isinstance(error, OSError):
        why = {
            errno.ENOENT: f"there is no folder {path.parent}",
            errno.ENOTDIR: f"{path.parent} is no folder",
        }.get(error.errno or 0, (error.strerror or why).lower())
    return InvalidRequest(problems=[Problem("path", f"{path} cannot be written: {why}")])


class Download:
    """The file of an export on its way: whole in its place, or not there at all. A context manager.

    Args:
        export: the export.
        path: where to; a folder gets a file of the export's own name.
        address: of the service.
        timeout: seconds it may take.

    Raises:
        InvalidRequest: no file can be written there.
    """

    method = "DownloadModelExport"

    def __init__(
        self, export: ModelExport, path: str | Path, *, address: str, timeout: float
    ) -> None:
        path = target(path)
        self._export = export
        self._path = path / export.file_name if path.is_dir() else path
        self._digest = hashlib.sha256()
        self._offset = 0
        call = Call(method=self.method, request=self.open(), read=lambda _: None)
        self.attempts = Attempts(call, address=address, timeout=timeout)

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile(
            dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def open(self) -> model_service_pb2.DownloadModelExportRequest:
        """The request for what is not there yet."""
        return model_service_pb2.DownloadModelExportRequest(
            name=self._export.name, offset=self._offset
        )

    def accept(self, piece: model_service_pb2.DownloadModelExportResponse) -> None:
        """Keep a piece."""
        self._file.write(piece.data)
        self._digest.update(piece.data)
        self._offset += len(piece.data)

    def finish(self) -> Path:
        """Put the file in its place.

        Raises:
            Internal: it is not the file that was exported.
        """
        if self._digest.hexdigest() != self._export.sha256:
            raise Internal(
                f"What was downloaded is not {self._export.name}: its SHA-256 differs, perhaps because it was exported "
                "anew meanwhile; try again."
            )
        self._file.close()
        Path(self._file.name).chmod(0o644)
        return Path(self._file.name).replace(self._path)


def _read_export(message: model_pb2.ModelExport) -> ModelExport:
    return wire.from_message(message, ModelExport)


def _read_prediction(message: model_pb2.Prediction) -> Prediction:
    return wire.from_message(message, Prediction)


def _read_model(message: model_pb2.Model) -> Model:
    return wire.from_message(message, Model)


def _read_version(message: model_pb2.ModelVersion) -> ModelVersion:
    return wire.from_message(message, ModelVersion)


def _read_models(message: model_service_pb2.ListModelsResponse) -> Page[Model]:
    return tuple(map(_read_model, message.models)), message.next_page_token
