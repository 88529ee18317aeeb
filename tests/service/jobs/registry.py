"""A registry of models in memory, which anybody may write to, as MLflow's may be."""

from __future__ import annotations

from datetime import UTC, datetime

from dropnorm.results import Model, ModelVersion, TrainingJob
from dropnorm_service.jobs.errors import ModelNotFound
from dropnorm_service.jobs.ports import ModelPage


class BenchRegistry:
    """A Registry that has every job's model at once."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}

    async def register(
        self, model_id: str, job: TrainingJob, *, sha256: str, alias: str
    ) -> ModelVersion | None:
        self.models.setdefault(model_id, Model(name=f"models/{model_id}"))
        asked = (job.name, sha256)
        known = self.models[model_id].versions
        same = [each for each in known if (each.training_job, each.sha256) == asked]
        number = (same[0] if same else self.add(model_id, *asked)).version
        if alias:
            await self.set_alias(model_id, alias, number)
        return next(each for each in self.models[model_id].versions if each.version == number)

    def add(self, model_id: str, training_job: str, sha256: str) -> ModelVersion:
        """Make a version, whoever asks for it."""
        model = self.models.setdefault(model_id, Model(name=f"models/{model_id}"))
        number = len(model.versions) + 1
        version = ModelVersion(
            name=f"models/{model_id}@{number}",
            version=number,
            training_job=training_job,
            mlflow_run_id="run",
            sha256=sha256,
            create_time=datetime.now(UTC),
        )
        self._put(model, (version, *model.versions))
        return version

    async def get(self, model_id: str) -> Model:
        if model_id not in self.models:
            raise ModelNotFound(f"models/{model_id}")
        return self.models[model_id]

    async def list(self, page_size: int, page_token: str) -> ModelPage:
        models = sorted(self.models.values(), key=lambda model: model.id)
        end = int(page_token or 0) + page_size
        return ModelPage(tuple(models[end - page_size : end]), str(end) if models[end:] else "")

    async def set_alias(self, model_id: str, alias: str, version: int) -> Model:
        model = await self.get(model_id)
        versions = []
        for each in model.versions:
            others = [known for known in each.aliases if known != alias]
            own = (*others, alias) if each.version == version else tuple(others)
            versions.append(each.model_copy(update={"aliases": own}))
        return self._put(model, tuple(versions))

    async def delete_alias(self, model_id: str, alias: str) -> Model:
        model = await self.get(model_id)
        if alias not in model.aliases:
            raise ModelNotFound(f"models/{model_id}@{alias}")
        return await self.set_alias(model_id, alias, 0)

    def _put(self, model: Model, versions: tuple[ModelVersion, ...]) -> Model:
        changed = model.model_copy(update={"versions": versions})
        self.models[model.id] = changed
        return changed
