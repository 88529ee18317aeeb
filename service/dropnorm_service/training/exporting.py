"""A trained model in another form, with the proof that it is still the same."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from dropnorm.results import ExportProof, ModelExport
from dropnorm.spec import GAN, ExportSettings
from dropnorm_service.durable import draft_of, is_full, sha256_of
from dropnorm_service.training.batching import derived_seed
from dropnorm_service.training.data import Dataset, raw_splits
from dropnorm_service.training.errors import BadData
from dropnorm_service.training.export_formats import FORMS, CannotExport, Subject
from dropnorm_service.training.folding import Folding, count_norms, fold
from dropnorm_service.training.proof import prove
from dropnorm_service.training.saved import SavedModel

FACTS = "export.json"
_NOISE_SAMPLES = 256


class Deviates(CannotExport):
    """The exported model does not predict what the original does."""


def export_model(
    saved: SavedModel, dataset: Dataset, settings: ExportSettings, *, name: str, folder: Path
) -> ModelExport:
    """Write a model, read it back, and compare it with the original on the test split.

    Args:
        saved: the model.
        dataset: the raw data that it was trained on.
        settings: in which form.
        name: resource name of the export.
        folder: for the file and `export.json`; what was there is replaced once all is well.

    Raises:
        BadData: the data is not what the model was trained on.
        CannotExport: this model does not go into that form.
        Deviates: it does, but not exactly enough.
        OSError: it cannot be written; with ENOSPC, the disk is full.
    """
    if dataset.digest != saved.dataset.digest:
        raise BadData(
            f"the data set {saved.dataset.name} that it was trained on is no longer there, and the one that has its "
            "name now proves nothing.",
            dataset=saved.dataset.name,
        )
    x, classes = _inputs(saved, dataset)
    predictor = copy.deepcopy(saved.predictor)
    folding = _fold(predictor.network, settings)
    subject = Subject(saved, predictor, settings.fold_batch_norm, x[[0, -1]])
    form = FORMS[settings.format]
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir(parents=True)
    try:
        path = draft / form.file_name
        _write(subject, settings, path)
        proof = prove(saved.predictor, form.open(path), x, classes)
        _check(proof, settings)
        export = ModelExport(
            name=name,
            settings=settings,
            file_name=form.file_name,
            size_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            folded_norms=folding.folded_norms,
            kept_norms=folding.kept_norms,
            removed_dropouts=folding.removed_dropouts,
            proof=proof,
            create_time=datetime.now(UTC),
        )
        (draft / FACTS).write_text(export.model_dump_json(indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return export


def _fold(network: torch.nn.Module, settings: ExportSettings) -> Folding:
    if settings.fold_batch_norm:
        return fold(network)
    return Folding(folded_norms=0, kept_norms=count_norms(network), removed_dropouts=0)


def _write(subject: Subject, settings: ExportSettings, path: Path) -> None:
    try:
        FORMS[settings.format].write(subject, path)
    except CannotExport:
        raise
    except Exception as error:  # whatever torch has against the model, or the disk
        if is_full(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        kind = subject.saved.spec.architecture.kind
        why = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise CannotExport(f"torch cannot write this {kind} as {settings.format}: {why}") from error


def _check(proof: ExportProof, settings: ExportSettings) -> None:
    allowed = settings.tolerance * proof.largest_output
    if proof.largest_deviation > allowed:
        raise Deviates(
            f"the exported model is off by {proof.largest_deviation:.2e} on the test split, and the tolerance "
            f"allows {allowed:.2e}; raise settings.tolerance if that will do, or choose another form"
        )


def _inputs(saved: SavedModel, dataset: Dataset) -> tuple[Tensor, Tensor | None]:
    """Raw inputs to compare on, and their classes."""
    if isinstance(saved.spec.architecture, GAN):
        generator = torch.Generator().manual_seed(derived_seed(saved.spec.seed, "proof"))
        return torch.randn(_NOISE_SAMPLES, *saved.input_shape, generator=generator), None
    test = raw_splits(saved.spec, dataset)[2]
    x = test.x.clone()  # the data may be a mapped file
    classes = test.y.clone() if saved.dataset.task == "classification" else None
    return x if saved.dataset.sequences else x.float(), classes
