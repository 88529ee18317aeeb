"""Registered models: versions and aliases in MLflow's model registry."""

from __future__ import annotations

from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion as Entry
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.entities import PagedList

from dropnorm.results import Model, ModelVersion
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import (
    DeleteAlias,
    FindModel,
    ListRegistered,
    Message,
    Missing,
    Pending,
    Register,
    RegistryPage,
    RegistryRequest,
    SetAlias,
)
from dropnorm_service.tracking.mirror.changes import MODEL_TAG
from dropnorm_service.tracking.mirror.logged import model_of

OURS_TAG = "dropnorm"
"""On every registered model that the service has made."""
JOB_NAME_TAG = "dropnorm.training_job"
SHA256_TAG = "dropnorm.sha256"

_VERSIONS = 1000


class Registry:
    """Answers requests about registered models.

    Args:
        client: the store.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        # To find the model of a run, MLflow's registry asks not the client but the store that is set for all.
        mlflow.set_tracking_uri(client.tracking_uri)

    def answer(self, request: RegistryRequest) -> Message:
        """What the registry says.

        Raises:
            MlflowUnavailable: it does not answer.
        """
        try:
            return self._answer(request)
        except MlflowException as error:
            if _is_missing(error):
                return Missing(reason=error.message)
            raise MlflowUnavailable(str(error)) from error
        except Exception as error:  # MLflow raises those of its database drivers too
            raise MlflowUnavailable(str(error)) from error

    def _answer(self, request: RegistryRequest) -> Message:
        match request:
            case Register():
                return self._register(request)
            case FindModel(model_id=model_id):
                return RegistryPage(models=(self._model(model_id),))
            case ListRegistered():
                return self._list(request)
            case SetAlias(model_id=model_id, alias=alias, version=version):
                self._client.set_registered_model_alias(model_id, alias, str(version))
                return RegistryPage(models=(self._model(model_id),))
            case DeleteAlias(model_id=model_id, alias=alias):
                if alias not in self._client.get_registered_model(model_id).aliases:
                    return Missing(reason=f"there is no alias {alias}")
                self._client.delete_registered_model_alias(model_id, alias)
                return RegistryPage(models=(self._model(model_id),))

    def _list(self, request: ListRegistered) -> Message:
        try:
            found = self._search(request.page_size, request.page_token or None)
        except (MlflowException, ValueError) as error:
            if not request.page_token:
                raise
            # MLflow has no error of its own for a token that it did not make: without one it answers.
            self._search(1, None)
            return Missing(reason=str(error))
        models = tuple(self._model(each.name) for each in found)
        return RegistryPage(models=models, next_page_token=found.token or "")

    def _search(self, most: int, token: str | None) -> PagedList[RegisteredModel]:
        chosen = f"tags.`{OURS_TAG}` = 'true'"
        return self._client.search_registered_models(chosen, most, ["name ASC"], token)

    def _register(self, request: Register) -> Message:
        run = self._client.get_run(request.run_id)
        state = run.data.tags.get(MODEL_TAG, "pending")
        if state == "pending":
            return Pending()
        if state != "ready":
            return Missing(reason=f"MLflow has no model of this job: {state}")
        number = self._number_of(request)
        if number is None:
            logged = model_of(self._client, request.run_id, run.info.experiment_id)
            if logged is None:
                return Missing(reason="MLflow does not have it any more, it was deleted there")
            self._make_model(request.model_id)
            number = self._make_version(request, logged.model_id)
        if request.alias:
            self._client.set_registered_model_alias(request.model_id, request.alias, str(number))
        return RegistryPage(models=(self._model(request.model_id),))

    def _number_of(self, request: Register) -> int | None:
        """The version that the job's model is already; None: it is none."""
        asked = (request.training_job, request.sha256)
        try:
            versions = self._model(request.model_id).versions
        except MlflowException as error:
            if not _is_missing(error):
                raise
            return None
        same = (each.version for each in versions if (each.training_job, each.sha256) == asked)
        return next(same, None)

    def _make_model(self, name: str) -> None:
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if not _is_missing(error):
                raise
            self._client.create_registered_model(name, tags={OURS_TAG: "true"})

    def _make_version(self, request: Register, logged_model_id: str) -> int:
        made = self._client.create_model_version(
            request.model_id,
            source=f"models:/{logged_model_id}",
            run_id=request.run_id,
            tags={JOB_NAME_TAG: request.training_job, SHA256_TAG: request.sha256},
            model_id=logged_model_id,
        )
        return int(made.version)

    def _model(self, name: str) -> Model:
        aliases = self._client.get_registered_model(name).aliases
        entries = self._client.search_model_versions(f"name = '{name}'", max_results=_VERSIONS)
        versions = [_version(each, aliases) for each in entries if SHA256_TAG in each.tags]
        newest_first = sorted(versions, key=lambda each: -each.version)
        return Model(name=f"models/{name}", versions=tuple(newest_first))


def _version(entry: Entry, aliases: dict[str, str]) -> ModelVersion:
    own = sorted(alias for alias, version in aliases.items() if int(version) == int(entry.version))
    return ModelVersion(
        name=f"models/{entry.name}@{entry.version}",
        version=int(entry.version),
        aliases=tuple(own),
        training_job=entry.tags[JOB_NAME_TAG],
        mlflow_run_id=entry.run_id or "",
        sha256=entry.tags[SHA256_TAG],
        create_time=datetime.fromtimestamp(entry.creation_timestamp / 1e3, UTC),
    )


def _is_missing(error: MlflowException) -> bool:
    return error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
