"""From a spec to an evaluation and a model in MLflow, over a real port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tests.e2e.servers import (
    MIRROR_PATIENCE,
    Server,
    SlowedServer,
    after_epoch,
    check_journal,
    eventually,
    long,
    spec,
    states,
)

import dropnorm as dn
from dropnorm.results import State
from dropnorm_service.tracking import TrackingConfig
from dropnorm_service.training import DatasetCache

pytestmark = pytest.mark.timeout(600)

WITHOUT_DROPNORM = """
import json, sys
sys.modules["dropnorm"] = sys.modules["dropnorm_service"] = None
import mlflow, numpy, torch
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(f"runs:/{sys.argv[2]}/model")
test = numpy.load(sys.argv[3])
with torch.no_grad():
    classes = model(torch.from_numpy(test["x"])).argmax(1).numpy()
print(json.dumps(float((classes == test["y"]).mean())))
"""

GENERATED = """
import sys
import mlflow, torch
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(f"runs:/{sys.argv[2]}/model")
print(*model(torch.randn(3, 8)).shape)
"""


def mlflow_client(server: Server) -> MlflowClient:
    return MlflowClient(TrackingConfig.resolve(server.data_dir).tracking_uri)


def run_of(job: dn.JobHandle, server: Server, status: str) -> Run:
    """The job's run once MLflow says that it has ended, with its model where there is one."""
    run_id = eventually(lambda: job.refresh().mlflow_run_id, f"a run of {job.name}")
    client = mlflow_client(server)  # not sooner: two that make one MLflow database break it

    def ended() -> Run | None:
        run = client.get_run(run_id)
        done = run.data.tags.get("dropnorm.model") != "pending" or status != "FINISHED"
        return run if run.info.status == status and done else None

    return eventually(ended, f"{status} in MLflow", within=MIRROR_PATIENCE)


@pytest.mark.slow
def test_a_training_from_its_spec_to_its_model_in_mlflow(
    client: dn.Client, tracked: Server, tmp_path: Path
):
    asked = spec(epochs=5)
    job = client.train(asked, name="first", experiment="whole path", labels={"team": "vision"})
    events = list(job.watch())
    evaluation = job.result()

    check_journal(events)
    assert states(events) == [State.QUEUED, State.RUNNING, State.SUCCEEDED]
    assert [each.epoch for each in evaluation.history] == [1, 2, 3, 4, 5]
    assert evaluation.test.samples == evaluation.dataset.test_samples
    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy > 0.7  # chance is 0.1
    assert client.job(job.id).evaluation == evaluation

    run = run_of(job, tracked, "FINISHED")
    assert run.info.run_name == "first"
    assert run.data.tags["dropnorm.model"] == "ready"
    assert run.data.params["regularization.dropout.rate"] == "0.2"
    assert run.data.params["data.dataset"] == "digits"
    curve = mlflow_client(tracked).get_metric_history(run.info.run_id, "validation_loss")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5]
    assert [point.value for point in curve] == [
        epoch.validation_loss for epoch in evaluation.history
    ]
    assert run.data.metrics["test_accuracy"] == evaluation.test.accuracy
    assert accuracy_without_dropnorm(asked, run, tracked, tmp_path) == pytest.approx(
        evaluation.test.accuracy
    )


@pytest.mark.slow
def test_a_generator_leaves_its_images_and_a_model_that_makes_them(
    client: dn.Client, tracked: Server
):
    asked = spec(epochs=3).model_copy(update={"architecture": dn.GAN(latent=8, width=8)})
    job = client.train(asked)
    evaluation = job.result()
    run = run_of(job, tracked, "FINISHED")

    assert evaluation.task == "generation"
    assert run.data.tags["dropnorm.model"] == "ready"
    assert run.data.metrics["test_frechet_distance"] == evaluation.test.frechet_distance
    pictures = mlflow_client(tracked).list_artifacts(run.info.run_id, "plots")
    assert "plots/samples.png" in [each.path for each in pictures]
    uri = TrackingConfig.resolve(tracked.data_dir).tracking_uri
    program = [sys.executable, "-c", GENERATED, uri, run.info.run_id]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.stdout.split() == ["3", "1", "8", "8"], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_worker_compiles_its_model(client: dn.Client):
    compute = dn.Compute(device="cpu", compile=True)
    job = client.train(spec(epochs=20).model_copy(update={"compute": compute}))

    accuracy = job.result().test.accuracy
    assert accuracy is not None
    assert accuracy > 0.7  # chance is 0.1


