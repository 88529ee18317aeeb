"""What may be asked of the models that jobs made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from dropnorm.results import ModelExport, Prediction
from dropnorm.spec import DropoutSampling, ExportSettings, Tensor
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import ExportNotFound, InvalidRequest
from dropnorm_service.jobs.owners import changes
from dropnorm_service.jobs.ports import EXPORTS, MODEL, Exporter, Predictor
from dropnorm_service.jobs.registered import Registered, RegisteredModels, trained
from dropnorm_service.jobs.service import JobService

_PIECE_BYTES = 2**20
_FACTS = "export.json"


class ModelService:
    """Runs trained models, and gives them out in other forms.

    A model is given by the id of its job, or as a registered one. An export lives in its job's folder, and
    goes with it. What a caller may not see is not there; what others share with him he may use. Predictions, exports
    and downloads raise LimitReached where as many of the caller's are under way as may be, see `JobPlaces.working`.

    Args:
        jobs: what trained them.
        predictor: what runs them.
        exporter: what writes them.
        registered: the registered ones.
        require_room: raises LimitReached where nothing more can be stored.
    """

    def __init__(
        self,
        jobs: JobService,
        predictor: Predictor,
        exporter: Exporter,
        registered: RegisteredModels,
        *,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.registered = registered
        self._require_room = require_room
        self._jobs = jobs
        self._predictor = predictor
        self._exporter = exporter

    async def predict(
        self,
        caller: Caller,
        model: str | Registered,
        inputs: Tensor,
        sampling: DropoutSampling | None = None,
    ) -> Prediction:
        """What a model says of raw inputs.

        Raises:
            JobNotFound, ModelNotFound: there is no such job, or no such registered model.
            WrongState: it has not succeeded, so there is no model.
            InvalidSpecError: the inputs are not what the model takes, or it drops nothing.
            ModelUnusable: its files are damaged.
            PredictorUnavailable: no answer within the limit.
        """
        with self._jobs.places.working(caller):
            if isinstance(model, Registered):
                version = await self.registered.find(caller, model)
                name, folder = version.training_job, self.registered.folder_of(version)
            else:
                name = (await trained(self._jobs, caller, model)).name
                folder = self._jobs.folder_of(model) / MODEL
            return await self._predictor.predict(name, folder, inputs, sampling, user=caller.user)

    async def export(
        self, caller: Caller, model: str | Registered, settings: ExportSettings
    ) -> ModelExport:
        """Write a model in another form, with proof; the same form's last export is replaced.

        Of another user's job, who shares it, an export that is at least as exact is not replaced, but returned.

        Raises:
            JobNotFound: the job is not there any more, and a proof needs its data.
            ModelNotFound, WrongState, ModelUnusable: as in `predict`.
            CannotExport: the model does not go into that form.
            ExportDeviates: it does, but not exactly enough.
            LimitReached: the disk's room is kept for the jobs that there are.
            DiskFull: there was room, but not enough.
            ExporterUnavailable: no answer within the limit.
        """
        with self._jobs.places.working(caller):
            return await self._export(caller, model, settings)

    async def _export(
        self, caller: Caller, model: str | Registered, settings: ExportSettings
    ) -> ModelExport:
        if isinstance(model, Registered):
            job = await self.registered.job_of(caller, model)
        else:
            job = await trained(self._jobs, caller, model)
        export_id = settings.format + ("-folded" if settings.fold_batch_norm else "")
        if not changes(caller, job):
            with suppress(ExportNotFound):
                known = await self.get_export(caller, job.id, export_id)
                if known.settings.tolerance <= settings.tolerance:
                    return known
        self._require_room()
        return await self._exporter.export(
            job.name,
            self._jobs.folder_of(job.id) / MODEL,
            settings,
            name=f"{job.name}/exports/{export_id}",
            folder=self._folder(job.id, export_id),
            user=caller.user,
        )

    async def get_export(self, caller: Caller, job_id: str, export_id: str) -> ModelExport:
        """What is known of an export.

        Raises:
            JobNotFound: there is no such job.
            ExportNotFound: there is no such export.
        """
        job = await self._jobs.get(caller, job_id)
        path = self._folder(job_id, export_id) / _FACTS
        try:
            text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        except FileNotFoundError:
            raise ExportNotFound(f"{job.name}/exports/{export_id}") from None
        return ModelExport.model_validate_json(text)

    async def download(
        self, caller: Caller, job_id: str, export_id: str, offset: int
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The bytes of an export's file from an offset on, in pieces, each with its own offset.

        Raises:
            JobNotFound: there is no such job.
            ExportNotFound: there is no such export.
            InvalidRequest: the file does not reach so far.
        """
        with self._jobs.places.working(caller):
            export = await self.get_export(caller, job_id, export_id)
            if not 0 <= offset <= export.size_bytes:
                text = f"the file has {export.size_bytes:,} bytes; give 0 to that, not {offset}"
                raise InvalidRequest.of("offset", text)
            path = self._folder(job_id, export_id) / export.file_name
            try:  # once it is open, another export may take its place
                file = await asyncio.to_thread(path.open, "rb")
            except FileNotFoundError:
                raise ExportNotFound(export.name) from None
            with file:
                file.seek(offset)
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    yield offset, piece
                    offset += len(piece)

    def _folder(self, job_id: str, export_id: str) -> Path:
        return self._jobs.folder_of(job_id) / EXPORTS / export_id
