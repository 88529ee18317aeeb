"""`client.datasets`: input and output of data sets."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from dropnorm.datasets import _requests
from dropnorm.datasets.bundle import Bundle, write_bundle
from dropnorm.results import Dataset

if TYPE_CHECKING:
    from dropnorm.client import Client
    from dropnorm.datasets.arrays import Task
    from dropnorm.datasets.texts import Tokens


class Datasets:
    """The data sets of a service that were uploaded."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(
        self,
        name: str,
        x: Any,
        y: Any = None,
        *,
        text: str | None = None,
        target: str | None = None,
        test: tuple[Any, Any] | None = None,
        task: Task | None = None,
        class_names: Sequence[str] | None = None,
        tokens: Tokens = "characters",
        length: int = 128,
        shared: bool = False,
        timeout: float | None = None,
    ) -> Dataset:
        """Upload a data set; a spec then names it in `data.dataset`. It never changes.

        A broken connection is taken up where it broke, and a file that the service has already is not sent again.

        Args:
            name: its id: small letters, digits, `_` and `-`, the first a letter.
            x: samples: a numpy array, a torch tensor, lists, texts, or a pandas frame; see `dropnorm.datasets`.
            y: targets, a series or a frame too; absent: a column of the frame, which `target` names.
            text: name of a frame's column of texts; these alone are the samples then.
            target: name of the target's column, by default the last one; not beside `y`.
            test: samples and targets of a test split of its own, of the same classes; absent: each job splits one off
                for itself.
            task: `classification` or `regression`, where the type of the targets does not say it.
            class_names: names of the classes: in their order where the targets are numbers 0, 1, ..., and those that
                are the targets where these are text.
            tokens: of texts: what a token is, `characters` or `words`.
            length: of texts: tokens of a sample at most, its beginning included; the rest of a text is left out.
            shared: whether the project's other users may see the data set and train on it.
            timeout: seconds the whole upload may take; absent: no limit.

        Raises:
            InvalidData: a value is missing, infinite or of no use; its row and column are named.
            InvalidRequest: the name is none, or is that of a built-in data set.
            AlreadyExists: the name belongs to another data set.
            ResourceExhausted: it is larger than the service allows, or you have as many data as you may.
        """
        bundle = _requests.bundle_of(
            x,
            y,
            text=text,
            target=target,
            test=test,
            task=task,
            class_names=class_names,
            tokens=tokens,
            length=length,
        )
        return self.upload_bundle(name, bundle, shared=shared, timeout=timeout)

    def upload_bundle(
        self, name: str, bundle: Bundle, *, shared: bool = False, timeout: float | None = None
    ) -> Dataset:
        """Upload what `dropnorm.datasets` made of files; see `upload`."""
        with tempfile.TemporaryDirectory(prefix="dropnorm-") as folder:
            path = Path(folder) / "dataset.safetensors"
            sha256 = write_bundle(bundle, path)
            return self.upload_file(name, path, sha256, shared=shared, timeout=timeout)

    def upload_file(
        self,
        name: str,
        path: Path,
        sha256: str,
        *,
        shared: bool = False,
        timeout: float | None = None,
    ) -> Dataset:
        """Upload a data set's file, from where an upload of the same file broke off; see `upload`."""
        client, call = self._client, _requests.upload()
        asked = _requests.query(sha256)
        attempts = _requests.UploadAttempts(address=client.address, timeout=timeout)
        while True:
            try:
                answer = client._method(asked.method)(asked.request, timeout=attempts.timeout)
                received = asked.read(answer)
                attempts.begin_at(received)
                parts = _requests.parts(name, path, sha256, received, shared)
                reply = client._method(call.method)(parts, timeout=attempts.timeout)
            except grpc.RpcError as error:
                client._check_open()
                time.sleep(attempts.pause_after(error))
            else:
                return call.read(reply)

    def import_file(
        self, name: str, path: str, *, shared: bool = False, timeout: float | None = None
    ) -> Dataset:
        """Make a data set of a file on the service's machine, in a folder that its setting `import_dirs` names.

        Raises:
            PermissionDenied: there is no such file in one of those folders.
        """
        return self._client._call(
            _requests.import_file(name, path, shared), _requests.limit(timeout)
        )

    def get(self, name: str, *, timeout: float | None = None) -> Dataset:
        """A data set by its id or resource name.

        Raises:
            NotFound: there is none.
        """
        return self._client._call(_requests.get(name), timeout)

    def list(self, *, filter: str = "", timeout: float | None = None) -> Iterator[Dataset]:
        """Every uploaded data set of yours and those that are shared, or those of them that a filter keeps, by id.

        Args:
            filter: AIP-160, `task = classification AND samples >= 1000`; empty: all.
            timeout: seconds for each page.
        """
        return self._client._pages(_requests.list_datasets(filter), timeout)

    def share(self, name: str, *, timeout: float | None = None) -> Dataset:
        """Let the project's other users see a data set and train on it; they cannot change it."""
        return self._client._call(_requests.share(name, True), timeout)

    def unshare(self, name: str, *, timeout: float | None = None) -> Dataset:
        """Let nobody but admins see a data set any more; jobs of others that were accepted on it go on."""
        return self._client._call(_requests.share(name, False), timeout)

    def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a data set.

        Raises:
            NotFound: there is none.
            WrongState: jobs that have not ended use it.
        """
        self._client._call(_requests.delete(name), timeout)
