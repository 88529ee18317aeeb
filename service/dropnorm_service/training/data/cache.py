"""The data sets of a service: found, downloaded and parsed once, then read by memory mapping."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dropnorm.results import DatasetSummary
from dropnorm.spec import InvalidSpecError, Problem, TrainingSpec
from dropnorm_service.training._files import clear_leftovers
from dropnorm_service.training.data.catalog import CATALOG
from dropnorm_service.training.data.download import download
from dropnorm_service.training.data.entry import Entry, Tensors
from dropnorm_service.training.data.info import DatasetInfo
from dropnorm_service.training.data.split_data import Dataset
from dropnorm_service.training.data.splits import summarize
from dropnorm_service.training.data.uploads import Uploads
from dropnorm_service.training.errors import BadData


def _nothing() -> None:
    """What happens between two pieces of work when nobody asks."""


class DatasetCache:
    """Where data sets come from, and their parsed form.

    Args:
        root: folder of the cache, made when it is missing; any number of processes may share it.
        datasets_dir: folder with data sets in their original files, each in a subfolder of its name
            or right inside.
        mirrors: name of a data set -> URL of a folder that serves its published files.
        catalog: the data sets there are.
        uploads: folder of those that were uploaded; None: there are none.
    """

    def __init__(
        self,
        root: Path,
        *,
        datasets_dir: Path | None = None,
        mirrors: Mapping[str, str] | None = None,
        catalog: Mapping[str, DatasetInfo] = CATALOG,
        uploads: Path | None = None,
    ) -> None:
        self._root = root
        self._datasets_dir = datasets_dir
        self._mirrors = dict(mirrors or {})
        self._catalog = catalog
        self._uploads = Uploads(uploads) if uploads else None

    def summarize(self, spec: TrainingSpec) -> DatasetSummary:
        """The data a spec will train on, without reading it; with its digest once it is cached.

        Raises:
            InvalidSpecError: there is no such data set, its files are nowhere to be found, or it
                does not have what the spec asks for.
        """
        if uploaded := self._uploaded(spec.data.dataset):
            return summarize(spec, *uploaded)
        info = self._info(spec.data.dataset)
        found = self._found(info)
        index = Entry(self._root / info.name).index(found)
        if not (index or found or info.name in self._mirrors or not info.source.files):
            raise self._nowhere(info)
        return summarize(spec, info, index.digest if index else None)

    def load(self, name: str, *, between_pieces: Callable[[], None] = _nothing) -> Dataset:
        """The raw data, memory mapped; parsed first, and downloaded before that, where need be.

        Args:
            name: as `data.dataset` names it.
            between_pieces: called now and then while this waits or downloads; what it raises ends
                the loading.

        Raises:
            InvalidSpecError: there is no such data set, or its files are nowhere to be found.
            BadData: a file is not what it should be.
            DataUnavailable: the mirror cannot be reached.
        """
        if uploaded := self._uploaded(name):
            return Dataset(*uploaded, uploaded[0].source.parse((), uploaded[0]))
        info = self._info(name)
        entry = Entry(self._root / name)
        found = self._found(info)
        if dataset := _opened(info, entry, found):
            return dataset
        with entry.locked(between_pieces):
            if dataset := _opened(info, entry, found):  # another process was faster
                return dataset
            if found or not info.source.files:
                return Dataset(info, *entry.write(_parsed(info, found), found))
            folder = entry.folder / "download"
            self._download(info, folder, between_pieces)
            dataset = Dataset(info, *entry.write(_parsed(info, info.source.find(folder)), ()))
            shutil.rmtree(folder)
            return dataset

    def _uploaded(self, name: str) -> tuple[DatasetInfo, str] | None:
        if self._uploads is None or name in self._catalog:
            return None
        return self._uploads.find(name)

    def _info(self, name: str) -> DatasetInfo:
        if name not in self._catalog:
            known = ", ".join(sorted(self._catalog))
            message = (
                f"there is no data set {name!r}; there are {known}, and those that are uploaded"
            )
            raise InvalidSpecError([Problem("data.dataset", message)])
        return self._catalog[name]

    def _found(self, info: DatasetInfo) -> Sequence[Path]:
        """The original files in the datasets folder; empty when they are not there."""
        if self._datasets_dir is None:
            return ()
        folders = (self._datasets_dir / info.name, self._datasets_dir)
        return next((paths for folder in folders if (paths := info.source.find(folder))), ())

    def _download(
        self, info: DatasetInfo, folder: Path, between_pieces: Callable[[], None]
    ) -> None:
        """Fetch what an earlier try has not left in the folder; only checked files are in it."""
        if info.name not in self._mirrors:
            raise self._nowhere(info)
        folder.mkdir(exist_ok=True)
        clear_leftovers(folder)
        for file in info.source.files:
            if not (folder / file.name).is_file():
                mirror = self._mirrors[info.name]
                download(mirror, file, folder, between_blocks=between_pieces)

    def _nowhere(self, info: DatasetInfo) -> InvalidSpecError:
        names = ", ".join(file.name for file in info.source.files)
        where = (
            f"{self._datasets_dir} does not hold them"
            if self._datasets_dir
            else "no folder of data sets is set"
        )
        return InvalidSpecError(
            [
                Problem(
                    "data.dataset",
                    f"{info.name} is read from its original files ({names}), and {where}; name a "
                    "folder by the service's setting datasets_dir (DROPNORM_DATASETS_DIR) that has "
                    f"them inside or in a subfolder {info.name}, or a mirror to download them from",
                )
            ]
        )


def _opened(info: DatasetInfo, entry: Entry, found: Sequence[Path]) -> Dataset | None:
    index = entry.index(found)
    tensors = entry.open(index) if index else None
    return Dataset(info, index.digest, tensors) if index and tensors else None


def _parsed(info: DatasetInfo, paths: Sequence[Path]) -> Tensors:
    """What the files hold, if it is what the catalog promised and plans were made with."""
    tensors = info.source.parse(paths, info)
    promised = {
        "x": (info.samples, *info.input_shape),
        "test_x": (info.test_samples, *info.input_shape),
    }
    for name, shape in promised.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise BadData(
                f"{info.name} has the shape {tuple(tensors[name].shape)} here and should have {shape}.",
                dataset=info.name,
            )
    return tensors