def accuracy_without_dropnorm(
    asked: dn.TrainingSpec, run: Run, server: Server, folder: Path
) -> float:
    """The test accuracy of the run's model, opened by a program that has only torch and MLflow."""
    import numpy as np

    from dropnorm_service.training.data.splits import split_indices

    dataset = DatasetCache(server.data_dir / "datasets").load("digits")
    x, y = dataset.tensors["x"].numpy(), dataset.tensors["y"].numpy()
    test = split_indices(asked, dataset.info, y).test
    assert test is not None
    np.savez(folder / "test.npz", x=x[test], y=y[test])
    uri = TrackingConfig.resolve(server.data_dir).tracking_uri
    program = [sys.executable, "-c", WITHOUT_DROPNORM, uri, run.info.run_id, folder / "test.npz"]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout))


def test_a_regression(client: dn.Client):
    evaluation = client.train(spec("diabetes", epochs=20, optimizer=dn.Adam(lr=0.01))).result()

    assert evaluation.task == "regression"
    assert evaluation.test.accuracy is None
    assert evaluation.test.r2 is not None
    assert evaluation.test.r2 > 0.1  # the mean alone has 0


def test_a_convolutional_network(client: dn.Client):
    layers = (
        dn.layers.Conv(channels=8),
        dn.layers.BatchNorm(),
        dn.layers.Activation(),
        dn.layers.Pool(),
    )
    asked = spec().model_copy(
        update={
            "architecture": dn.Sequential(layers=layers),
            "regularization": dn.Regularization(),
        }
    )
    evaluation = client.train(asked).result()

    assert evaluation.test.accuracy is not None
    assert evaluation.test.accuracy > 0.7
    assert client.plan(asked).parameters > 0


def test_values_that_the_service_finds(client: dn.Client, tracked: Server):
    automatic = {
        "auto_learning_rate": dn.AutoLearningRate(steps=30),
        "auto_batch_size": dn.AutoBatchSize(max_size=200),
    }
    asked = spec(epochs=3)
    optimization = asked.optimization.model_copy(update=automatic)
    asked = asked.model_copy(update={"optimization": optimization})
    (batches,) = client.plan(asked).batches
    job = client.train(asked)
    evaluation = job.result()

    assert evaluation.auto is not None
    assert evaluation.auto.learning_rate is not None
    assert evaluation.auto.batch_size == batches.batch_size
    last = evaluation.history[-1]
    assert (last.learning_rate, last.batch_size) == (
        evaluation.auto.learning_rate,
        batches.batch_size,
    )
    run = run_of(job, tracked, "FINISHED")
    assert run.data.metrics["auto/learning_rate"] == evaluation.auto.learning_rate
    assert run.data.metrics["auto/batch_size"] == batches.batch_size
    assert run.data.params["optimization.auto_learning_rate.steps"] == "30"


def test_a_job_that_fails_says_why_here_and_in_mlflow(client: dn.Client, tracked: Server):
    job = client.train(spec("diabetes", optimizer=dn.SGD(lr=1000.0), epochs=30))
    with pytest.raises(dn.JobFailed, match="diverged") as failure:
        job.result()

    assert failure.value.error is not None
    assert failure.value.error.reason == "DIVERGED"
    assert job.refresh().state is State.FAILED
    assert job.error == failure.value.error
    run_of(job, tracked, "FAILED")


def test_a_job_that_is_cancelled_is_killed_in_mlflow(client: dn.Client, tracked: Server):
    job = client.train(long())
    after_epoch(job)
    assert job.cancel().state in (State.CANCELLING, State.CANCELLED)
    with pytest.raises(dn.JobCancelled):
        job.result()
    assert job.cancel().state is State.CANCELLED, "a repeat is no error"
    with pytest.raises(dn.WrongState):
        job.resume()

    check_journal(list(job.watch()))
    run_of(job, tracked, "KILLED")


