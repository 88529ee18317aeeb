"""`client.models`: what can be asked of trained models, by either client."""

# ruff: noqa: ASYNC109 - a timeout here is the call's gRPC deadline, which travels to the service

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from dropnorm import _model_calls
from dropnorm._model_calls import Download
from dropnorm.errors import InvalidRequest
from dropnorm.results import Model, ModelExport, ModelVersion, Prediction
from dropnorm.spec import ExportFormat

EXPORT_TIMEOUT = 900.0
"""Seconds that an export may take unless it is told otherwise: a graph of a large model takes minutes."""
REGISTER_TIMEOUT = 120.0
"""Seconds that a registration may take unless it is told otherwise: MLflow may still be busy with the job's model."""

if TYPE_CHECKING:
    from dropnorm.aio import AsyncClient
    from dropnorm.client import Client


class Models:
    """The models of a service."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        samples: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """What a model says of raw inputs, in the unit of the original data.

        Args:
            model: a registered model, `digits`, `digits@2` or by an alias `digits@champion`, or `trainingJobs/{id}`.
            inputs: a numpy array, a torch tensor, a pandas frame, or lists of numbers: `[inputs, *shape of one]`.
            samples: passes with dropout on (MC dropout), 2 to 1,000, whose mean and spread come back; absent: one
                pass with dropout off.
            seed: of what is dropped: the same seed and inputs give the same answer, whatever the batch_size; only of
                a model whose batch norm keeps no running statistics does every prediction depend on those beside it.
            batch_size: inputs sent in one call; absent: as many as fit. Fewer are sent where so many outputs would
                not fit into an answer.
            timeout: seconds each call may take.

        Raises:
            InvalidRequest: the inputs are not what the model takes, one is not finite, or the model drops nothing.
            NotFound: there is no such model.
            WrongState: the job has not succeeded.
        """
        asking = _model_calls.Predicting(
            model, inputs, samples=samples, seed=seed, batch_size=batch_size
        )
        for call in asking.calls():
            try:
                asking.accept(self._client._call(call, timeout))
            except InvalidRequest as error:
                asking.refuse(error)
        return asking.together()

    def export(
        self,
        model: str,
        path: str | Path | None = None,
        *,
        format: ExportFormat | None = None,
        fold_batch_norm: bool = False,
        tolerance: float | None = None,
        timeout: float = EXPORT_TIMEOUT,
    ) -> ModelExport:
        """Have a model written in another form, with the proof that it predicts the same, and download it.

        Args:
            model: a registered model, `digits`, `digits@2` or by an alias `digits@champion`, or `trainingJobs/{id}`.
            path: where the file goes, or a folder for it; absent: it stays with the service, see `download`.
            format: `safetensors` (weights, with the spec in the file), `pt2` (torch.export) or `onnx`; absent: as
                the path ends.
            fold_batch_norm: fold each batch norm into the layer right before it, and take dropout out.
            tolerance: largest deviation on the test split, as a share of the largest output; absent: 1e-4.
            timeout: seconds that each of the two calls may take.

        Returns:
            What was exported: the deviation, the accuracy, both latencies, how many norms were folded.

        Raises:
            InvalidRequest: no file can be written there, which is found out before anything is exported.
            ExportRefused: the model does not go into that form, or deviates by more than the tolerance.
            WrongState: the job has not succeeded.
        """
        call = _model_calls.export(
            model, path, format=format, fold_batch_norm=fold_batch_norm, tolerance=tolerance
        )
        export = self._client._call(call, timeout)
        if path is not None:
            self._fetch(export, path, timeout)
        return export

    def download(
        self, export: str, path: str | Path, *, timeout: float = EXPORT_TIMEOUT
    ) -> ModelExport:
        """Download the file of an export, and check it by its SHA-256.

        Args:
            export: resource name of the export, `trainingJobs/{id}/exports/{export}`.
            path: where the file goes, or a folder for it.
            timeout: seconds it may take.

        Raises:
            NotFound: there is no such export.
            InvalidRequest: no file can be written there.
        """
        known = self._client._call(_model_calls.get_export(export), None)
        self._fetch(known, path, timeout)
        return known

    def register(
        self,
        name: str,
        job: str,
        *,
        alias: str | None = None,
        shared: bool = False,
        timeout: float = REGISTER_TIMEOUT,
    ) -> ModelVersion:
        """Make the model of a job a version of a registered model in MLflow; a repeat finds the version there is.

        Args:
            name: of the registered model, `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`; made when it is missing.
            job: id or name of the job.
            alias: means this version from now on.
            shared: whether the project's other users may see and use the model, if it is made now.
            timeout: seconds this call may take.

        Raises:
            AlreadyExists: the name is another user's.
            PermissionDenied: the model is another user's, who shares it.
            WrongState: the job has not succeeded, or the service runs without MLflow.
            Unavailable: MLflow does not have the job's model yet.
        """
        call = _model_calls.register(name, job, alias=alias, shared=shared)
        return self._client._call(call, timeout)

    def get(self, name: str, *, timeout: float | None = None) -> Model:
        """A registered model with its versions and aliases.

        Raises:
            NotFound: there is none of that name.
        """
        return self._client._call(_model_calls.get_model(name), timeout)

    def list(self, *, timeout: float | None = None) -> Iterator[Model]:
        """Every registered model by name, asked for page by page as they are iterated."""
        return self._client._pages(_model_calls.list_models, timeout)

    def share(self, name: str, *, timeout: float | None = None) -> Model:
        """Let the project's other users see and use a registered model; they cannot change it."""
        return self._client._call(_model_calls.share(name, True), timeout)

    def unshare(self, name: str, *, timeout: float | None = None) -> Model:
        """Let nobody but admins see a registered model any more."""
        return self._client._call(_model_calls.share(name, False), timeout)

    def set_alias(self, name: str, alias: str, *, timeout: float | None = None) -> Model:
        """Let an alias mean a version, and no other of the same model.

        Args:
            name: of the version: `digits@2`, or `digits` for the newest.
            alias: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`, but not `latest`, and not `v` and a number.
            timeout: seconds this call may take.

        Raises:
            NotFound: there is no such version.
        """
        return self._client._call(_model_calls.set_alias(name, alias), timeout)

    def delete_alias(self, name: str, *, timeout: float | None = None) -> Model:
        """Take an alias away, `digits@champion`.

        Raises:
            NotFound: there is none of that name.
        """
        return self._client._call(_model_calls.delete_alias(name), timeout)

    def _fetch(self, export: ModelExport, path: str | Path, timeout: float) -> None:
        client = self._client
        with Download(export, path, address=client.address, timeout=timeout) as download:
            while True:
                stream = client._method(download.method)(
                    download.open(), timeout=download.attempts.timeout
                )
                try:
                    for piece in stream:
                        download.accept(piece)
                    break
                except grpc.RpcError as error:
                    client._check_open()
                    pause = download.attempts.pause_after(error)
                finally:
                    stream.cancel()
                time.sleep(pause)
            download.finish()


