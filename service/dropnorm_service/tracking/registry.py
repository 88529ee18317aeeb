"""MLflow's model registry, as the rest of the service sees it."""

from __future__ import annotations

import asyncio

from dropnorm.results import Model, ModelVersion, TrainingJob
from dropnorm_service.jobs.errors import (
    InvalidListRequest,
    ModelNotFound,
    ModelUnusable,
    RegistryUnavailable,
)
from dropnorm_service.jobs.ports import ModelPage
from dropnorm_service.tracking.config import TrackingConfig
from dropnorm_service.tracking.errors import MlflowUnavailable
from dropnorm_service.tracking.messages import (
    DeleteAlias,
    FindModel,
    ListRegistered,
    Missing,
    Pending,
    Register,
    RegistryPage,
    RegistryRequest,
    Reply,
    Role,
    RunMade,
    SetAlias,
    Setup,
)
from dropnorm_service.tracking.process import MirrorProcess, ProcessEnded

_IDLE_LIMIT = 300.0


class MlflowRegistry:
    """Registered models by a process of its own, as an async context manager. Implements `jobs.ports.Registry`.

    The process starts with the first request, and ends when it is long without any.

    Args:
        config: the MLflow store.
        timeout: seconds a request may take, with its time in the queue and the start of the process.
    """

    def __init__(self, config: TrackingConfig, *, timeout: float = 60.0) -> None:
        self._process = MirrorProcess(Setup.of(Role.REGISTRY, config), _no_run)
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._leaving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MlflowRegistry:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stay()
        await self._process.close()

    async def register(
        self, model_id: str, job: TrainingJob, *, sha256: str, alias: str
    ) -> ModelVersion | None:
        """Make a job's model a version; see `jobs.ports.Registry`."""
        assert job.mlflow_run_id is not None  # whoever asks has waited for it
        reply = await self._ask(
            Register(
                model_id=model_id,
                training_job=job.name,
                run_id=job.mlflow_run_id,
                sha256=sha256,
                alias=alias,
            )
        )
        if isinstance(reply, Pending):
            return None
        if isinstance(reply, Missing):
            raise ModelUnusable(job.name, reply.reason)
        [model] = _page(reply).models
        # Jobs of the same spec have the same weights, and a version each.
        asked = (job.name, sha256)
        return next(each for each in model.versions if (each.training_job, each.sha256) == asked)

    async def get(self, model_id: str) -> Model:
        """A registered model; see `jobs.ports.Registry`."""
        return await self._one(model_id, FindModel(model_id=model_id))

    async def list(self, page_size: int, page_token: str) -> ModelPage:
        """A page of registered models; see `jobs.ports.Registry`."""
        reply = await self._ask(ListRegistered(page_size=page_size, page_token=page_token))
        if isinstance(reply, Missing):
            raise InvalidListRequest.of(
                "page_token", "is not one of ours; pass next_page_token on as it came"
            )
        page = _page(reply)
        return ModelPage(page.models, page.next_page_token)

    async def set_alias(self, model_id: str, alias: str, version: int) -> Model:
        """Let an alias mean a version; see `jobs.ports.Registry`."""
        request = SetAlias(model_id=model_id, alias=alias, version=version)
        return await self._one(f"{model_id}@{version}", request)

    async def delete_alias(self, model_id: str, alias: str) -> Model:
        """Take an alias away; see `jobs.ports.Registry`."""
        return await self._one(f"{model_id}@{alias}", DeleteAlias(model_id=model_id, alias=alias))

    async def _one(self, named: str, request: RegistryRequest) -> Model:
        reply = await self._ask(request)
        if isinstance(reply, Missing):
            raise ModelNotFound(f"models/{named}")
        [model] = _page(reply).models
        return model

    async def _ask(self, request: RegistryRequest) -> Reply:
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                await self._stay()
                try:
                    return await self._process.ask(request)
                except (
                    asyncio.CancelledError
                ):  # what it has yet to say would answer the next request
                    await self._process.close(0.0)
                    raise
                finally:
                    self._leaving = asyncio.create_task(self._leave())
        except TimeoutError:
            raise RegistryUnavailable(
                f"MLflow's registry did not answer within {self._timeout:g} seconds; try again."
            ) from None
        except (MlflowUnavailable, ProcessEnded) as error:
            raise RegistryUnavailable(f"MLflow's registry cannot be asked now: {error}.") from error

    async def _leave(self) -> None:
        await asyncio.sleep(_IDLE_LIMIT)
        async with self._turn:
            self._leaving = None
            await self._process.close()

    async def _stay(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.cancel()
            await asyncio.wait({leaving})


def _page(reply: Reply) -> RegistryPage:
    assert isinstance(reply, RegistryPage)
    return reply


async def _no_run(run: RunMade) -> None:
    """A registry makes no runs."""
