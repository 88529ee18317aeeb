"""What may be asked of the models that jobs made."""

from __future__ import annotations

from dropnorm.results import Prediction, State, TrainingJob
from dropnorm.spec import DropoutSampling, Tensor
from dropnorm_service.jobs.errors import WrongState
from dropnorm_service.jobs.ports import MODEL, Predictor
from dropnorm_service.jobs.service import JobService


class ModelService:
    """Runs trained models.

    Args:
        jobs: what trained them.
        predictor: what runs them.
    """

    def __init__(self, jobs: JobService, predictor: Predictor) -> None:
        self._jobs = jobs
        self._predictor = predictor

    async def predict(
        self, job_id: str, inputs: Tensor, sampling: DropoutSampling | None = None
    ) -> Prediction:
        """What the model of a job says of raw inputs.

        Raises:
            JobNotFound: there is no such job.
            WrongState: it has not succeeded, so there is no model.
            InvalidSpecError: the inputs are not what the model takes, or it drops nothing.
            ModelUnusable: its files are damaged.
            PredictorUnavailable: no answer within the limit.
        """
        job = await self._trained(job_id)
        folder = self._jobs.folder_of(job_id) / MODEL
        return await self._predictor.predict(job.name, folder, inputs, sampling)

    async def _trained(self, job_id: str) -> TrainingJob:
        job = await self._jobs.get(job_id)
        if job.state is not State.SUCCEEDED:
            raise WrongState(
                job.name,
                job.state,
                f"{job.name} is {job.state.name}, and only a job that has SUCCEEDED has a model.",
            )
        return job
