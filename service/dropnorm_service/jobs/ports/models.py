"""Who answers for specs and models: plans, predictions, exports, and the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dropnorm.results import Model, ModelExport, ModelVersion, Plan, Prediction, TrainingJob
from dropnorm.spec import DropoutSampling, ExportSettings, Tensor, TrainingSpec


class Planner(Protocol):
    """Answers what a spec comes to."""

    async def plan(self, spec: TrainingSpec, *, uploads: bool = True, user: str = "") -> Plan:
        """The plan of a spec.

        Args:
            spec: what would be trained.
            uploads: whether there are uploaded data sets; false: as if there were none.
            user: who asks; users take turns.

        Raises:
            InvalidSpecError: the spec does not fit together or does not fit its data; it names
                every field.
            PlannerUnavailable: no answer within the limit.
        """


class Predictor(Protocol):
    """Runs trained models."""

    async def predict(
        self,
        training_job: str,
        folder: Path,
        inputs: Tensor,
        sampling: DropoutSampling | None,
        *,
        user: str = "",
    ) -> Prediction:
        """What a model says of raw inputs.

        Args:
            training_job: name of the job whose model it is.
            folder: where the model is.
            inputs: `[inputs, *shape of one]`.
            sampling: several passes with dropout on; None: one with dropout off.
            user: who asks; users take turns.

        Raises:
            InvalidSpecError: the inputs are not what the model takes, or it drops nothing; names the fields.
            TooManyInputs: the outputs for so many do not fit into an answer.
            ModelUnusable: the model is not there, or damaged.
            PredictorUnavailable: no answer within the limit.
        """


class Exporter(Protocol):
    """Writes trained models in other forms."""

    async def export(
        self,
        training_job: str,
        model: Path,
        settings: ExportSettings,
        *,
        name: str,
        folder: Path,
        user: str = "",
    ) -> ModelExport:
        """Write a model, and prove that it predicts what the original does.

        Args:
            training_job: name of the job whose model it is.
            model: where the model is.
            settings: in which form.
            name: resource name of the export.
            folder: where its file and what is known of it go, in place of what was there.
            user: who asks; users take turns.

        Raises:
            ModelUnusable: the model is not there, or damaged, or the data that it was trained on is gone.
            CannotExport: it does not go into that form, or not exactly enough.
            DiskFull: there was no room for it.
            ExporterUnavailable: no answer within the limit.
        """


@dataclass(frozen=True)
class ModelPage:
    """Registered models, and the token of the next page; only an empty one ends."""

    models: tuple[Model, ...] = ()
    next_page_token: str = ""


class Registry(Protocol):
    """Registered models: versions and aliases. Every method may raise RegistryUnavailable."""

    async def register(
        self, model_id: str, job: TrainingJob, *, sha256: str, alias: str
    ) -> ModelVersion | None:
        """Make a job's model a version, unless it is one already; None: it is not there yet, ask again.

        Args:
            model_id: the registered model, made when it is missing.
            job: its run is known.
            sha256: of the weights.
            alias: means the version from then on; empty: none does.

        Raises:
            ModelUnusable: there will be no such model.
        """

    async def get(self, model_id: str) -> Model:
        """A registered model with its versions, the newest first.

        Raises:
            ModelNotFound: there is none.
        """

    async def list(self, page_size: int, page_token: str) -> ModelPage:
        """A page of registered models, by name."""

    async def set_alias(self, model_id: str, alias: str, version: int) -> Model:
        """Let an alias mean a version, and no other.

        Raises:
            ModelNotFound: there is no such version.
        """

    async def delete_alias(self, model_id: str, alias: str) -> Model:
        """Take an alias away.

        Raises:
            ModelNotFound: there is none.
        """


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Whose a registered model is, and which versions the service itself has made.

    It is kept beside the registry, where others may change what they like.
    """

    model_id: str
    owner: str
    shared: bool
    versions: frozenset[tuple[str, str]]
    """The job's id and the SHA-256 of each."""


class ModelOwners(Protocol):
    """Durable records of registered models. Every method may raise StoreUnavailable."""

    async def models(self, model_ids: Sequence[str]) -> Mapping[str, ModelRecord]:
        """Those records of these models that there are, by id."""

    async def put_model(self, record: ModelRecord) -> None:
        """Write a model's record in place of the one that is there."""
