"""Registered models: models of jobs under a name, with versions and aliases, in MLflow's registry.

The registry says what there is; the files of each version are kept here under the SHA-256 of `model.json`, in
which stand spec, data set and the sum of the weights. So a version outlives its job and is the same model whatever
becomes of a job's id, and equal weights of other class names are another model.

Whose a model is stands in neither, but in a record of the service's own, with the versions that the service made:
whoever may write to the registry, and give a version there another's SHA-256, gets nothing by that. A model without a
record is from before there were records, or was made by others in the registry, and is the local user's.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from dropnorm.results import Model, ModelVersion, State, TrainingJob
from dropnorm_service.durable import sha256_of
from dropnorm_service.jobs.callers import LOCAL, Caller
from dropnorm_service.jobs.errors import (
    InvalidRequest,
    JobNotFound,
    ModelAlreadyExists,
    ModelNotFound,
    ModelUnusable,
    NoRegistry,
    RegistryUnavailable,
    WrongState,
)
from dropnorm_service.jobs.owners import check_changes, sees
from dropnorm_service.jobs.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from dropnorm_service.jobs.ports import MODEL, ModelOwners, ModelPage, ModelRecord, Registry
from dropnorm_service.jobs.service import JobService
from dropnorm_service.unbroken import changing

_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MLFLOWS_OWN = re.compile(r"latest|v[0-9]+")
_COUNT = re.compile(r"[0-9]{1,9}")
_FACTS = "model.json"
_DRAFT = "."  # begins the names of folders that are not whole yet
_POLL = 0.5
_PATIENCE = 100.0  # less than a client waits by itself


@dataclass(frozen=True)
class Registered:
    """A registered model: a version by its number, or by an alias, or the newest.

    Attributes:
        model_id: last part of its name.
        version: number of the version; None: the alias says.
        alias: stands for a version; empty: the newest.
    """

    model_id: str
    version: int | None = None
    alias: str = ""

    @property
    def name(self) -> str:
        """As it is written."""
        what = self.version or self.alias
        return f"models/{self.model_id}" + (f"@{what}" if what else "")


class RegisteredModels:
    """Makes versions of jobs' models, finds them, and moves aliases.

    Every method may raise NoRegistry, RegistryUnavailable and StoreUnavailable. To a caller who may not see a model, it
    is not there; one who sees it and may not change it is refused by NotOwner.

    Args:
        jobs: what made the models.
        registry: where versions and aliases are; None: there is none.
        owners: whose the models are.
        folder: where the files of versions are kept.
    """

    def __init__(
        self, jobs: JobService, registry: Registry | None, owners: ModelOwners, folder: Path
    ) -> None:
        self._jobs = jobs
        self._there = registry
        self._owners = owners
        self._folder = folder
        self._turn = asyncio.Lock()  # models get their owners one after the other

    async def sweep(self) -> None:
        """Remove what a service left that was killed while it took the files of a model."""
        for draft in await asyncio.to_thread(lambda: list(self._folder.glob(f"{_DRAFT}*"))):
            await asyncio.to_thread(shutil.rmtree, draft)

    async def register(
        self, caller: Caller, model_id: str, job_id: str, alias: str = "", *, shared: bool = False
    ) -> ModelVersion:
        """Make the model of a job a version, or find that it is one, and give it an alias.

        Args:
            caller: whose the model will be, if it is made now.
            model_id: last part of the model's name.
            job_id: id of the job.
            alias: means the version from then on; empty: none does.
            shared: whether all users see the model, if it is made now.

        Raises:
            JobNotFound: there is no such job.
            ModelAlreadyExists: the id is that of a model which the caller does not see.
            WrongState: it has not succeeded.
            ModelUnusable: its files are gone, or MLflow could not take its model.
            RegistryUnavailable: MLflow does not have its model yet.
        """
        registry = self._registry
        job = await trained(self._jobs, caller, job_id)
        await self._claimed(caller, model_id, shared)  # rather than after a wait
        sha256 = await asyncio.to_thread(self._keep, job)
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    job = await self._jobs.get(caller, job_id)
                    if job.mlflow_run_id is not None:
                        async with self._turn:
                            record = await self._claimed(caller, model_id, shared)
                            made = record.versions | {(job_id, sha256)}
                            changing()
                            # First, so that a crash in between leaves no version that nobody owns.
                            await self._owners.put_model(replace(record, versions=made))
                            version = await registry.register(
                                model_id, job, sha256=sha256, alias=alias
                            )
                        if version is not None:
                            return version
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise RegistryUnavailable(
                f"MLflow does not have the model of {job.name} yet, which takes seconds after its end; try again."
            ) from None

    async def get(self, caller: Caller, model_id: str) -> Model:
        """A registered model.

        Raises:
            ModelNotFound: there is none.
        """
        model = await self._owned(await self._registry.get(model_id))
        if not sees(caller, model):
            raise ModelNotFound(model.name)
        return model

    async def list(self, caller: Caller, page_size: int, page_token: str) -> ModelPage:
        """A page of the registered models that the caller sees.

        Its token counts those of the pages before. The registry's own would tell how many there are besides.

        Raises:
            InvalidRequest: the page's size is negative, or the token is not one of a page before.
        """
        if page_size < 0:
            raise InvalidRequest.of("page_size", f"must be 0 or more, not {page_size}")
        if page_token and _COUNT.fullmatch(page_token) is None:
            text = "is not one of ours; pass next_page_token on as it came"
            raise InvalidRequest.of("page_token", text)
        before = int(page_token or 0)
        end = before + min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        seen = await self._first(caller, end + 1)
        return ModelPage(seen[before:end], str(end) if len(seen) > end else "")

    async def _first(self, caller: Caller, count: int) -> tuple[Model, ...]:
        """At least so many of the models that the caller sees, from the beginning, or all."""
        most = min(max(count, DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)
        seen: tuple[Model, ...] = ()
        token = ""
        while True:
            page = await self._registry.list(most, token)
            records = await self._owners.models([each.id for each in page.models])
            models = (_with(records.get(each.id), each) for each in page.models)
            seen += tuple(each for each in models if sees(caller, each))
            token = page.next_page_token
            if not token or len(seen) >= count:
                return seen

    async def share(self, caller: Caller, model_id: str, shared: bool) -> Model:
        """Let all users see and use a model, or no longer; without effect when it is so already.

        Raises:
            ModelNotFound: there is none.
        """
        async with self._turn:
            model = await self._changeable(caller, model_id)
            if model.shared == shared:
                return model
            model = model.model_copy(update={"shared": shared})
            changing()
            await self._owners.put_model(_record_of(model))
            return model

    async def set_alias(self, caller: Caller, asked: Registered, alias: str) -> Model:
        """Let an alias mean a version.

        Raises:
            ModelNotFound: there is no such version.
        """
        version = _version(await self._changeable(caller, asked.model_id), asked)
        changing()
        return await self._owned(
            await self._registry.set_alias(asked.model_id, alias, version.version)
        )

    async def delete_alias(self, caller: Caller, model_id: str, alias: str) -> Model:
        """Take an alias away.

        Raises:
            ModelNotFound: there is none.
        """
        await self._changeable(caller, model_id)
        changing()
        return await self._owned(await self._registry.delete_alias(model_id, alias))

    async def find(self, caller: Caller, asked: Registered) -> ModelVersion:
        """A version as the registry has it now.

        Raises:
            ModelNotFound: there is none.
        """
        return _version(await self.get(caller, asked.model_id), asked)

    async def job_of(self, caller: Caller, asked: Registered) -> TrainingJob:
        """The job that a version is the model of.

        Raises:
            ModelNotFound: there is no such version.
            ModelUnusable: the job is not there any more, or not the caller's to see, or another has its id.
        """
        version = await self.find(caller, asked)
        job_id = version.training_job.rpartition("/")[2]
        try:
            job = await trained(self._jobs, caller, job_id)
            facts = self._jobs.folder_of(job_id) / MODEL / _FACTS
            if await asyncio.to_thread(sha256_of, facts) == version.sha256:
                return job
        except (JobNotFound, WrongState, FileNotFoundError):
            pass  # each time, what it was of is gone
        why = (
            f"{asked.name} is a version of it that still predicts, but the job itself, with which exports are kept, "
            "is not there any more; train it again to export it"
        )
        raise ModelUnusable(version.training_job, why)

    def folder_of(self, version: ModelVersion) -> Path:
        """Where the files of a version are."""
        return self._folder / version.sha256

    @property
    def _registry(self) -> Registry:
        if self._there is None:
            raise NoRegistry
        return self._there

    async def _owned(self, model: Model) -> Model:
        """A model of the registry, as the service's record of it has it."""
        return _with((await self._owners.models([model.id])).get(model.id), model)

    async def _changeable(self, caller: Caller, model_id: str) -> Model:
        model = await self.get(caller, model_id)
        check_changes(caller, model)
        return model

    async def _claimed(self, caller: Caller, model_id: str, shared: bool) -> ModelRecord:
        """The record of a model that the caller may add to, or of one that he may make."""
        try:
            model = await self._owned(await self._registry.get(model_id))
        except ModelNotFound:  # a record of what is gone from the registry is no one's any more
            return ModelRecord(
                model_id=model_id, owner=caller.user, shared=shared, versions=frozenset()
            )
        if not sees(caller, model):
            raise ModelAlreadyExists(model_id)
        check_changes(caller, model)
        return _record_of(model)

    def _keep(self, job: TrainingJob) -> str:
        """Keep the files of a job's model; the SHA-256 that tells it from others."""
        source = self._jobs.folder_of(job.id) / MODEL
        try:
            sha256 = sha256_of(source / _FACTS)
            target = self._folder / sha256
            if target.exists():
                return sha256
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=_DRAFT) as draft:
                _link(source, Path(draft) / MODEL)
                _move(Path(draft) / MODEL, target)
        except FileNotFoundError:
            raise ModelUnusable(job.name, "its files are gone; train it again") from None
        return sha256


