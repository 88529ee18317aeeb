"""Loading a job's data: what it tells, and that it obeys while it waits."""

from pathlib import Path

import pytest
from tests.service.training.made import CPU, idx_dataset, of_kind
from tests.service.training.shorthand import mlp

from dropnorm import spec as dn
from dropnorm.results import DatasetLoaded, Payload, Progressed
from dropnorm_service.training import (
    DatasetCache,
    Interrupted,
    Order,
    TimeLimit,
    fit,
    load_data,
)
from dropnorm_service.training.data.entry import Entry

SPEC = mlp(4, optimization=dn.Optimization(epochs=2, batch_size=10))


@pytest.fixture
def cache(tmp_path: Path) -> DatasetCache:
    facts = idx_dataset(tmp_path / "files")
    return DatasetCache(
        tmp_path / "cache", datasets_dir=tmp_path / "files", catalog={"made": facts}
    )


def test_it_tells_of_the_phase_and_of_the_data(cache):
    events: list[Payload] = []
    data = load_data(SPEC, cache, CPU, on_event=events.append)
    (progressed,) = of_kind(events, Progressed)
    assert progressed.progress.phase == "loading_data"
    assert (progressed.progress.steps, progressed.progress.epochs) == (12, 2)
    assert events[-1] == DatasetLoaded(dataset=data.summary)
    assert data.summary.digest == cache.load("made").digest
    assert data.seconds > 0.0
    assert fit(SPEC, data).evaluation.dataset == data.summary


@pytest.mark.parametrize("order", [Order.PAUSE, Order.CANCEL])
def test_it_obeys_while_another_process_parses(cache, tmp_path, order):
    orders = iter([Order.GO_ON, Order.CHECKPOINT, order])
    with (
        Entry(tmp_path / "cache" / "made").locked(lambda: None),
        pytest.raises(Interrupted) as raised,
    ):
        load_data(SPEC, cache, CPU, orders=lambda: next(orders))
    assert raised.value.order is order
    assert next(orders, None) is None


def test_data_that_is_not_there_is_refused(cache):
    spec = mlp(4, data=dn.Data(dataset="imagenet"))
    with pytest.raises(dn.InvalidSpecError, match=r"data\.dataset"):
        load_data(spec, cache, CPU)


def test_the_time_is_over_while_another_process_parses(cache, tmp_path):
    with (
        Entry(tmp_path / "cache" / "made").locked(lambda: None),
        pytest.raises(
            TimeLimit, match=r"its limit of 0\.2 seconds while it was made ready"
        ) as raised,
    ):
        load_data(SPEC, cache, CPU, time_limit=0.2)
    assert raised.value.metadata == {"time_limit": "0.2"}


def test_the_time_is_over_while_the_network_is_made(cache):
    data = load_data(SPEC, cache, CPU)
    asked = []

    def orders() -> Order:
        asked.append(Order.GO_ON)
        return Order.GO_ON

    with pytest.raises(TimeLimit, match="while it was made ready"):
        fit(SPEC, data, orders=orders, time_limit=data.seconds / 2)
    assert asked == [Order.GO_ON], "before the first layer"