def test_a_paused_job_goes_on_where_it_was(make_slowed: Callable[..., SlowedServer]):
    server = make_slowed()
    with server.start().client() as client:
        job = client.train(spec(epochs=50))
        after_epoch(job)
        job.pause()
        eventually(lambda: job.refresh().state is State.PAUSED, "the pause")
        assert job.progress is not None
        assert job.progress.epoch < 50
        server.speed_up()
        evaluation = job.resume().result()

        events = list(job.watch())
        check_journal(events)
        assert job.refresh().snapshot.attempt == 2
        assert [each.epoch for each in evaluation.history] == list(range(1, 51))
        told = [event for event in events if isinstance(event.payload, dn.EpochCompleted)]
        assert len(told) == 50, "no epoch was done twice"


def test_a_plan_and_a_check_create_nothing(client: dn.Client):
    before = {job.id for job in client.jobs()}
    plan = client.plan(spec())
    job = client.validate(spec(), name="never", job_id="never")

    assert plan.parameters == 64 * 32 + 32 + 32 * 10 + 10
    assert plan.total_steps == 3 * plan.steps_per_epoch
    assert plan.dataset.digest == client.plan(spec()).dataset.digest
    assert (job.id, job.display_name, job.spec.seed) == ("never", "never", 7)
    with pytest.raises(dn.NotFound):
        client.job("never")
    assert {job.id for job in client.jobs()} == before


def test_a_repeated_request_is_one_job(client: dn.Client):
    first = client.train(spec("iris"), request_id="request-1")
    again = client.train(spec("iris"), request_id="request-1")

    assert again.name == first.name
    with pytest.raises(dn.InvalidRequest, match="request_id") as reused:
        client.train(spec("wine"), request_id="request-1")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(dn.AlreadyExists):
        client.train(spec("iris"), job_id=first.id)
    first.result()


def test_jobs_are_listed_in_pages_and_deleted(client: dn.Client):
    jobs = [
        client.train(spec("iris", epochs=1), labels={"batch": "listed"}, priority=number)
        for number in range(5)
    ]
    for job in jobs:
        job.result()
    listed = client.jobs(filter="labels.batch = listed", order_by="priority", page_size=2)
    assert [job.id for job in listed] == [job.id for job in jobs]
    chosen = client.jobs(filter='labels.batch = "listed" AND state = SUCCEEDED AND priority > 2')
    assert {job.id for job in chosen} == {jobs[3].id, jobs[4].id}
    with pytest.raises(dn.InvalidRequest, match="colour"):
        list(client.jobs(filter="colour = red"))

    jobs[0].delete()
    with pytest.raises(dn.NotFound):
        jobs[0].refresh()
    left = client.jobs(filter="labels.batch = listed", order_by="priority", page_size=2)
    assert [job.id for job in left] == [job.id for job in jobs[1:]]


def test_a_running_job_is_deleted_by_force_alone(client: dn.Client):
    job = client.train(long())
    after_epoch(job)
    with pytest.raises(dn.WrongState):
        job.delete()
    job.delete(force=True)

    with pytest.raises(dn.NotFound):
        job.refresh()


def test_everything_wrong_is_named_at_once(client: dn.Client):
    wrong = spec().model_copy(
        update={
            "architecture": dn.MLP.model_construct(hidden=(0, 16), activation="relu"),
            "optimization": dn.Optimization.model_construct(epochs=-1),
        }
    )
    with pytest.raises(dn.InvalidRequest) as error:
        client.train(wrong)
    assert {problem.field for problem in error.value.problems} == {
        "training_job.spec.architecture.mlp.hidden[0]",
        "training_job.spec.optimization.epochs",
    }

    absurd = spec().model_copy(update={"data": dn.Data(dataset="no-such-data")})
    with pytest.raises(dn.InvalidRequest, match="no-such-data") as unknown:
        client.train(absurd)
    assert [problem.field for problem in unknown.value.problems] == [
        "training_job.spec.data.dataset"
    ]
