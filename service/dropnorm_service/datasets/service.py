"""What can be done with data sets. Decides; `files` keeps, and an inspector looks into what was sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

from dropnorm.results import Dataset
from dropnorm.spec.dataset import names_size
from dropnorm_service import audit
from dropnorm_service.datasets.errors import (
    DatasetAlreadyExists,
    DatasetInUse,
    DatasetNotFound,
)
from dropnorm_service.datasets.files import DatasetFiles
from dropnorm_service.datasets.filtering import FIELDS, matches
from dropnorm_service.datasets.holds import Holds
from dropnorm_service.datasets.intake import (
    HEADER,
    ID,
    Header,
    Intake,
    check,
    wrong_id,
    wrong_sha256,
)
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.uploads import Upload
from dropnorm_service.jobs import paging
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import (
    InvalidListRequest,
    InvalidRequest,
    StoreUnavailable,
)
from dropnorm_service.jobs.filtering import Filter, parse_filter
from dropnorm_service.jobs.owners import Owned, changes, check_changes, sees
from dropnorm_service.jobs.purging import Removing
from dropnorm_service.unbroken import changing, to_the_end

T = TypeVar("T")

_UNUSED = "no job needed the data set any more"
_PAGE_NAMES = 2 * 2**20  # bytes of names that end a page: gRPC's clients take 4 MiB by default

log = logging.getLogger(__name__)


Referred = Callable[[], Awaitable[Container[str]]]
"""Names of the data sets that jobs refer to now."""


class Inspector(Protocol):
    """Looks into files."""

    async def inspect(self, dataset_id: str, path: Path) -> Dataset:
        """What a file holds, without its SHA-256.

        Raises:
            InvalidRequest: it is no data set.
            InspectionFailed: nobody could say.
        """


class DatasetService:
    """The uploaded data sets of a service.

    To a caller who may not see a data set, it is not there; one who sees it and may not change it is refused by
    NotOwner. Nobody learns from equal files being stored once that another has one.

    Args:
        folder: where they are kept.
        inspector: looks into what was sent.
        jobs_using: the jobs that have not ended and use a data set.
        on_change: called when a name has come to mean something else than before.
        limits: what is allowed.
        import_dirs: folders of this machine that files may be imported from.
        retention: seconds that an upload which broke off is kept.
        idle_timeout: seconds that an upload may send nothing.
        removing: within it files may be removed, or (False) not now.
    """

    def __init__(
        self,
        folder: Path,
        inspector: Inspector,
        *,
        jobs_using: Callable[[str], Awaitable[Sequence[Owned]]],
        on_change: Callable[[], None],
        limits: Limits,
        import_dirs: Sequence[Path] = (),
        retention: float = 86_400.0,
        idle_timeout: float = 60.0,
        removing: Removing = lambda: nullcontext(True),
    ) -> None:
        self._files = DatasetFiles(folder)
        self._files.sweep()
        self._inspector = inspector
        self._jobs_using = jobs_using
        self._on_change = on_change
        self._removing = removing
        self._intake = Intake(
            self._files,
            limits,
            import_dirs=import_dirs,
            retention=retention,
            idle_timeout=idle_timeout,
        )
        self._turn = asyncio.Lock()  # names and files change one after the other
        self._holds = Holds()

    def held(self, dataset_id: str) -> AbstractAsyncContextManager[None]:
        """Within it no data set of this name is deleted; who deletes one waits, and then asks `jobs_using`.

        It waits for a deletion that is under way, which there is only of an uploaded data set, by who may change it.
        """
        return self._holds.held(dataset_id)

    def hidden(self, caller: Caller, dataset_id: str) -> bool:
        """Whether there is a data set of this name, and the caller does not see it."""
        found = self._find(dataset_id)
        return found is not None and not sees(caller, found)

    async def upload(self, caller: Caller, header: Header, chunks: AsyncIterator[bytes]) -> Dataset:
        """Receive a file, or the rest of one, look into it and give it its name.

        What has come stays when the call breaks off, for the next one to go on from.

        Raises:
            InvalidRequest: the header is wrong, or the file is not what it says, or no data set.
            DatasetAlreadyExists: the name belongs to another file or user.
            UploadTooLarge: there is no room for it.
            LimitReached: the caller, or all together, have as many data as they may, or he as many uploads.
            UploadInProgress: another call of his sends the same file.
            UploadStalled: nothing more has come for a while.
        """
        check(header)
        self._intake.check_size(header.size_bytes)
        if known := self._known(caller, header.dataset_id, header.sha256):
            self._files.touch(known.id)
            return known
        upload = Upload(caller.user, header.sha256)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._intake.place(caller))
            await stack.enter_async_context(self._intake.sole(caller, upload, header.size_bytes))
            if self._files.sent(upload) is None:
                await self._intake.receive(upload, header, chunks)
            return await self._publish(caller, upload, header.dataset_id, header.shared, HEADER)

    async def next_part(self, parts: AsyncIterator[T]) -> T | None:
        """What an upload sends next; None: nothing more.

        Raises:
            UploadStalled: nothing has come for a while.
        """
        return await self._intake.next_part(parts)

    def received(self, caller: Caller, sha256: str) -> int:
        """Bytes of a file that the caller need not send again.

        Raises:
            InvalidRequest: that is no SHA-256.
        """
        if wrong := wrong_sha256(sha256):
            raise InvalidRequest([wrong])
        return self._files.received(Upload(caller.user, sha256))

    async def import_file(
        self, caller: Caller, dataset_id: str, path: str, *, shared: bool = False
    ) -> Dataset:
        """Make a data set of a file in one of the allowed folders; the file itself stays as it is.

        Raises:
            InvalidRequest: the id is none, or the file is no data set.
            PathNotAllowed: the file is in no allowed folder, not there, or cannot be read.
            DatasetAlreadyExists: the name belongs to another file or user.
            UploadTooLarge: there is no room for it.
            LimitReached: the caller, or all together, have as many data as they may, or he as many uploads.
        """
        if wrong := wrong_id(dataset_id):
            raise InvalidRequest([wrong])
        source = self._intake.allowed(path)
        with self._intake.place(caller):
            sha256, size = await asyncio.to_thread(self._intake.look_at, source)
            if known := self._known(caller, dataset_id, sha256):
                self._files.touch(known.id)
                return known
            upload = Upload(caller.user, sha256)
            async with self._intake.sole(caller, upload, size):
                if self._files.sent(upload) is None:
                    await self._intake.copy(upload, source)
                return await self._publish(caller, upload, dataset_id, shared, "")

    def get(self, caller: Caller, dataset_id: str) -> Dataset:
        """A data set.

        Raises:
            DatasetNotFound: there is none.
        """
        found = self._find(dataset_id)
        if found is None or not sees(caller, found):
            raise DatasetNotFound(dataset_id)
        return found

    async def list(
        self, caller: Caller, page_size: int, page_token: str, filter: str = ""
    ) -> tuple[Sequence[Dataset], str]:
        """Data sets that pass the filter, by id from behind the token on, and the token of the next page.

        They are those that the caller sees. A page ends early where its data sets have very many names of classes and
        features.

        Raises:
            InvalidListRequest: size, token or filter is wrong.
        """
        tree = parse_filter(filter, FIELDS)
        size = paging.page_size(page_size)
        if page_token and not ID.fullmatch(page_token):
            raise InvalidListRequest.of(
                "page_token", "is not one of ours; pass next_page_token on as it came"
            )
        return await asyncio.to_thread(self._page, caller, size, page_token, tree)

    def _page(
        self, caller: Caller, size: int, behind: str, tree: Filter | None
    ) -> tuple[Sequence[Dataset], str]:
        """A page of a list; waits for the disk."""
        ids = (each for each in self._files.ids() if each > behind)
        found = (dataset for each in ids if (dataset := self._files.get(each)) is not None)
        page: list[Dataset] = []
        names = 0
        for each in (each for each in found if sees(caller, each) and matches(tree, each)):
            names += names_size(each.class_names, each.feature_names)
            if page and (len(page) == size or names > _PAGE_NAMES):
                return page, page[-1].id
            page.append(each)
        return page, ""

    async def share(self, caller: Caller, dataset_id: str, shared: bool) -> Dataset:
        """Let all users see a data set and train on it, or no longer; jobs that were accepted on it go on.

        Raises:
            DatasetNotFound: there is none.
        """
        async with self._turn:
            dataset = self._changeable(caller, dataset_id)
            if dataset.shared != shared:
                dataset = dataset.model_copy(update={"shared": shared})
                changing()
                await to_the_end(asyncio.to_thread(self._files.name, dataset))
            return dataset

    async def delete(self, caller: Caller, dataset_id: str) -> None:
        """Delete a data set; its file goes with its last name.

        Raises:
            DatasetNotFound: there is none.
            DatasetInUse: jobs that have not ended use it.
        """
        self._changeable(caller, dataset_id)  # who may not delete it keeps nobody waiting either
        async with self._holds.taken(dataset_id), self._turn:
            dataset = self._changeable(caller, dataset_id)
            if jobs := await self._jobs_using(dataset_id):
                known = [job.name for job in jobs if sees(caller, job)]
                raise DatasetInUse(dataset_id, known, len(jobs) - len(known))
            await to_the_end(self._remove(dataset))

    async def collect(self, referred: Referred, before: float) -> Sequence[str]:
        """Delete the data sets that no job has referred to since a time; their ids.

        Being referred to is noted with the data set, so that time counts from the last job's end of being there, and
        goes on counting while no service runs. Who makes a job, or uploads, holds what he needs: that is never taken
        from under him, as in `delete`.

        Args:
            referred: names of the data sets that jobs refer to now.
            before: seconds since 1970.
        """
        gone = []
        for dataset_id in await asyncio.to_thread(self._unused, await referred(), before):
            async with self._holds.taken(dataset_id), self._turn:
                dataset = self._files.get(dataset_id)
                needed = dataset_id in await referred()
                if dataset and not needed and self._files.last_used(dataset_id) < before:
                    await to_the_end(self._collect(dataset))
                    gone.append(dataset_id)
        return gone

    async def _collect(self, dataset: Dataset) -> None:
        await self._remove(dataset)
        audit.record_own("DeleteDataset", dataset.name, _UNUSED)
        log.info(_UNUSED, extra={"dataset": dataset.id})

    def _unused(self, referred: Container[str], before: float) -> Sequence[str]:
        """Note of what is referred to that it is in use; what is not, and has not been since a time."""
        unused = []
        for dataset_id in self._files.ids():
            if dataset_id in referred:
                self._files.touch(dataset_id)
            elif self._files.last_used(dataset_id) < before:
                unused.append(dataset_id)
        return unused

    async def forget_broken_uploads(self) -> None:
        """Remove what has come of uploads with which nobody went on for as long as that is kept."""
        await self._intake.forget_broken()

    def _changeable(self, caller: Caller, dataset_id: str) -> Dataset:
        """A data set that the caller may change."""
        dataset = self.get(caller, dataset_id)
        check_changes(caller, dataset)
        return dataset

    async def _remove(self, dataset: Dataset) -> None:
        with self._removing() as allowed:
            if not allowed:
                raise StoreUnavailable(
                    "A backup is being made, and nothing is removed meanwhile; try again when it is through."
                )
            changing()
            await asyncio.to_thread(self._files.unname, dataset.id)
            await self._drop_unnamed(dataset.sha256)
            self._on_change()

    async def _publish(
        self, caller: Caller, upload: Upload, dataset_id: str, shared: bool, within: str
    ) -> Dataset:
        """Look into a file that has come and give it the name that stands `within`; one that is no data set goes."""
        stored = self._files.sent(upload)
        try:
            inspected = await self._inspector.inspect(
                dataset_id, stored or self._files.partial(upload)
            )
        except InvalidRequest as error:
            self._files.discard(upload)
            async with self._turn:
                await self._drop_unnamed(upload.sha256, besides=upload)
            problems = [each.below(within) if each.field else each for each in error.problems]
            raise InvalidRequest(problems) from error
        facts = {"sha256": upload.sha256, "owner": upload.owner, "shared": shared}
        dataset = inspected.model_copy(update=facts)
        async with self._turn:
            try:
                known = self._known(caller, dataset_id, upload.sha256)
            except DatasetAlreadyExists:
                self._files.discard(upload)
                await self._drop_unnamed(upload.sha256, besides=upload)
                raise
            if known is not None:
                self._files.discard(upload)
                return known
            await to_the_end(self._name(dataset, upload if stored is None else None))
        return dataset

    async def _name(self, dataset: Dataset, adopted: Upload | None) -> None:
        """Give a file its name, one that has just come among those that are kept first."""
        changing()
        if adopted is not None:
            await asyncio.to_thread(self._files.adopt, adopted)
        await asyncio.to_thread(self._files.name, dataset)
        self._on_change()

    async def _drop_unnamed(self, sha256: str, besides: Upload | None = None) -> None:
        """Remove a file without a name, unless a call `besides` one works on it and may be about to give it one."""
        if not self._intake.busy(sha256, besides):
            await to_the_end(asyncio.to_thread(self._files.drop_unnamed, sha256))

    def _find(self, dataset_id: str) -> Dataset | None:
        return self._files.get(dataset_id) if ID.fullmatch(dataset_id) else None

    def _known(self, caller: Caller, dataset_id: str, sha256: str) -> Dataset | None:
        """The data set of this name, if it is the caller's and its file is the same."""
        known = self._files.get(dataset_id)
        if known is not None and not (changes(caller, known) and known.sha256 == sha256):
            raise DatasetAlreadyExists(dataset_id)
        return known
