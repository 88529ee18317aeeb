"""Published files from a mirror: fetched in pieces, checked against their sums, then put in place."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from dropnorm_service.training._files import replacing
from dropnorm_service.training.data.info import PinnedFile
from dropnorm_service.training.errors import BadData

_BLOCK = 1 << 16
_TIMEOUT_SECONDS = 30.0


class DataUnavailable(OSError):
    """A mirror cannot be reached or breaks off: the world's fault, another attempt may succeed."""


def download(
    base: str,
    file: PinnedFile,
    folder: Path,
    *,
    between_blocks: Callable[[], None] = lambda: None,
    timeout: float = _TIMEOUT_SECONDS,
) -> Path:
    """Fetch `base`/`file.name` into a folder; the file appears there only when it is right.

    Args:
        base: URL of the mirror's folder, http or https.
        file: what to fetch, with its size and sum.
        folder: where to.
        between_blocks: called every 64 KiB; what it raises ends the download.
        timeout: seconds without a byte after which the mirror counts as gone.

    Raises:
        DataUnavailable: the mirror has no such file, does not answer, or breaks off.
        BadData: it serves something else.
        ValueError: `base` is no http or https URL.
    """
    url = f"{base.rstrip('/')}/{file.name}"
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"a mirror is an http or https URL, not {base!r}")
    try:
        with (
            urllib.request.urlopen(url, timeout=timeout) as reply,  # noqa: S310 (checked above)
            replacing(folder / file.name) as temporary,
        ):
            _receive(reply, temporary, url, file, between_blocks)
    except urllib.error.HTTPError as error:
        with error:
            raise DataUnavailable(f"{url} answers {error.code} {error.reason}") from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise DataUnavailable(f"{url} cannot be fetched: {error}") from error
    return folder / file.name


def _receive(
    reply: http.client.HTTPResponse,
    path: Path,
    url: str,
    file: PinnedFile,
    between_blocks: Callable[[], None],
) -> None:
    digest, received = hashlib.sha256(), 0
    with path.open("wb") as target:
        while received <= file.size and (block := reply.read(_BLOCK)):
            digest.update(block)
            target.write(block)
            received += len(block)
            between_blocks()
    if received < file.size:
        raise DataUnavailable(f"{url} broke off after {received} of {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise BadData(
            f"{url} is not the published file: its SHA-256 is {digest.hexdigest()} and should be "
            f"{file.sha256}. Name another mirror, or put the right file into the datasets folder.",
            url=url,
            sha256=digest.hexdigest(),
            expected=file.sha256,
        )