class AsyncModels:
    """The models of a service, for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def predict(
        self,
        model: str,
        inputs: Any,
        *,
        samples: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """What a model says of raw inputs; see `Models.predict`."""
        asking = _model_calls.Predicting(
            model, inputs, samples=samples, seed=seed, batch_size=batch_size
        )
        for call in asking.calls():
            try:
                asking.accept(await self._client._call(call, timeout))
            except InvalidRequest as error:
                asking.refuse(error)
        return asking.together()

    async def export(
        self,
        model: str,
        path: str | Path | None = None,
        *,
        format: ExportFormat | None = None,
        fold_batch_norm: bool = False,
        tolerance: float | None = None,
        timeout: float = EXPORT_TIMEOUT,
    ) -> ModelExport:
        """Have a model written in another form, with proof, and download it; see `Models.export`."""
        call = _model_calls.export(
            model, path, format=format, fold_batch_norm=fold_batch_norm, tolerance=tolerance
        )
        export = await self._client._call(call, timeout)
        if path is not None:
            await self._fetch(export, path, timeout)
        return export

    async def download(
        self, export: str, path: str | Path, *, timeout: float = EXPORT_TIMEOUT
    ) -> ModelExport:
        """Download the file of an export, and check it by its SHA-256; see `Models.download`."""
        known = await self._client._call(_model_calls.get_export(export), None)
        await self._fetch(known, path, timeout)
        return known

    async def register(
        self,
        name: str,
        job: str,
        *,
        alias: str | None = None,
        shared: bool = False,
        timeout: float = REGISTER_TIMEOUT,
    ) -> ModelVersion:
        """Make the model of a job a version of a registered model; see `Models.register`."""
        call = _model_calls.register(name, job, alias=alias, shared=shared)
        return await self._client._call(call, timeout)

    async def get(self, name: str, *, timeout: float | None = None) -> Model:
        """A registered model with its versions and aliases; see `Models.get`."""
        return await self._client._call(_model_calls.get_model(name), timeout)

    async def list(self, *, timeout: float | None = None) -> AsyncIterator[Model]:
        """Every registered model by name; see `Models.list`."""
        async for model in self._client._pages(_model_calls.list_models, timeout):
            yield model

    async def share(self, name: str, *, timeout: float | None = None) -> Model:
        """Let the project's other users see and use a registered model; see `Models.share`."""
        return await self._client._call(_model_calls.share(name, True), timeout)

    async def unshare(self, name: str, *, timeout: float | None = None) -> Model:
        """Let nobody but admins see a registered model any more; see `Models.unshare`."""
        return await self._client._call(_model_calls.share(name, False), timeout)

    async def set_alias(self, name: str, alias: str, *, timeout: float | None = None) -> Model:
        """Let an alias mean a version; see `Models.set_alias`."""
        return await self._client._call(_model_calls.set_alias(name, alias), timeout)

    async def delete_alias(self, name: str, *, timeout: float | None = None) -> Model:
        """Take an alias away; see `Models.delete_alias`."""
        return await self._client._call(_model_calls.delete_alias(name), timeout)

    async def _fetch(self, export: ModelExport, path: str | Path, timeout: float) -> None:
        client = self._client
        with Download(export, path, address=client.address, timeout=timeout) as download:
            while True:
                stream = client._method(download.method)(
                    download.open(), timeout=download.attempts.timeout
                )
                try:
                    async for piece in stream:
                        download.accept(piece)
                    break
                except asyncio.CancelledError:
                    client._check_cancelled()
                    raise
                except grpc.RpcError as error:
                    client._check_open()
                    pause = download.attempts.pause_after(error)
                finally:
                    stream.cancel()
                await asyncio.sleep(pause)
            download.finish()
