"""`client.models`: what can be asked of trained models, by either client."""

# ruff: noqa: ASYNC109 - a timeout here is the call's gRPC deadline, which travels to the service

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropnorm import _model_calls
from dropnorm.results import Prediction

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
            model: name of the job that trained it, `trainingJobs/{id}`.
            inputs: a numpy array, a torch tensor, a pandas frame, or lists of numbers: `[inputs, *shape of one]`.
            samples: passes with dropout on (MC dropout), 2 to 1,000, whose mean and spread come back; absent: one
                pass with dropout off.
            seed: of what is dropped: the same seed and inputs give the same answer.
            batch_size: inputs sent in one call; absent: as many as fit.
            timeout: seconds each call may take.

        Raises:
            InvalidRequest: the inputs are not what the model takes, or it drops nothing.
            WrongState: the job has not succeeded.
        """
        calls = _model_calls.predict(
            model, inputs, samples=samples, seed=seed, batch_size=batch_size
        )
        return _model_calls.together([self._client._call(call, timeout) for call in calls])


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
        calls = _model_calls.predict(
            model, inputs, samples=samples, seed=seed, batch_size=batch_size
        )
        return _model_calls.together([await self._client._call(call, timeout) for call in calls])
