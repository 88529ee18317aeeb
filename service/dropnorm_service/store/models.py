"""Records of registered models as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from dropnorm_service.jobs.ports import ModelRecord
from dropnorm_service.store.reader import Reader
from dropnorm_service.store.schema import registered_models, registered_versions
from dropnorm_service.store.writer import Writer


class SqlModelOwners:
    """Registered models in a database, as `jobs.ports.ModelOwners` asks.

    Args:
        writer: of the database.
        reader: of the database.
    """

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def models(self, model_ids: Sequence[str]) -> Mapping[str, ModelRecord]:
        """See `ModelOwners.models`."""
        if not model_ids:
            return {}
        rows = await self._reader.read(_rows_of(model_ids))
        versions: dict[str, set[tuple[str, str]]] = {row.id: set() for row in rows}
        for row in rows:
            if row.sha256 is not None:
                versions[row.id].add((row.job_id, row.sha256))
        return {
            row.id: ModelRecord(
                model_id=row.id,
                owner=row.owner,
                shared=bool(row.shared),
                versions=frozenset(versions[row.id]),
            )
            for row in rows
        }

    async def put_model(self, record: ModelRecord) -> None:
        """See `ModelOwners.put_model`."""

        async def put(connection: AsyncConnection) -> None:
            # Its versions go with it: the foreign key cascades.
            await connection.execute(
                delete(registered_models).where(registered_models.c.id == record.model_id)
            )
            await connection.execute(
                insert(registered_models).values(
                    id=record.model_id, owner=record.owner, shared=int(record.shared)
                )
            )
            versions = [
                {"model_id": record.model_id, "job_id": job_id, "sha256": sha256}
                for job_id, sha256 in record.versions
            ]
            if versions:
                await connection.execute(insert(registered_versions), versions)

        await self._writer.write(put)


def _rows_of(model_ids: Sequence[str]) -> Select[tuple[str, str, int, str, str]]:
    """A row per version, and one of a model without any."""
    models, versions = registered_models.c, registered_versions.c
    columns = (models.id, models.owner, models.shared, versions.job_id, versions.sha256)
    both = registered_models.outerjoin(registered_versions)
    return select(*columns).select_from(both).where(models.id.in_(model_ids))
