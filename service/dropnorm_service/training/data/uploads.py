"""Uploaded data sets: checked once, byte by byte, then read by memory mapping.

folder/names/<id>.json              what a data set is, and which file holds it
folder/files/<sha256>.safetensors   tensors and manifest; never changed
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dropnorm.spec import DatasetManifest
from dropnorm_service.training.data.entry import content_digest
from dropnorm_service.training.data.info import DatasetInfo, PinnedFile
from dropnorm_service.training.data.tokens import BOS, EOS, PAD, SPECIAL, UNKNOWN, Vocabulary
from dropnorm_service.training.errors import BadData

MANIFEST = "dropnorm"
_ID = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_BLOCK = 1 << 22
"""Values that are looked at together."""
_LARGEST = 1e18
"""Squares of what is larger leave float32."""


@dataclass(frozen=True)
class UploadLimits:
    """What an uploaded data set may hold.

    Attributes:
        samples: samples in all.
        values: values per sample.
    """

    samples: int
    values: int


@dataclass(frozen=True)
class UploadedFile:
    """The source of an uploaded data set (`info.Source`): its file is its parsed form."""

    path: Path
    files: tuple[PinnedFile, ...] = ()

    def find(self, folder: Path) -> Sequence[Path]:
        """Nothing: it is not looked for."""
        return ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, Tensor]:
        """Map the tensors."""
        return _tensors(self.path)


class Uploads:
    """The uploaded data sets of a service.

    Args:
        folder: where they are; need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> tuple[DatasetInfo, str] | None:
        """What is known of a data set, with the digest of its tensors; None: there is none of that name.

        Raises:
            BadData: its file is gone or damaged.
        """
        if not _ID.fullmatch(name):
            return None
        try:
            facts = json.loads((self._folder / "names" / f"{name}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        path = self._folder / "files" / f"{facts['sha256']}.safetensors"
        return _described(name, path, _manifest(path), _tensors(path)), facts["digest"]


def inspect(
    name: str, path: Path, limits: UploadLimits
) -> tuple[DatasetInfo, DatasetManifest, str]:
    """Look at everything in a file: what it is, what it says of itself, and the digest of its tensors.

    Raises:
        BadData: it is no data set, or holds what a training would stumble over; the row is named.
    """
    manifest, tensors = _manifest(path), _tensors(path)
    info = _described(name, path, manifest, tensors)
    for part, samples in (("", info.samples), ("test_", info.test_samples)):
        if samples:
            _check_split(info, tensors, part)
    count = info.samples + info.test_samples
    if count > limits.samples:
        raise BadData(
            f"it has {count:,} samples, and {limits.samples:,} are allowed; upload fewer."
        )
    values = tensors["x"][0].numel()
    if values > limits.values:
        raise BadData(
            f"a sample has {values:,} values, and {limits.values:,} are allowed; make samples smaller."
        )
    return info, manifest, content_digest(tensors)


def _described(
    name: str, path: Path, manifest: DatasetManifest, tensors: Mapping[str, Tensor]
) -> DatasetInfo:
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    _check_shapes(manifest, shapes)
    x, y = shapes["x"], shapes["y"]
    pairs = manifest.task == "sequence_to_sequence"
    return DatasetInfo(
        name=name,
        task=manifest.task,
        input_shape=x[1:],
        outputs=_outputs(manifest, y),
        samples=x[0],
        test_samples=shapes.get("test_x", (0,))[0],
        class_names=manifest.class_names,
        vocabulary=_vocabulary(manifest.vocabulary, manifest.separator),
        target_vocabulary=_vocabulary(manifest.target_vocabulary, manifest.separator),
        target_length=y[1] if pairs and len(y) == 2 else 0,
        source=UploadedFile(path),
    )


def _check_shapes(manifest: DatasetManifest, shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = sorted(set(shapes) - {"x", "y", "test_x", "test_y"})
    missing = sorted({"x", "y"} - set(shapes)) + (
        ["test_x and test_y together"] if ("test_x" in shapes) != ("test_y" in shapes) else []
    )
    if wrong or missing:
        raise BadData(f"a data set has the tensors x and y; here {_listed(missing, wrong)}.")
    for name, shape in shapes.items():
        if not shape or not shape[0]:
            raise BadData(
                f"{name} has the shape {list(shape)}; give a row per sample, one at least."
            )
    x = shapes["x"]
    if len(x) not in (2, 4) or 0 in x or (len(x) == 4 and manifest.vocabulary):
        raise BadData(
            f"x has the shape {list(x)}; give [samples, features] or [samples, channels, height, width]."
        )
    if manifest.feature_names and (len(x) != 2 or len(manifest.feature_names) != x[1]):
        raise BadData(
            f"its manifest names {len(manifest.feature_names)} features and x has the shape {list(x)}; name each "
            "feature, or none."
        )


def _outputs(manifest: DatasetManifest, y: tuple[int, ...]) -> int:
    if manifest.task == "classification":
        return len(manifest.class_names)
    return y[1] if manifest.task == "regression" and len(y) == 2 else 0


def _vocabulary(words: tuple[str, ...], separator: str) -> Vocabulary | None:
    return Vocabulary(words, separator) if words else None


def _listed(missing: Sequence[str], wrong: Sequence[str]) -> str:
    parts = [f"missing: {', '.join(missing)}"] * bool(missing)
    return "; ".join(parts + [f"unknown: {', '.join(wrong)}"] * bool(wrong))


def _check_split(info: DatasetInfo, tensors: Mapping[str, Tensor], part: str) -> None:
    x, y = tensors[f"{part}x"], tensors[f"{part}y"]
    if tuple(x.shape[1:]) != info.input_shape or len(x) != len(y):
        raise BadData(
            f"{part}x has the shape {list(x.shape)} and {part}y has {list(y.shape)}; both need a row per sample, "
            f"and samples of the shape {list(info.input_shape)}."
        )
    if info.vocabulary is not None:
        _check_sequences(f"{part}x", x, info.vocabulary)
    elif x.dtype not in (torch.float32, torch.uint8):
        raise BadData(f"{part}x is {_type(x)}; numbers are float32 or uint8.")
    elif x.dtype == torch.float32:
        _check_finite(f"{part}x", x)
    _TARGETS[info.task](f"{part}y", y, info)


def _check_classes(name: str, y: Tensor, info: DatasetInfo) -> None:
    if y.dtype != torch.int64 or y.ndim != 1:
        raise BadData(f"{name} is {_type(y)} {list(y.shape)}; classes are int64 [samples].")
    _check_range(name, y, 0, info.outputs - 1, "class")


def _check_numbers(name: str, y: Tensor, info: DatasetInfo) -> None:
    if y.dtype != torch.float32 or y.ndim != 2 or y.shape[1] != info.outputs or not info.outputs:
        raise BadData(
            f"{name} is {_type(y)} {list(y.shape)}; targets are float32 [samples, outputs]."
        )
    _check_finite(name, y)


def _check_answers(name: str, y: Tensor, info: DatasetInfo) -> None:
    assert info.target_vocabulary is not None  # the manifest's rules
    if y.ndim != 2 or y.shape[1] != info.target_length or info.target_length < 2:
        raise BadData(f"{name} has the shape {list(y.shape)}; answers are [samples, tokens].")
    _check_tokens(name, y, len(info.target_vocabulary))
    first = _first(_is_no_answer, y)
    if first is not None:
        raise BadData(
            f"row {first} of {name} must begin with token {BOS} and hold token {EOS}, with token {PAD} everywhere "
            "behind that and nowhere before."
        )


def _is_no_answer(rows: Tensor) -> Tensor:
    ends = (rows == EOS).long()
    behind = ends.cumsum(dim=1) - ends > 0
    return (rows[:, 0] != BOS) | ~ends.any(dim=1) | ((rows == PAD) != behind).any(dim=1)


def _check_nothing(name: str, y: Tensor, info: DatasetInfo) -> None:
    if y.dtype != torch.int64 or tuple(y.shape[1:]) != (0,):
        raise BadData(f"{name} must be int64 [samples, 0]: a text has no answers.")


_TARGETS: Mapping[str, Callable[[str, Tensor, DatasetInfo], None]] = {
    "classification": _check_classes,
    "regression": _check_numbers,
    "sequence_to_sequence": _check_answers,
    "masked_language_modelling": _check_nothing,
}


def _check_sequences(name: str, x: Tensor, vocabulary: Vocabulary) -> None:
    """Rows of tokens, with something to read in each, and words of the vocabulary in one at least."""
    _check_tokens(name, x, len(vocabulary))

    def says_nothing(rows: Tensor) -> Tensor:
        return ((rows < len(SPECIAL)) & (rows != UNKNOWN)).all(dim=1)

    first = _first(says_nothing, x)
    if first is not None:
        raise BadData(
            f"row {first} of {name} has no token but those of padding, beginning, end and mask; leave it out."
        )
    if all(bool((block < len(SPECIAL)).all()) for block in _blocks(x)):
        raise BadData(f"no row of {name} has a token of the vocabulary; there is nothing to learn.")


def _check_tokens(name: str, values: Tensor, count: int) -> None:
    if values.dtype != torch.int64:
        raise BadData(f"{name} is {_type(values)}; tokens are int64.")
    _check_range(name, values, PAD, count - 1, "token")


def _check_range(name: str, values: Tensor, least: int, greatest: int, what: str) -> None:
    def outside(rows: Tensor) -> Tensor:
        return ((rows < least) | (rows > greatest)).flatten(1).any(dim=1)

    first = _first(outside, values.unsqueeze(1) if values.ndim == 1 else values)
    if first is not None:
        raise BadData(f"row {first} of {name} has a {what} that is not {least} to {greatest}.")


def _check_finite(name: str, values: Tensor) -> None:
    first = _first(lambda rows: rows.isfinite().logical_not().flatten(1).any(dim=1), values)
    if first is not None:
        raise BadData(
            f"row {first} of {name} has a value that is missing or infinite; fill it or leave it out."
        )
    first = _first(lambda rows: (rows.abs() > _LARGEST).flatten(1).any(dim=1), values)
    if first is not None:
        raise BadData(
            f"row {first} of {name} has a value beyond {_LARGEST:.0e}, whose square overflows; give it in a "
            "larger unit."
        )


def _first(wrong: Callable[[Tensor], Tensor], values: Tensor) -> int | None:
    """The first row that is wrong, looked for in blocks."""
    start = 0
    for block in _blocks(values):
        found = wrong(block).nonzero()
        if len(found):
            return start + int(found[0])
        start += len(block)
    return None


def _blocks(values: Tensor) -> Sequence[Tensor]:
    """Rows that are looked at together."""
    rows = max(1, _BLOCK // max(1, values[0].numel()))
    return tuple(values[start : start + rows] for start in range(0, len(values), rows))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _manifest(path: Path) -> DatasetManifest:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(MANIFEST)
    except (OSError, SafetensorError) as error:
        raise BadData(f"it is no safetensors file ({error}).") from error
    if text is None:
        raise BadData(f"its metadata has no {MANIFEST}; make it by the SDK or the command line.")
    try:
        return DatasetManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadData(f"its manifest is wrong: {where}: {first['msg']}.") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise BadData(f"it is no safetensors file ({error}).") from error
