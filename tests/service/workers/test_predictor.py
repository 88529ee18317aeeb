import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from dropnorm.spec import (
    MLP,
    Data,
    DropoutSampling,
    InvalidSpecError,
    Optimization,
    Tensor,
    TrainingSpec,
)
from dropnorm_service.jobs.errors import ModelUnusable, PredictorUnavailable
from dropnorm_service.training import DatasetCache, fit, load_data, save_model
from dropnorm_service.workers import DataSettings, ForkServer, ProcessPredictor

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOB = "trainingJobs/made"
INPUTS = Tensor(shape=(3, 4), dtype="float32", data=torch.rand(3, 4).numpy().tobytes())


@pytest.fixture(scope="module")
def folder(data: DataSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = TrainingSpec(
        architecture=MLP(hidden=(4,)),
        data=Data(dataset="iris"),
        optimization=Optimization(epochs=1),
    )
    loaded = load_data(spec, DatasetCache(data.cache), torch.device("cpu"))
    folder = tmp_path_factory.mktemp("job") / "model"
    save_model(folder, spec, loaded, fit(spec, loaded).model)
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def predictor(forks: ForkServer) -> AsyncIterator[ProcessPredictor]:
    async with ProcessPredictor(forks) as predictor:
        yield predictor


def pid(predictor: ProcessPredictor) -> int:
    assert predictor._process._process is not None
    return predictor._process._process.pid


async def test_a_model_predicts_in_a_process_of_its_own(
    predictor: ProcessPredictor, folder: Path
) -> None:
    said = await predictor.predict(JOB, folder, INPUTS, None)
    assert said.training_job == JOB
    assert said.outputs.shape == (3, 3)
    assert said.class_names == ("setosa", "versicolor", "virginica")
    assert await predictor.predict(JOB, folder, INPUTS, None) == said


async def test_wrong_inputs_are_named(predictor: ProcessPredictor, folder: Path) -> None:
    wrong = INPUTS.model_copy(update={"shape": (4, 3)})
    with pytest.raises(InvalidSpecError) as caught:
        await predictor.predict(JOB, folder, wrong, DropoutSampling())
    assert [problem.field for problem in caught.value.problems] == ["inputs.shape", "sampling"]


async def test_another_model_in_the_same_place_is_noticed(
    predictor: ProcessPredictor, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnusable, match="its files are gone"):
        await predictor.predict(JOB, tmp_path / "model", INPUTS, None)
    (tmp_path / "model").symlink_to(folder)
    await predictor.predict(JOB, tmp_path / "model", INPUTS, None)
    (tmp_path / "model").unlink()
    with pytest.raises(ModelUnusable, match="its files are gone"):
        await predictor.predict(JOB, tmp_path / "model", INPUTS, None)


async def test_a_predictor_that_was_killed_is_replaced(
    predictor: ProcessPredictor, folder: Path
) -> None:
    said = await predictor.predict(JOB, folder, INPUTS, None)
    before = pid(predictor)
    os.kill(before, signal.SIGKILL)
    assert await predictor.predict(JOB, folder, INPUTS, None) == said
    assert pid(predictor) != before


async def test_one_that_does_not_answer_is_given_up_and_replaced(
    forks: ForkServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ProcessPredictor(forks) as predictor:
        await predictor.predict(JOB, folder, INPUTS, None)
        os.kill(pid(predictor), signal.SIGSTOP)
        with monkeypatch.context() as impatient:
            impatient.setattr(predictor, "_timeout", 0.5)
            with pytest.raises(PredictorUnavailable, match="No prediction was made"):
                await predictor.predict(JOB, folder, INPUTS, None)
        await predictor.predict(JOB, folder, INPUTS, None)
