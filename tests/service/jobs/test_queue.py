"""Who is next, and how long a job that lost its worker waits."""

from datetime import UTC, datetime, timedelta

from tests.service.jobs.bench import GPU_SPEC, SPEC, BenchExecutor, on_gpus

from dropnorm.results import State, TrainingJob
from dropnorm.spec import TrainingSpec
from dropnorm_service.jobs.queue import JobQueue

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(job_id: str, *, age: int = 0, priority: int = 0, spec: TrainingSpec = SPEC) -> TrainingJob:
    created = NOON - timedelta(seconds=age)
    return TrainingJob(
        name=f"trainingJobs/{job_id}",
        display_name=job_id,
        experiment="default",
        priority=priority,
        spec=spec,
        spec_digest="",
        state=State.QUEUED,
        create_time=created,
        update_time=created,
    )


def drain(queue: JobQueue) -> list[str]:
    ids = []
    while (job_id := queue.first(BenchExecutor())) is not None:
        queue.discard(job_id)
        ids.append(job_id)
    return ids


def test_priority_goes_before_age():
    queue = JobQueue()
    for each in [
        job("young"),
        job("old", age=9),
        job("urgent", priority=1),
        job("late", priority=-1),
    ]:
        queue.push(each)
    assert drain(queue) == ["urgent", "old", "young", "late"]


def test_a_job_whose_slot_is_taken_does_not_hold_up_others():
    queue = JobQueue()
    queue.push(job("gpu", priority=9, spec=GPU_SPEC))
    queue.push(job("cpu"))
    executor = BenchExecutor(cpus=1, gpus=1)
    assert queue.first(executor) == "gpu"
    executor.free["cuda"] = 0
    assert queue.first(executor) == "cpu"
    executor.free["cpu"] = 0
    assert queue.first(executor) is None


def test_a_job_that_waits_for_several_gpus_is_not_overtaken_for_ever():
    queue = JobQueue()
    for each in [
        job("both", spec=on_gpus(2), age=2),
        job("one", spec=GPU_SPEC, age=1),
        job("cpu"),
    ]:
        queue.push(each)
    executor = BenchExecutor(cpus=1, gpus=2)
    executor.free["cuda"] = 1
    assert queue.first(executor) == "cpu"
    executor.free["cuda"] = 2
    assert queue.first(executor) == "both"


def test_a_job_that_can_never_run_holds_up_nobody():
    queue = JobQueue()
    queue.push(job("eight", spec=on_gpus(8), priority=9))
    queue.push(job("one", spec=GPU_SPEC))
    assert queue.first(BenchExecutor(gpus=2)) == "one"


def test_each_kind_of_compute_is_asked_for_once_however_many_jobs_wait():
    queue = JobQueue()
    for n in range(100):
        queue.push(job(f"gpu-{n}", spec=GPU_SPEC))
        queue.push(job(f"cpu-{n}"))
    asked: list[TrainingSpec] = []

    class Full(BenchExecutor):
        def fits(self, spec: TrainingSpec) -> bool:
            asked.append(spec)
            return False

    assert queue.first(Full(gpus=1)) is None
    assert len(asked) == 2


def test_a_job_stands_in_the_queue_once_and_can_leave_and_return():
    queue = JobQueue()
    for _ in range(2):
        queue.push(job("a"))
    queue.push(job("b", age=1))
    queue.discard("b")
    queue.discard("b")
    queue.push(job("b", age=1))
    assert len(queue) == 2
    assert drain(queue) == ["b", "a"]