def _link(source: Path, target: Path) -> None:
    """Link all that is in a folder into a new one, but what is hidden: a killed worker left it half written.

    Links cost no space, and files of models are replaced, never changed.

    Raises:
        FileNotFoundError: something went meanwhile, as the job is purged.
    """
    target.mkdir()
    for each in source.iterdir():
        if not each.name.startswith("."):
            (_link if each.is_dir() else os.link)(each, target / each.name)


def _with(record: ModelRecord | None, model: Model) -> Model:
    if record is None:
        return model.model_copy(update={"owner": LOCAL.user, "shared": False})
    versions = tuple(each for each in model.versions if _identity(each) in record.versions)
    return model.model_copy(
        update={"owner": record.owner, "shared": record.shared, "versions": versions}
    )


def _record_of(model: Model) -> ModelRecord:
    return ModelRecord(
        model_id=model.id,
        owner=model.owner,
        shared=model.shared,
        versions=frozenset(map(_identity, model.versions)),
    )


def _identity(version: ModelVersion) -> tuple[str, str]:
    return version.training_job.rpartition("/")[2], version.sha256


def _version(model: Model, asked: Registered) -> ModelVersion:
    for each in model.versions:
        newest = asked.version is None and not asked.alias
        if newest or each.version == asked.version or asked.alias in each.aliases:
            return each
    raise ModelNotFound(asked.name)


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():  # else another call for the same model was quicker
            raise


async def trained(jobs: JobService, caller: Caller, job_id: str) -> TrainingJob:
    """A job that has a model, and that the caller sees.

    Raises:
        JobNotFound: there is no such job.
        WrongState: it has not succeeded, so there is no model.
    """
    job = await jobs.get(caller, job_id)
    if job.state is not State.SUCCEEDED:
        raise WrongState(
            job.name,
            job.state,
            f"{job.name} is {job.state.name}, and only a job that has SUCCEEDED has a model.",
        )
    return job


def check_model_id(model_id: str) -> None:
    """Check the id of a registered model.

    Raises:
        InvalidRequest: it is malformed.
    """
    if _ID.fullmatch(model_id) is None:
        raise InvalidRequest.of("model_id", "an id is [a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def check_alias(alias: str, *, required: bool) -> None:
    """Check an alias.

    Raises:
        InvalidRequest: it is malformed, or is one that MLflow keeps to itself.
    """
    if not alias and not required:
        return
    if _ID.fullmatch(alias) is None or _MLFLOWS_OWN.fullmatch(alias):
        text = "an alias is [a-z]([a-z0-9-]{0,61}[a-z0-9])?, but not `latest`, and not `v` and a number"
        raise InvalidRequest.of("alias", text)
