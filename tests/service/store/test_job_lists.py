"""Lists of jobs: filters, orders and pages, on every database."""

import random
from datetime import timedelta

import pytest
from tests.service.store.rows import NOON, append, draft, insert, names

from dropnorm.results import State, StateChanged
from dropnorm_service.jobs.errors import InvalidListRequest
from dropnorm_service.jobs.paging import ORDER_FIELDS
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.store import SqlJobStore

JOBS = [
    draft("plain", age=40, experiment="digits", labels={"team": "vision"}, priority=5),
    draft("dropout", age=30, display_name="With Dropout", labels={"team": "text", "draft": ""}),
    draft("norm", age=20, experiment="digits", display_name="100%_norm", priority=5),
    draft("both", age=10, display_name="Änderung", labels={"team": "vision"}, priority=-5),
]


@pytest.fixture
async def store(store: SqlJobStore) -> SqlJobStore:
    """The four jobs; `dropout` has ended, `both` runs."""
    jobs = {job.id: await insert(store, job) for job in JOBS}
    await append(store, jobs["both"], StateChanged(state=State.RUNNING))
    await append(store, jobs["dropout"], StateChanged(state=State.CANCELLED))
    return store


async def test_the_newest_comes_first(store: SqlJobStore):
    page = await store.list(JobQuery())
    assert names(page.jobs) == ["both", "norm", "dropout", "plain"]
    assert page.next_page_token == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("state = RUNNING", ["both"]),
        ("state != RUNNING", ["norm", "dropout", "plain"]),
        ("NOT state = RUNNING", ["norm", "dropout", "plain"]),
        ("experiment = digits", ["norm", "plain"]),
        ("experiment = Digits", []),
        ("experiment:DIGI", ["norm", "plain"]),
        ('display_name:"dropout"', ["dropout"]),
        ('display_name:"%_"', ["norm"]),
        ('display_name = "Änderung"', ["both"]),
        ("name = trainingJobs/norm", ["norm"]),
        ("name != trainingJobs/norm", ["both", "dropout", "plain"]),
        ("priority >= 5", ["norm", "plain"]),
        ("priority < 0", ["both"]),
        ("labels.team = vision", ["both", "plain"]),
        ("labels.team != vision", ["dropout"]),
        ("NOT labels.team = vision", ["norm", "dropout"]),
        ("labels:team", ["both", "dropout", "plain"]),
        ("-labels:team", ["norm"]),
        ('labels.draft = ""', ["dropout"]),
        (f"create_time > {(NOON - timedelta(seconds=20)).isoformat()}", ["both"]),
        (f"create_time >= {(NOON - timedelta(seconds=20)).isoformat()}", ["both", "norm"]),
        ("end_time:*", ["dropout"]),
        ("NOT end_time:*", ["both", "norm", "plain"]),
        ("end_time < 2030-01-01T00:00:00Z", ["dropout"]),
        ("NOT end_time < 2030-01-01T00:00:00Z", ["both", "norm", "plain"]),
        ("experiment = digits AND labels.team = vision", ["plain"]),
        ("experiment = digits OR state = RUNNING", ["both", "norm", "plain"]),
        ("labels:team AND state = RUNNING OR state = CANCELLED", ["both", "dropout"]),
        ('experiment = "\' OR 1=1 --"', []),
    ],
)
async def test_what_a_filter_finds(store: SqlJobStore, text: str, found: list[str]):
    assert names((await store.list(JobQuery(filter=text))).jobs) == found


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ("name", ["both", "dropout", "norm", "plain"]),
        ("create_time", ["plain", "dropout", "norm", "both"]),
        ("priority desc, create_time", ["plain", "norm", "dropout", "both"]),
        ("priority, create_time desc", ["both", "dropout", "norm", "plain"]),
        ("display_name", ["norm", "dropout", "plain", "both"]),
        ("end_time, name", ["dropout", "both", "norm", "plain"]),
        ("end_time desc, name", ["both", "norm", "plain", "dropout"]),
    ],
)
@pytest.mark.parametrize("page_size", [1, 2, 3, 50])
async def test_pages_together_are_the_whole_list_in_order(
    store: SqlJobStore, order_by: str, found: list[str], page_size: int
):
    assert await _all_pages(store, JobQuery(order_by=order_by, page_size=page_size)) == found


@pytest.mark.parametrize("field", ORDER_FIELDS)
async def test_every_order_has_pages(store: SqlJobStore, field: str):
    ascending = await _all_pages(store, JobQuery(order_by=field, page_size=1))
    descending = await _all_pages(store, JobQuery(order_by=f"{field} desc", page_size=3))
    assert ascending == descending[::-1]
    assert len(ascending) == 4


async def test_jobs_made_meanwhile_shift_no_page(store: SqlJobStore):
    query = JobQuery(page_size=2)
    first = await store.list(query)
    await insert(store, draft("newer", age=-1))
    second = await store.list(JobQuery(page_size=2, page_token=first.next_page_token))
    assert names([*first.jobs, *second.jobs]) == ["both", "norm", "dropout", "plain"]


@pytest.mark.parametrize("order_by", ["", "name desc", "priority, create_time desc"])
@pytest.mark.parametrize("page_size", [1, 2, 50])
async def test_a_user_pages_through_his_own_and_what_is_shared(
    store: SqlJobStore, order_by: str, page_size: int
):
    made = random.Random(f"{order_by}{page_size}")  # noqa: S311 - the same in every run
    for n in range(20):
        owner, shared = made.choice(["ada", "bob"]), made.random() < 0.3
        job = draft(f"job-{n:02}", age=n, priority=n % 3, owner=owner, shared=shared)
        await insert(store, job)
    every = (await store.list(JobQuery(order_by=order_by, page_size=50))).jobs
    for user in ("ada", "bob", "eve", "local"):
        seen = [job.id for job in every if job.shared or job.owner == user]
        query = JobQuery(order_by=order_by, page_size=page_size, seen_by=user)
        assert await _all_pages(store, query) == seen


async def test_a_page_of_another_filter_is_refused(store: SqlJobStore):
    token = (await store.list(JobQuery(page_size=1))).next_page_token
    with pytest.raises(InvalidListRequest, match="belongs to another filter"):
        await store.list(JobQuery(page_token=token, filter="state = RUNNING"))


async def test_all_that_is_wrong_with_a_query_is_told_at_once(store: SqlJobStore):
    query = JobQuery(filter="colour = 1", order_by="colour", page_size=-1, page_token="x")
    with pytest.raises(InvalidListRequest) as raised:
        await store.list(query)
    assert [problem.field for problem in raised.value.problems] == [
        "page_size",
        "filter",
        "order_by",
    ]
    with pytest.raises(InvalidListRequest) as raised:
        await store.list(JobQuery(page_size=-1, page_token="x"))
    assert [problem.field for problem in raised.value.problems] == ["page_size", "page_token"]


async def test_lists_leave_evaluations_out_and_bring_specs(store: SqlJobStore):
    [job] = (await store.list(JobQuery(filter="name = trainingJobs/plain"))).jobs
    assert job.evaluation is None
    assert job == await store.get("plain")


async def _all_pages(store: SqlJobStore, query: JobQuery) -> list[str]:
    found: list[str] = []
    while True:
        page = await store.list(query)
        assert len(page.jobs) <= query.page_size
        found += names(page.jobs)
        if not page.next_page_token:
            return found
        query = JobQuery(
            filter=query.filter,
            order_by=query.order_by,
            page_size=query.page_size,
            page_token=page.next_page_token,
            seen_by=query.seen_by,
        )
