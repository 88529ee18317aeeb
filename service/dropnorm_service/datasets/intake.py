"""How a file comes in: from a client in pieces, or from a folder of this machine; as announced, and with room."""

from __future__ import annotations

import asyncio
import errno
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dropnorm.spec import Problem
from dropnorm_service.datasets.errors import (
    PathNotAllowed,
    UploadInProgress,
    UploadStalled,
    UploadTooLarge,
)
from dropnorm_service.datasets.files import DatasetFiles
from dropnorm_service.datasets.limits import Limits
from dropnorm_service.datasets.uploads import Upload
from dropnorm_service.durable import no_room, sha256_of
from dropnorm_service.jobs.callers import Caller
from dropnorm_service.jobs.errors import InvalidRequest, LimitReached
from dropnorm_service.jobs.limits import Places, subject_of
from dropnorm_service.unbroken import to_the_end

T = TypeVar("T")

ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
HEADER = "header"
"""Where an upload's own fields stand in its requests."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAUSE = 5.0  # seconds after which an upload may be through


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an upload announces; see UploadHeader of the contract."""

    dataset_id: str
    size_bytes: int
    sha256: str
    offset: int = 0
    shared: bool = False


class Intake:
    """Brings files to where they wait to be looked into and named.

    Args:
        files: where they go.
        limits: what is allowed.
        import_dirs: folders of this machine that files may be imported from.
        retention: seconds that an upload which broke off is kept.
        idle_timeout: seconds that an upload may send nothing.
    """

    def __init__(
        self,
        files: DatasetFiles,
        limits: Limits,
        *,
        import_dirs: Sequence[Path],
        retention: float,
        idle_timeout: float,
    ) -> None:
        self._files = files
        self._limits = limits
        self._retention = retention
        self._idle_timeout = idle_timeout
        self._import_dirs = tuple(each.resolve() for each in import_dirs)
        self._busy: dict[Upload, int] = {}  # sizes of the files that calls work on
        self._places = Places(
            "max_uploads_per_user",
            limits.user_uploads,
            "You upload {limit} files, as many as a user may at once; wait until one is through.",
            retry_after=_PAUSE,
        )

    def busy(self, sha256: str, besides: Upload | None = None) -> bool:
        """Whether calls work on a file, and may be about to give it a name."""
        return any(each.sha256 == sha256 for each in self._busy.keys() - {besides})

    async def forget_broken(self) -> None:
        """Remove what has come of uploads with which nobody went on for as long as that is kept."""
        before = time.time() - self._retention
        for path in await asyncio.to_thread(lambda: list(self._files.stale(before))):
            if not self.busy(path.stem):  # asked where nobody can begin to go on with it meanwhile
                self._files.drop_stale(path, before)
            await asyncio.sleep(0)

    def place(self, caller: Caller) -> AbstractContextManager[None]:
        """Be one of the caller's uploads.

        Raises:
            LimitReached: he has as many as he may.
        """
        return self._places.taken(subject_of(caller))

    @asynccontextmanager
    async def sole(self, caller: Caller, upload: Upload, size: int) -> AsyncIterator[None]:
        """Be the only call that works on a user's file, with room for the whole of it set aside.

        Raises:
            UploadInProgress: another call works on it.
            LimitReached: the caller has as many data as he may, or all together have as many data sets as may be.
            UploadTooLarge: there is no room for it, or none is left meanwhile.
        """
        with _no_room_is_told():
            try:
                self._begin(caller, upload, size)
            except (LimitReached, UploadTooLarge):
                await self.forget_broken()
                self._begin(caller, upload, size)
            try:
                yield
            finally:
                del self._busy[upload]

    def _begin(self, caller: Caller, upload: Upload, size: int) -> None:
        if upload in self._busy:
            raise UploadInProgress(
                "Another call uploads this very file; try again when that has ended."
            )
        self._check_room(caller, {**self._busy, upload: size})
        self._busy[upload] = size

    async def next_part(self, parts: AsyncIterator[T]) -> T | None:
        """What an upload sends next; None: nothing more.

        Raises:
            UploadStalled: nothing has come for a while.
        """
        try:
            async with asyncio.timeout(self._idle_timeout):
                return await anext(parts, None)
        except TimeoutError:
            raise UploadStalled(
                f"Nothing has come for {self._idle_timeout:g} seconds; what came before is kept, send the rest."
            ) from None

    async def receive(self, upload: Upload, header: Header, chunks: AsyncIterator[bytes]) -> None:
        """Write what comes, and check that it is the file that was announced.

        Raises:
            InvalidRequest: it is not, or it begins behind what is there.
            UploadStalled: nothing more has come for a while.
        """
        place, had = header.offset, self._files.received(upload)
        if had > header.size_bytes:  # so these are not bytes of this file
            self._files.discard(upload)
            had = 0
        if place > had:
            text = f"{had} bytes of this file are here, and the upload begins behind byte {place}; ask QueryUpload"
            raise InvalidRequest.of(f"{HEADER}.offset", text)
        async for data in self._patiently(chunks):
            if place + len(data) > header.size_bytes:
                self._files.discard(upload)
                text = f"more bytes have come than the {header.size_bytes} that were announced"
                raise InvalidRequest.of("chunk", text)
            await to_the_end(asyncio.to_thread(self._files.append, upload, place, data))
            place += len(data)
        if place < header.size_bytes:
            text = f"{place} of {header.size_bytes} bytes have come; send the rest from there"
            raise InvalidRequest.of("chunk", text)
        await self._verify(upload, HEADER)

    def look_at(self, source: Path) -> tuple[str, int]:
        """SHA-256 (hex) of a file of this machine, and its size in bytes. Waits for the disk.

        Raises:
            UploadTooLarge: it is too large by itself.
            PathNotAllowed: it cannot be read.
        """
        with _unreadable_is_told(source):
            size = source.stat().st_size
            self.check_size(size)
            return sha256_of(source), size

    async def copy(self, upload: Upload, source: Path) -> None:
        """Take a file of this machine; it stays as it is.

        Raises:
            InvalidRequest: it changed while it was read.
            PathNotAllowed: it cannot be read any more.
        """
        with _unreadable_is_told(source):
            await to_the_end(asyncio.to_thread(self._files.copy, upload, source))
        await self._verify(upload, "")

    def check_size(self, size: int) -> None:
        """Refuse a file that is too large by itself.

        Raises:
            UploadTooLarge: it is.
        """
        if size > self._limits.bytes:
            raise UploadTooLarge(
                f"The file has {size:,} bytes, and the service takes {self._limits.bytes:,}; upload a smaller one, or "
                "raise max_dataset_bytes."
            )

    def allowed(self, path: str) -> Path:
        """The file that a path means, links followed, if it may be read.

        Raises:
            PathNotAllowed: it may not, or is not there.
        """
        try:
            resolved = Path(path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            resolved = None
        allowed = resolved is not None and any(
            resolved.is_relative_to(folder) for folder in self._import_dirs
        )
        if resolved is None or not allowed or not resolved.is_file():
            raise PathNotAllowed(
                "There is no such file in a folder that data sets may be imported from; the service's setting "
                "import_dirs names them."
            )
        return resolved

    def _check_room(self, caller: Caller, expected: Mapping[Upload, int]) -> None:
        limits, subject = self._limits, subject_of(caller)
        if self._files.datasets_of(caller.user, expected) > limits.user_datasets:
            raise _too_many(
                f"With this one you would have more than {limits.user_datasets:,} data sets, which is what a user may",
                "max_datasets_per_user",
                limits.user_datasets,
                subject,
            )
        if self._files.datasets(expected) > limits.datasets:
            raise _too_many(
                f"With this one there would be more than {limits.datasets:,} data sets, which is what a service keeps",
                "max_datasets",
                limits.datasets,
                "service",
            )
        if self._files.total(expected) > limits.total_bytes:
            raise UploadTooLarge(
                f"With this file the data sets would take more than {limits.total_bytes:,} bytes; delete some, "
                "or raise max_datasets_bytes."
            )
        most = limits.user_bytes
        if most is not None and self._files.taken_by(caller.user, expected) > most:
            raise _too_many(
                f"With this file your data sets would take more than {most:,} bytes, which is what a user may have",
                "max_datasets_bytes_per_user",
                most,
                subject,
            )

    async def _patiently(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, as long as they come."""
        while (data := await self.next_part(chunks)) is not None:
            yield data

    async def _verify(self, upload: Upload, within: str) -> None:
        """Check that the file that has come is the one that was announced `within`."""
        found = await asyncio.to_thread(sha256_of, self._files.partial(upload))
        if found != upload.sha256:
            self._files.discard(upload)
            text = f"the bytes that came have the SHA-256 {found}; they were damaged on the way, send them again"
            raise InvalidRequest([Problem("sha256", text).below(within)])


def _too_many(what: str, setting: str, limit: int, subject: str) -> LimitReached:
    """No time helps, so none is given after which to try again."""
    return LimitReached(
        f"{what}, unfinished uploads too; delete some.",
        setting=setting,
        limit=limit,
        subject=subject,
        retry_after=None,
    )


@contextmanager
def _unreadable_is_told(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if _finds_no_room(error) or str(error.filename or source) != str(source):
            raise  # not of what is read, but of what is written
        raise PathNotAllowed(
            f"The service cannot read that file ({error.strerror}); see that it may, and that the file stays there."
        ) from error


def _finds_no_room(error: OSError) -> bool:
    return no_room(error) or error.errno == errno.EFBIG


@contextmanager
def _no_room_is_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _finds_no_room(error):
            raise
        raise UploadTooLarge(
            "There is no room for the file on the service's disk; delete data sets, or give its data_dir more."
        ) from error


def check(header: Header) -> None:
    """Check what an upload announces.

    Raises:
        InvalidRequest: with every field that is wrong.
    """
    wrong = [wrong_id(header.dataset_id), wrong_sha256(header.sha256)]
    if header.size_bytes < 1:
        wrong.append(Problem("size_bytes", "give the size of the whole file"))
    elif not 0 <= header.offset <= header.size_bytes:
        wrong.append(Problem("offset", f"give 0 to size_bytes, which is {header.size_bytes}"))
    if problems := [each.below(HEADER) for each in wrong if each is not None]:
        raise InvalidRequest(problems)


def wrong_id(dataset_id: str) -> Problem | None:
    """What is wrong with the id of a data set, if anything."""
    if ID.fullmatch(dataset_id):
        return None
    text = "give small letters, digits, _ and -, at most 63, the first a letter"
    return Problem("dataset_id", text)


def wrong_sha256(sha256: str) -> Problem | None:
    """What is wrong with a SHA-256, if anything."""
    if _SHA256.fullmatch(sha256):
        return None
    return Problem("sha256", "give 64 hexadecimal digits, small letters")
