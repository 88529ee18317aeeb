"""Lets a process of its own, which knows torch, run trained models."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Self

from dropnorm.results import Prediction
from dropnorm.spec import DropoutSampling, InvalidSpecError, Tensor
from dropnorm_service.jobs.errors import ModelUnusable, PredictorUnavailable, TooManyInputs
from dropnorm_service.workers.asking import AskedProcess, Busy, Died
from dropnorm_service.workers.forks import ForkServer
from dropnorm_service.workers.machine import usable_cores
from dropnorm_service.workers.messages import AnswerReply, AnswerRequest

_ENTRY = "dropnorm_service.workers.child.predictor:main"

log = logging.getLogger(__name__)


class PredictionFailed(Exception):
    """The predictor met an unexpected error; the log has its trace."""


class ProcessPredictor:
    """Runs models in a process that keeps those used last, as an async context manager.

    Implements `jobs.ports.Predictor`. The process starts with the first request, and answers one after
    the other, and users take turns. Half of the cores are left to training.

    Args:
        forks: where processes come from; running.
        timeout: seconds a prediction may take, and may wait for its turn before.
    """

    def __init__(self, forks: ForkServer, *, timeout: float = 60.0) -> None:
        environment = {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": str(max(1, usable_cores() // 2)),
        }
        self._process = AskedProcess(forks, _ENTRY, environment)
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._process.end()

    async def predict(
        self,
        training_job: str,
        folder: Path,
        inputs: Tensor,
        sampling: DropoutSampling | None,
        *,
        user: str = "",
    ) -> Prediction:
        """What a model says of inputs; see `jobs.ports.Predictor`."""

        def request(number: int) -> AnswerRequest:
            return AnswerRequest(
                number=number,
                training_job=training_job,
                folder=folder,
                inputs=inputs,
                sampling=sampling,
            )

        reply = await self._ask(request, user)
        if reply.trace:
            log.error("the predictor met an unexpected error", extra={"trace": reply.trace})
            raise PredictionFailed(f"the model of {training_job} could not predict")
        if reply.unusable:
            raise ModelUnusable(training_job, reply.unusable)
        if reply.limit is not None:
            raise TooManyInputs(reply.problems, reply.limit)
        if reply.prediction is None:
            raise InvalidSpecError(reply.problems)
        return reply.prediction

    async def _ask(self, request: Callable[[int], AnswerRequest], user: str) -> AnswerReply:
        try:
            reply = await self._process.ask(request, self._timeout, user)
        except Busy:
            raise PredictorUnavailable(
                f"The predictor answered other requests for {self._timeout:g} seconds; try again in a moment."
            ) from None
        except TimeoutError:
            raise PredictorUnavailable(
                f"No prediction was made within {self._timeout:g} seconds; give fewer inputs at a time, "
                "or ask for fewer samples."
            ) from None
        except Died:
            raise PredictorUnavailable(
                "The predictor died over these inputs twice; give fewer at a time, or see the log."
            ) from None
        assert isinstance(reply, AnswerReply)
        return reply
