"""What the events of a job make of its MLflow run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import mlflow.data
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from tests.client import samples
from tests.service.tracking.story import DIGITS, Story, a_spec, epoch, moved

from dropnorm.results import (
    EpochCompleted,
    JobError,
    NormShift,
    Recalibration,
    State,
    Tracked,
    TrainingJob,
    Warned,
)
from dropnorm.spec import Compute
from dropnorm_service.store import SqlJobStore
from dropnorm_service.tracking.messages import Batch, Done, JobContext, Rewriting, RunMade
from dropnorm_service.tracking.mirror.artifacts import ArtifactRecorder
from dropnorm_service.tracking.mirror.metrics import epoch_metrics, final_metrics, milliseconds
from dropnorm_service.tracking.mirror.runs import RunRecorder


class Mirror:
    """Feeds a recorder from a story, as a consumer does."""

    def __init__(self, story: Story, recorder: RunRecorder, client: MlflowClient) -> None:
        self.story, self.recorder, self.client = story, recorder, client
        self.position = 0
        self.rewrite: Callable[[TrainingJob], TrainingJob] = lambda job: job

    async def follow(self) -> None:
        entries = await self.story.store.feed(after=self.position, limit=1000)
        batch = await self.batch([event for _, event in entries if event.attempt])
        assert self.recorder.record(batch) == Done()
        self.position = entries[-1][0]

    async def batch(self, events, rewriting: Rewriting | None = None) -> Batch:
        jobs = {}
        for name in {event.training_job for event in events}:
            job = self.rewrite(await self.story.job(name.rpartition("/")[2]))
            jobs[name] = JobContext(job=job, folder=self.story.folder, rewriting=rewriting)
        return Batch(events=tuple(events), jobs=jobs)

    def runs(self, experiment: str = "digits") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        return self.client.search_runs([found.experiment_id]) if found else []

    def points(self, run: Run, metric: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run.info.run_id, metric)
        return [(point.step, point.value) for point in history]


@pytest.fixture
def mirror(story: Story, recorder: RunRecorder, client: MlflowClient) -> Mirror:
    return Mirror(story, recorder, client)


async def test_a_whole_job_is_a_finished_run(story: Story, mirror: Mirror, made: list[RunMade]):
    spec = a_spec(dropout=0.2, epochs=4)
    job = await story.whole("first", spec, display_name="With dropout", labels={"team": "blue"})
    await mirror.follow()

    [run] = mirror.runs()
    assert job.start_time is not None
    assert job.end_time is not None
    assert run.info.run_name == "With dropout"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == milliseconds(job.start_time)
    assert run.info.end_time == milliseconds(job.end_time)
    assert run.data.params["regularization.dropout.rate"] == "0.2"
    assert (
        run.data.tags.items()
        >= {
            "dropnorm.job": "first",
            "dropnorm.spec_digest": spec.digest(),
            "dropnorm.dataset_digest": DIGITS.digest,
            "dropnorm.state": "succeeded",
            "dropnorm.attempt": "1",
            "dropnorm.device": "Intel(R) Xeon(R) Processor",
            "dropnorm.model": "pending",
            "team": "blue",
        }.items()
    )
    assert made == [
        RunMade(job_id="first", experiment_id=run.info.experiment_id, run_id=run.info.run_id)
    ]


async def test_each_epoch_is_a_step_at_its_own_time(story: Story, mirror: Mirror):
    job = await story.whole("curve")
    await mirror.follow()
    [run] = mirror.runs()

    assert job.evaluation is not None
    history = job.evaluation.history
    for name in ("train_loss", "train_eval_accuracy", "validation_loss", "samples_per_second"):
        assert mirror.points(run, name) == [(row.epoch, getattr(row, name)) for row in history]
    assert mirror.points(run, "optimizer_steps") == [(1, 10), (2, 20), (3, 30)]
    assert mirror.points(run, "system/process_memory_usage_megabytes")[0] == (1, 310.000001)

    events = await story.store.events("curve", after=0, limit=100)
    times = [milliseconds(e.time) for e in events if isinstance(e.payload, EpochCompleted)]
    points = mirror.client.get_metric_history(run.info.run_id, "validation_loss")
    assert [point.timestamp for point in points] == times
    assert len(set(times)) == 3


async def test_the_evaluation_can_be_searched_for(story: Story, mirror: Mirror):
    job = await story.whole("searched")
    await mirror.follow()
    [run] = mirror.runs()
    evaluation = job.evaluation
    assert evaluation is not None
    assert (
        run.data.metrics.items()
        >= {
            "best_epoch": evaluation.best_epoch,
            "generalization_gap": evaluation.generalization_gap,
            "test_accuracy": evaluation.test.accuracy,
            "test_ece": 0.012,
            "best/validation_loss": evaluation.validation.loss,
            "best/train_accuracy": 1.0,
            "auto/learning_rate": 0.02,
            "cost/parameters": 17_226,
            "cost/forward_flops": 34_048,
            "cost/peak_memory_bytes": 312_000_000,
        }.items()
    )
    found = mirror.client.search_runs(
        [run.info.experiment_id],
        "metrics.test_accuracy > 0.9 AND params.`regularization.dropout` = 'none'",
    )
    assert [each.info.run_id for each in found] == [run.info.run_id]


def test_a_recalibration_and_the_dropout_in_force_are_metrics() -> None:
    shifts = [
        NormShift(
            layer=f"hidden.{number}.norm",
            mean_shift=0.1,
            largest_mean_shift=0.2 + number,
            variance_shift=0.01,
            largest_variance_shift=0.05 - number / 100,
        )
        for number in range(2)
    ]
    before = samples.metrics(0.8)
    evaluation = samples.evaluation().model_copy(
        update={"recalibration": Recalibration(layers=tuple(shifts), validation_before=before)}
    )
    logged = {metric.key: metric.value for metric in final_metrics(evaluation, samples.START)}
    assert logged["recalibration/largest_mean_shift"] == 1.2
    assert logged["recalibration/largest_variance_shift"] == 0.05
    for shift in shifts:
        assert logged[f"recalibration/{shift.layer}/mean_shift"] == shift.mean_shift
    assert logged["recalibration/validation_accuracy_before"] == 0.8
    assert logged["best/validation_accuracy"] == evaluation.validation.accuracy
    first = EpochCompleted(
        metrics=samples.epoch(1).model_copy(update={"dropout_rates": {"rate": 0.25}})
    )
    dropout = [
        each for each in epoch_metrics(first, samples.START) if each.key == "dropout_rates/rate"
    ]
    assert [(each.step, each.value) for each in dropout] == [(1, 0.25)]


def test_what_was_measured_is_in_metrics_by_layer_corruption_and_strength() -> None:
    found = samples.measured()
    logged = {metric.key: metric.value for metric in final_metrics(found, samples.START)}
    assert logged["mc_dropout/mutual_information"] == 0.2
    assert logged["temperature_scaling/temperature"] == 1.5
    assert logged["temperature_scaling/test_after/nll"] == 0.5
    assert logged["variance_shift/hidden.0.norm/ratio"] == 0.5
    assert logged["robustness/contrast/2/adapted_accuracy"] == 0.8
    epoch = EpochCompleted(metrics=found.history[-1])
    layers = {each.key: (each.step, each.value) for each in epoch_metrics(epoch, samples.START)}
    assert layers["layers/hidden.0.linear/gradient_norm"] == (3, 0.5)
    assert layers["layers/hidden.0.activation/dead_share"] == (3, 0.25)
    assert "layers/output.linear/dead_share" not in layers


async def test_the_data_set_is_an_input(story: Story, mirror: Mirror):
    await story.submit("data")
    await story.start("data")
    await mirror.follow()
    [run] = mirror.runs()
    assert run.inputs is not None
    [used] = run.inputs.dataset_inputs
    assert used.dataset.name == "digits"
    assert used.dataset.digest == ("5d" * 32)[:36]
    assert json.loads(used.dataset.profile or "")["num_rows"] == 1797
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}
    assert mlflow.data.get_source(used).to_dict()["tags"]["mlflow.source.name"] == "dropnorm"


async def test_a_job_that_never_starts_leaves_no_run(story: Story, mirror: Mirror):
    await story.submit("waits")
    await story.tell("waits", moved(State.CANCELLED), attempt=0)
    await story.whole("runs")
    await mirror.follow()
    assert [run.info.run_name for run in mirror.runs()] == ["runs"]


async def test_a_failure_closes_the_run_and_says_why(story: Story, mirror: Mirror):
    error = JobError(code=10, reason="DIVERGED", message="The loss is NaN from epoch 2 on.")
    await story.submit("diverges")
    await story.start("diverges")
    first = epoch(a_spec(), 1)
    nan = first.metrics.model_copy(update={"train_loss": math.nan})
    await story.tell("diverges", first.model_copy(update={"metrics": nan}))
    await story.tell("diverges", moved(State.FAILED, error))
    await mirror.follow()
    [run] = mirror.runs()
    assert run.info.status == "FAILED"
    assert run.info.end_time is not None
    assert run.data.tags["dropnorm.device"] == "cpu"
    assert run.data.tags["dropnorm.error"] == "DIVERGED: The loss is NaN from epoch 2 on."
    assert math.isnan(run.data.metrics["train_loss"])
    assert "dropnorm.model" not in run.data.tags


async def test_a_cancelled_job_is_a_killed_run(story: Story, mirror: Mirror):
    await story.submit("stops")
    await story.start("stops")
    await story.tell("stops", moved(State.CANCELLING), moved(State.CANCELLED))
    await mirror.follow()
    [run] = mirror.runs()
    assert run.info.status == "KILLED"


async def test_a_paused_job_is_a_scheduled_run_that_goes_on(story: Story, mirror: Mirror):
    await story.submit("pauses")
    await story.start("pauses")
    await story.train("pauses", [1])
    await story.tell("pauses", moved(State.PAUSING), moved(State.PAUSED))
    await mirror.follow()
    [paused] = mirror.runs()
    assert paused.info.status == "SCHEDULED"
    assert paused.info.end_time is None

    await story.tell("pauses", moved(State.QUEUED))
    await story.start("pauses", attempt=2)
    await story.train("pauses", [2, 3], attempt=2)
    await mirror.follow()
    [going_on] = mirror.runs()
    assert going_on.info.run_id == paused.info.run_id
    assert going_on.info.status == "RUNNING"
    assert going_on.data.tags["dropnorm.attempt"] == "2"
    assert [step for step, _ in mirror.points(going_on, "train_loss")] == [1, 2, 3]


@pytest.mark.parametrize("sent_when", [(), ("lost",), ("half way",), ("lost", "half way")])
async def test_epochs_that_a_second_attempt_repeats_stay_single(
    story: Story, mirror: Mirror, sent_when: tuple[str, ...]
):
    """However they come: both attempts at once, as after an outage of MLflow, or what is repeated in two parts."""
    lost = JobError(code=14, reason="WORKER_LOST", message="The worker was killed by signal 9.")
    await story.submit("again")
    await story.start("again")
    await story.train("again", [1, 2, 3])
    await story.tell("again", moved(State.QUEUED, lost))
    if "lost" in sent_when:
        await mirror.follow()
    await story.start("again", attempt=2)
    await story.train("again", [2], attempt=2)
    if "half way" in sent_when:
        await mirror.follow()
    await story.train("again", [3, 4], attempt=2)
    await mirror.follow()
    [run] = mirror.runs()
    assert [step for step, _ in mirror.points(run, "validation_loss")] == [1, 2, 3, 4]
    assert run.data.tags["dropnorm.attempt_1_lost"].startswith("WORKER_LOST: ")
    assert run.info.status == "RUNNING"


@pytest.mark.parametrize("backup", [State.QUEUED, State.RUNNING])
async def test_a_service_store_that_was_set_back_doubles_nothing(
    backup: State, story: Story, mirror: Mirror, tmp_path: Path, made: list[RunMade]
):
    """The job of the backup trains again what MLflow has, in its first attempt or in the next."""
    async with await SqlJobStore.open(f"sqlite:///{tmp_path / 'backup.db'}") as store:
        restored = Story(store, tmp_path / "jobs")
        for each in (story, restored):
            await each.submit("again")
        if backup is State.RUNNING:
            for each in (story, restored):
                await each.start("again")
        if backup is State.QUEUED:
            await story.start("again")
        await story.train("again", [1, 2, 3])
        await story.succeed("again")
        await mirror.follow()
        [before] = mirror.runs()

        attempt = 1 if backup is State.QUEUED else 2
        restored.now = story.now + timedelta(hours=1)
        after = Mirror(restored, RunRecorder(mirror.client, None, made.append), mirror.client)
        if backup is State.RUNNING:
            await restored.tell("again", moved(State.QUEUED))
        await restored.start("again", attempt=attempt)
        await restored.train("again", [1, 2], attempt=attempt)
        await after.follow()
        await restored.train("again", [3], attempt=attempt)
        await restored.succeed("again", attempt=attempt)
        await after.follow()

    [run] = mirror.runs()
    assert run.info.run_id == before.info.run_id
    assert run.info.status == "FINISHED"
    assert [step for step, _ in mirror.points(run, "train_loss")] == [1, 2, 3]
    assert len(mirror.points(run, "optimizer_steps")) == 3
    for name in ("test_accuracy", "best_epoch", "cost/seconds"):
        assert len(mirror.points(run, name)) == 1


async def test_an_epoch_that_only_the_next_attempt_could_tell_is_there_once(
    story: Story, mirror: Mirror, client: MlflowClient, config
):
    """It was trained when the service died, and is told from the checkpoint, without the load of that time."""
    await story.submit("told")
    await story.start("told")
    await story.train("told", [1])
    await mirror.follow()
    await story.tell("told", moved(State.QUEUED))
    await story.start("told", attempt=2)
    late = [epoch(a_spec(), number).model_copy(update={"system": None}) for number in (1, 2)]
    await story.tell("told", *late, attempt=2)
    mirror.recorder = RunRecorder(client, config.artifact_root, lambda _: None)  # a new process
    await mirror.follow()
    await story.tell("told", late[1], attempt=2)
    await story.train("told", [3], attempt=2)
    await mirror.follow()
    [run] = mirror.runs()
    assert [step for step, _ in mirror.points(run, "validation_loss")] == [1, 2, 3]
    system = mirror.points(run, "system/process_cpu_utilization_percentage")
    assert [step for step, _ in system] == [1, 3]
    assert run.data.tags["dropnorm.device"] == "cpu"


async def test_a_second_run_that_came_into_being_late_goes_when_the_job_ends(
    story: Story, mirror: Mirror, client: MlflowClient
):
    """As when a request to make it was given up for lost, and the server came to it after all."""
    await story.submit("late")
    await story.start("late")
    await mirror.follow()
    [run] = mirror.runs()
    client.create_run(
        run.info.experiment_id, start_time=run.info.start_time, tags=dict(run.data.tags)
    )
    assert len(mirror.runs()) == 2
    await story.train("late", [1, 2, 3])
    await story.succeed("late")
    await mirror.follow()
    [left] = mirror.runs()
    assert left.info.run_id == run.info.run_id
    assert left.info.status == "FINISHED"


async def test_warnings_are_tags(story: Story, mirror: Mirror):
    await story.submit("warned")
    await story.start("warned")
    await story.tell(
        "warned", Warned(code="HIGH_RATE", field="regularization", message="0.9!" * 2000)
    )
    await mirror.follow()
    [run] = mirror.runs()
    assert run.data.tags["dropnorm.warning.HIGH_RATE"].startswith("0.9!0.9!")


async def test_writing_a_batch_again_changes_nothing(
    story: Story, mirror: Mirror, client: MlflowClient, config
):
    await story.whole("once")
    events = [e for e in await story.store.events("once", after=0, limit=100) if e.attempt]
    batch = await mirror.batch(events)
    mirror.recorder.record(batch)
    [before] = mirror.runs()
    mirror.recorder.record(batch)
    RunRecorder(client, config.artifact_root, lambda _: None).record(batch)  # a new process
    [after] = mirror.runs()
    assert after.to_dictionary() == before.to_dictionary()
    assert len(mirror.points(after, "train_loss")) == 3
    assert len(mirror.points(after, "test_accuracy")) == 1


async def test_a_job_that_has_its_run_on_record_is_not_told_again(
    story: Story, mirror: Mirror, made: list[RunMade]
):
    await story.submit("told")
    await story.start("told")
    await mirror.follow()
    [run] = made
    await story.record_tracking(
        "told", Tracked(mlflow_experiment_id=run.experiment_id, mlflow_run_id=run.run_id)
    )
    await story.train("told", [1])
    await mirror.follow()
    assert len(made) == 1


async def test_jobs_of_one_batch_have_a_run_each(story: Story, mirror: Mirror):
    for name in ("a", "b"):
        await story.submit(name, experiment=f"of {name}")
        await story.start(name)
    for number in (1, 2):
        for name in ("a", "b"):
            await story.train(name, [number])
    await mirror.follow()
    for name in ("a", "b"):
        [run] = mirror.runs(f"of {name}")
        assert run.info.run_name == name
        assert [step for step, _ in mirror.points(run, "train_loss")] == [1, 2]


async def test_an_id_used_again_is_another_run(story: Story, mirror: Mirror):
    await story.whole("reused")
    await mirror.follow()
    await story.store.purge(["reused"])
    await story.whole("reused")
    await mirror.follow()
    assert len(mirror.runs()) == 2


async def test_a_deleted_experiment_is_restored(story: Story, mirror: Mirror):
    await story.whole("before")
    await mirror.follow()
    [run] = mirror.runs()
    mirror.client.delete_experiment(run.info.experiment_id)
    await story.whole("after")
    await mirror.follow()
    assert {run.info.run_name for run in mirror.runs()} == {"before", "after"}


async def test_a_deleted_run_stays_deleted(story: Story, mirror: Mirror, made: list[RunMade]):
    await story.submit("unwanted")
    await story.start("unwanted")
    await mirror.follow()
    mirror.client.delete_run(made[0].run_id)
    await story.train("unwanted", [1])
    await story.succeed("unwanted")
    await story.whole("wanted")
    await mirror.follow()
    assert [run.info.run_name for run in mirror.runs()] == ["wanted"]
    everything = mirror.client.search_runs(
        [made[0].experiment_id], run_view_type=ViewType.DELETED_ONLY
    )
    assert [run.info.run_id for run in everything] == [made[0].run_id]


async def test_the_device_is_known_without_an_evaluation(story: Story, mirror: Mirror):
    asked = a_spec().model_copy(update={"compute": Compute(device="cpu")})
    await story.submit("asked", asked)
    await story.start("asked")
    await story.submit("told")
    await story.start("told")
    told = epoch(a_spec(), 1)
    assert told.system is not None
    on_gpu = told.system.model_copy(update={"gpu_memory_bytes": 1_000_000})
    await story.tell("told", told.model_copy(update={"system": on_gpu}), moved(State.PAUSED))
    await mirror.follow()
    devices = {run.info.run_name: run.data.tags["dropnorm.device"] for run in mirror.runs()}
    assert devices == {"asked": "cpu", "told": "cuda"}


async def test_a_job_keeps_its_run_when_the_experiment_gets_another_name(
    story: Story, mirror: Mirror, client: MlflowClient, config, made: list[RunMade]
):
    await story.submit("stays")
    await story.start("stays")
    await mirror.follow()
    ids = Tracked(mlflow_experiment_id=made[0].experiment_id, mlflow_run_id=made[0].run_id)
    await story.record_tracking("stays", ids)
    client.rename_experiment(made[0].experiment_id, "another name")
    mirror.recorder = RunRecorder(client, config.artifact_root, made.append)  # a new process
    await story.train("stays", [1, 2, 3])
    job = await story.succeed("stays")
    await mirror.follow()
    event = (await story.store.events("stays", after=0, limit=100))[-1]
    ArtifactRecorder(client).record(
        Batch(events=(event,), jobs={job.name: JobContext(job=job, folder=story.folder)})
    )

    assert len(made) == 1
    assert mirror.runs() == []
    [run] = mirror.runs("another name")
    assert run.info.status == "FINISHED"
    assert run.data.tags["dropnorm.model"].startswith("failed")  # the story has none
    assert [step for step, _ in mirror.points(run, "train_loss")] == [1, 2, 3]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files >= {"evaluation.json", "plots", "spec.yaml"}


async def test_a_run_whose_id_was_lost_is_found_although_its_experiment_got_another_name(
    story: Story, mirror: Mirror, client: MlflowClient, config, made: list[RunMade]
):
    await story.submit("stays")
    await story.start("stays")
    await mirror.follow()  # and the process dies before the job is told of its run
    client.rename_experiment(made[0].experiment_id, "another name")
    mirror.recorder = RunRecorder(client, config.artifact_root, made.append)
    await story.train("stays", [1, 2])
    await mirror.follow()

    assert {each.run_id for each in made} == {made[0].run_id}
    assert mirror.runs() == []
    [run] = mirror.runs("another name")
    assert [step for step, _ in mirror.points(run, "train_loss")] == [1, 2]


@pytest.mark.parametrize("whole_experiment", [False, True])
async def test_a_run_deleted_while_its_job_trains_is_missed_once_and_goes_on_when_restored(
    whole_experiment: bool,
    story: Story,
    mirror: Mirror,
    client: MlflowClient,
    made: list[RunMade],
    caplog: pytest.LogCaptureFixture,
):
    await story.submit("missed")
    await story.start("missed")
    await mirror.follow()
    [run] = made
    if whole_experiment:
        client.delete_experiment(run.experiment_id)
    else:
        client.delete_run(run.run_id)
    for number in (1, 2):
        await story.train("missed", [number])
        await mirror.follow()
    [record] = [r for r in caplog.records if r.name.startswith("dropnorm")]
    assert "the run of trainingJobs/missed was deleted" in record.message

    if whole_experiment:
        client.restore_experiment(run.experiment_id)
    else:
        client.restore_run(run.run_id)
    await story.train("missed", [3])
    await mirror.follow()
    [restored] = mirror.runs()
    assert [step for step, _ in mirror.points(restored, "train_loss")] == [3]


async def test_a_run_that_is_made_anew_and_not_whole_is_written_from_the_beginning(
    story: Story, mirror: Mirror, client: MlflowClient, config, made: list[RunMade]
):
    """As when the service is killed after the first part of a journal whose run was gone."""
    await story.submit("half")
    ids = Tracked(mlflow_experiment_id="1", mlflow_run_id="a" * 32)
    await story.record_tracking("half", ids)  # a run that MLflow does not have any more
    await story.start("half")
    await story.train("half", [1, 2, 3])
    events = [e for e in await story.store.events("half", after=0, limit=100) if e.attempt]

    news = await mirror.batch(events[-1:])
    gone = Done(gone=("trainingJobs/half",))
    assert mirror.recorder.record(news) == gone
    assert made == []
    first = await mirror.batch(events[:3], Rewriting(first=True, last=False))
    assert mirror.recorder.record(first) == Done()
    again = RunRecorder(client, config.artifact_root, made.append)  # a new process
    assert again.record(news) == gone
    for part, rewriting in (
        (events[:4], Rewriting(first=True, last=False)),
        (events[4:], Rewriting(first=False, last=True)),
    ):
        assert again.record(await mirror.batch(part, rewriting)) == Done()
    assert again.record(news) == Done()

    [run] = mirror.runs()
    assert {each.run_id for each in made} == {run.info.run_id}
    assert [step for step, _ in mirror.points(run, "train_loss")] == [1, 2, 3]
    assert run.data.params["data.dataset"] == "digits"
    assert "dropnorm.incomplete" not in run.data.tags


async def test_what_mlflow_refuses_is_left_out_and_said_so(story: Story, mirror: Mirror):
    await story.submit("odd")
    await story.start("odd")
    await mirror.follow()
    [run] = mirror.runs()
    # Another version of the service wrote this parameter in another way; MLflow never changes one.
    mirror.rewrite = lambda job: job.model_copy(
        update={"spec": job.spec.model_copy(update={"seed": 8})}
    )
    await story.start("odd", attempt=2)
    await story.train("odd", [1], attempt=2)
    await mirror.follow()
    [run] = mirror.runs()
    assert "parameters of trainingJobs/odd" in run.data.tags["dropnorm.mirror_error"]
    assert run.data.params["seed"] == "7"
    assert [step for step, _ in mirror.points(run, "train_loss")] == [1]
