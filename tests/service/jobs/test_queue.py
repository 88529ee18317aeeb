"""Who is next, and how long a job that lost its worker waits."""

import tracemalloc
from collections.abc import Callable
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


def test_jobs_that_the_same_slots_suit_wait_in_one_line():
    """However their limits differ: whoever is next is asked at each change of any job."""
    queue = JobQueue()
    asked: list[str] = []

    class Executor(BenchExecutor):
        def fits(self, spec: TrainingSpec) -> bool:
            asked.append(spec.compute.device)
            return False

    for number in range(100):
        compute = SPEC.compute.model_copy(update={"time_limit": 100.0 + number})
        queue.push(job(f"a{number}", spec=SPEC.model_copy(update={"compute": compute})))
    assert queue.first(Executor()) is None
    assert len(asked) == 1


def test_who_leaves_and_comes_back_takes_no_further_room():
    queue = JobQueue()
    queue.push(job("first", age=9))
    before = tracemalloc_peak(lambda: None)
    queue.push(job("other"))

    def come_and_go() -> None:
        for _ in range(20_000):
            queue.discard("other")
            queue.push(job("other"))

    assert tracemalloc_peak(come_and_go) < before + 100_000
    assert drain(queue) == ["first", "other"]


def tracemalloc_peak(work: Callable[[], None]) -> int:
    """Bytes that a piece of work takes at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
