import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tests.service.workers.conftest import gone

from dropnorm.spec import (
    MLP,
    BatchNorm,
    Data,
    ExportSettings,
    Optimization,
    Regularization,
    TrainingSpec,
)
from dropnorm_service.jobs.errors import ExportDeviates, ExporterUnavailable, ModelUnusable
from dropnorm_service.training import DatasetCache, fit, load_data, save_model
from dropnorm_service.unbroken import Undertaking
from dropnorm_service.workers import DataSettings, ForkServer, ProcessExporter
from dropnorm_service.workers.asking import AskedProcess

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOB = "trainingJobs/made"
NAME = f"{JOB}/exports/safetensors-folded"
FOLDED = ExportSettings(format="safetensors", fold_batch_norm=True)


@pytest.fixture(scope="module")
def model(data: DataSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = TrainingSpec(
        architecture=MLP(hidden=(4,)),
        regularization=Regularization(batch_norm=BatchNorm()),
        data=Data(dataset="iris"),
        optimization=Optimization(epochs=1),
    )
    loaded = load_data(spec, DatasetCache(data.cache), torch.device("cpu"))
    folder = tmp_path_factory.mktemp("job") / "model"
    save_model(folder, spec, loaded, fit(spec, loaded).model)
    return folder


def children(forks: ForkServer) -> list[int]:
    return [child.pid for child in psutil.Process(forks.pid).children()]


async def no_more_than(before: set[int], forks: ForkServer) -> None:
    """Wait until it has reaped all others."""
    for pid in set(children(forks)) - before:
        assert await gone(pid)


async def test_a_model_is_exported_by_a_process_that_then_ends(
    forks: ForkServer, data: DataSettings, model: Path, tmp_path: Path
) -> None:
    before = set(children(forks))
    exporter = ProcessExporter(forks, data=data)
    export = await exporter.export(JOB, model, FOLDED, name=NAME, folder=tmp_path / "out")

    assert (export.name, export.folded_norms) == (NAME, 1)
    assert export.proof.samples == 30
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "export.json",
        "model.safetensors",
    }
    await no_more_than(before, forks)


async def test_what_cannot_be_exported_is_said(
    forks: ForkServer, data: DataSettings, model: Path, tmp_path: Path
) -> None:
    exporter = ProcessExporter(forks, data=data)
    exact = FOLDED.model_copy(update={"tolerance": 1e-15})
    with pytest.raises(ExportDeviates, match="and the tolerance allows"):
        await exporter.export(JOB, model, exact, name=NAME, folder=tmp_path / "out")
    with pytest.raises(ModelUnusable, match="its files are gone"):
        await exporter.export(JOB, tmp_path, FOLDED, name=NAME, folder=tmp_path / "out")
    shutil.copytree(model, tmp_path / "lost")
    facts = (model / "model.json").read_text().replace('"dataset": "iris"', '"dataset": "mine"')
    (tmp_path / "lost" / "model.json").write_text(facts)
    with pytest.raises(ModelUnusable, match="its test split, which the proof needs"):
        await exporter.export(JOB, tmp_path / "lost", FOLDED, name=NAME, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_one_that_does_not_end_is_given_up_with_its_process(
    forks: ForkServer, data: DataSettings, tmp_path: Path
) -> None:
    before = set(children(forks))
    exporter = ProcessExporter(forks, data=data, timeout=1.5)
    endless = tmp_path / "endless"
    endless.mkdir()
    os.mkfifo(endless / "model.json")  # whoever reads it waits for a writer
    half = tmp_path / ".out" / "model.safetensors"
    half.parent.mkdir()
    half.write_bytes(b"half")
    with pytest.raises(ExporterUnavailable, match="Nothing was exported within"):
        await exporter.export(JOB, endless, FOLDED, name=NAME, folder=tmp_path / "out")
    await no_more_than(before, forks)
    assert not half.parent.exists()


@pytest.mark.parametrize("written", [False, True])
async def test_one_that_is_given_up_says_whether_it_was_written(
    forks: ForkServer,
    data: DataSettings,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: bool,
) -> None:
    reached = asyncio.Event()
    ask = AskedProcess.ask

    async def silent(*arguments: Any) -> None:
        if written:
            await ask(*arguments)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(AskedProcess, "ask", silent)
    exporter = ProcessExporter(forks, data=data)
    folder = tmp_path / "out"
    export = Undertaking(exporter.export(JOB, model, FOLDED, name=NAME, folder=folder))
    caller = asyncio.create_task(export.through())
    await reached.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert export.task.cancelled()
    assert export.may_have_changed == (folder / "export.json").exists() == written
