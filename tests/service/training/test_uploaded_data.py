"""What was made of a user's files is trained on, with every task, and bit for bit after a stop."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.service.datasets.folders import Folder
from tests.service.training.made import split_of
from tests.service.training.stopping import Asked, Place, run
from tests.service.training.test_fit import numbers

from dropnorm import spec as dn
from dropnorm.datasets import Bundle, write_bundle
from dropnorm.datasets.files import from_files
from dropnorm_service.datasets.intake import Header
from dropnorm_service.training import Checkpoints, DatasetCache, Interrupted, fit, plan

RANDOM = np.random.default_rng(7)
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "feed_forward": 16}


def table(folder: Path) -> Bundle:
    rows = [f"{n % 7},{'' if n % 11 == 0 else n % 5},{'ab'[n % 2]},{n % 3 / 2}" for n in range(60)]
    (folder / "t.csv").write_text("\n".join(["one,two,side,y", *rows]))
    return from_files([folder / "t.csv"])


def images(folder: Path) -> Bundle:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(15):
            values = RANDOM.integers(0, 255, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.png")
    return from_files([folder])


def text(folder: Path) -> Bundle:
    (folder / "t.txt").write_text("to be or not to be that is the question " * 30)
    return from_files([folder / "t.txt"], tokens="words", length=6)


def pairs(folder: Path) -> Bundle:
    words = ["".join(RANDOM.choice(list("abc"), 4)) for _ in range(40)]
    (folder / "s.txt").write_text("\n".join(words))
    (folder / "t.txt").write_text("\n".join(each[::-1] for each in words))
    return from_files([folder / "s.txt", folder / "t.txt"])


CASES: dict[str, tuple[Callable[[Path], Bundle], dn.Architecture, str]] = {
    "table": (table, dn.MLP(hidden=(6,)), "regression"),
    "images": (images, dn.MLP(hidden=(6,)), "classification"),
    "text": (text, dn.BERT(**SMALL, layers=1), "masked_language_modelling"),
    "pairs": (
        pairs,
        dn.Transformer(**SMALL, encoder_layers=1, decoder_layers=1),
        "sequence_to_sequence",
    ),
}


async def uploaded(bundle: Bundle, tmp_path: Path) -> Path:
    """The folder of a service that has the bundle as `datasets/mine`."""
    sha256 = write_bundle(bundle, tmp_path / "bundle")
    data = (tmp_path / "bundle").read_bytes()
    assert hashlib.sha256(data).hexdigest() == sha256

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    folder = Folder(tmp_path / "uploads")
    await folder.service.upload(
        Header(dataset_id="mine", size_bytes=len(data), sha256=sha256), chunks()
    )
    return folder.folder


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_training_on_uploaded_data_goes_on_bit_for_bit(case, tmp_path):
    make, architecture, task = case
    (tmp_path / "raw").mkdir()
    uploads = await uploaded(make(tmp_path / "raw"), tmp_path)
    spec = dn.TrainingSpec(
        data=dn.Data(dataset="datasets/mine"),
        architecture=architecture,
        optimization=dn.Optimization(epochs=2, batch_size=8),
        regularization=dn.Regularization(dropout=dn.Dropout(rate=0.3)),
    )

    def cache() -> DatasetCache:
        return DatasetCache(tmp_path / "cache", uploads=uploads)

    planned = plan(spec, cache().summarize(spec))
    assert planned.dataset.task == task
    whole = fit(spec, split_of(spec, cache().load("mine")))
    assert whole.evaluation.dataset.digest == planned.dataset.digest
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    data = split_of(spec, cache().load("mine"))
    with pytest.raises(Interrupted):
        run(spec, data, Asked(Place("training", 0, 3)), checkpoint=checkpoints)
    again = fit(spec, split_of(spec, cache().load("mine")), checkpoint=checkpoints)
    assert numbers(again) == numbers(whole)
