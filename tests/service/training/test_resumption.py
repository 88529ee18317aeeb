"""What a training does with its checkpoints: when it writes them, what it tells of them, and which it goes on from."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.service.training.made import checkpoints_told, of_kind, split_of
from tests.service.training.resumption_cases import CASES
from tests.service.training.stopping import (
    Asked,
    Place,
    after_writing,
    outcome,
    run,
    stopped_at,
    telling,
)

from dropnorm.results import CheckpointWritten, EpochCompleted, Payload, Warned
from dropnorm_service.training import (
    BadData,
    Checkpoints,
    FitResult,
    Interrupted,
    Order,
    SplitData,
    fit,
)
from dropnorm_service.training.checkpoint import Snapshot

SPEC, DATASET = CASES["sgd as it is"]
STEPS = 4
"""Steps of an epoch of it."""


@pytest.fixture
def data() -> SplitData:
    return split_of(SPEC, DATASET)


def stop(data: SplitData, step: int, folder: Path, order: Order = Order.PAUSE) -> Interrupted:
    """The training of the first case is stopped behind a step of the first epoch; 0: before it."""
    place = Place("training", 0, step) if step else _before_the_first_step(data)
    with pytest.raises(Interrupted) as raised:
        run(SPEC, data, Asked(place, order), checkpoint=Checkpoints(folder))
    return raised.value


def _before_the_first_step(data: SplitData) -> Place:
    asked = Asked()
    run(SPEC, data, asked)
    return max(place for place in asked.places if place.phase == "building")


def snapshot_of(folder: Path) -> Snapshot:
    snapshot, warnings = Checkpoints(folder).read()
    assert warnings == []
    assert snapshot is not None
    return snapshot


def resumed(data: SplitData, folder: Path) -> tuple[FitResult, list[str]]:
    """The training gone on with, and the codes of its warnings."""
    events = list[Payload]()
    result = fit(SPEC, data, on_event=events.append, checkpoint=Checkpoints(folder))
    return result, [event.code for event in of_kind(events, Warned)]


_ELSEWHERE = """
import pickle, sys, torch
from pathlib import Path
from tests.service.training.made import split_of
from tests.service.training.stopping import outcome
from tests.service.training.resumption_cases import CASES
from dropnorm_service.training import Checkpoints, fit
torch.set_num_threads(1)
spec, dataset = CASES["everything measured"]
found = outcome(fit(spec, split_of(spec, dataset), checkpoint=Checkpoints(Path(sys.argv[1]))))
print({name: repr(value) for name, value in found.items()})
"""


def test_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    spec, dataset = CASES["everything measured"]
    data, asked = split_of(spec, dataset), Asked()
    whole = outcome(run(spec, data, asked))
    middle = [place for place in telling(asked.places) if place.phase == "training"][1]
    with pytest.raises(Interrupted):
        run(spec, data, Asked(middle), checkpoint=Checkpoints(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    expected = {name: repr(value) for name, value in whole.items()}
    assert done.stdout == f"{expected}\n"


def test_a_stop_behind_every_step_changes_no_bit(data: SplitData, tmp_path: Path) -> None:
    asked = Asked()
    whole = outcome(run(SPEC, data, asked))
    steps = [place for place in asked.places if place.phase == "training"]
    assert len(steps) == 3 * STEPS
    assert outcome(stopped_at(steps, SPEC, data, tmp_path)) == whole


def test_a_training_stopped_before_its_first_step_leaves_a_checkpoint_of_step_0(
    data: SplitData, tmp_path: Path
) -> None:
    stop(data, 0, tmp_path)
    facts = snapshot_of(tmp_path).facts
    assert (facts["epoch"], facts["step"], facts["history"]) == (1, 0, [])


def test_while_it_is_built_there_is_nothing_yet_to_keep(data: SplitData, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(SPEC, data, Asked(Place("building", 0, 1)), checkpoint=Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_on_order_is_written_and_the_training_goes_on(
    data: SplitData, tmp_path: Path
) -> None:
    events = list[Payload]()
    result = run(
        SPEC,
        data,
        Asked(Place("training", 0, 2), Order.CHECKPOINT),
        checkpoint=Checkpoints(tmp_path),
        on_event=events.append,
    )
    assert checkpoints_told(events) == [(0, 2)]
    assert outcome(result) == outcome(fit(SPEC, data))


def test_periodic_checkpoints_change_no_bit_and_each_can_be_gone_on_from(
    data: SplitData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill behind any step or batch: each is kept aside, and gone on from."""
    kept = list[Snapshot]()
    write = Checkpoints.write

    def keep(checkpoints: Checkpoints, snapshot: Snapshot) -> None:
        kept.append(snapshot)
        write(checkpoints, snapshot)

    monkeypatch.setattr(Checkpoints, "write", keep)
    monkeypatch.setattr("dropnorm_service.training.writer._COST_LIMIT", 1e9)
    events = list[Payload]()
    often = Checkpoints(tmp_path / "often", interval_seconds=0.0)
    whole = outcome(fit(SPEC, data, orders=after_writing, checkpoint=often, on_event=events.append))
    monkeypatch.undo()
    assert len(of_kind(events, CheckpointWritten)) == len(kept)
    assert len(kept) > 2 * STEPS
    assert outcome(fit(SPEC, data)) == whole
    for number, snapshot in enumerate(kept):
        checkpoints = Checkpoints(tmp_path / str(number))
        checkpoints.write(snapshot)
        assert outcome(fit(SPEC, data, checkpoint=checkpoints)) == whole, number


def test_epochs_done_are_not_told_again_and_time_adds_up(data: SplitData, tmp_path: Path) -> None:
    before, after = list[Payload](), list[Payload]()
    asked = Asked(Place("training", 1, STEPS + 1))
    with pytest.raises(Interrupted):
        run(SPEC, data, asked, on_event=before.append, checkpoint=Checkpoints(tmp_path))
    spent = snapshot_of(tmp_path).facts["seconds"]
    started = time.perf_counter()
    result = fit(SPEC, data, on_event=after.append, checkpoint=Checkpoints(tmp_path))
    second = time.perf_counter() - started
    told = [event.metrics for event in of_kind(before + after, EpochCompleted)]
    assert tuple(told) == result.evaluation.history
    cost = result.evaluation.cost
    assert spent + data.seconds < cost.seconds < spent + data.seconds + second
    assert cost.training_seconds == sum(each.seconds for each in result.evaluation.history)
    assert 0.0 < cost.seconds_to_best < cost.seconds


def damage(folder: Path, number: int) -> str:
    """Change a byte of the tensors of the newest checkpoints, so many of them; the name of the last."""
    for path in sorted(folder.glob("*.safetensors"))[-number:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return path.stem


def test_of_a_damaged_checkpoint_is_warned_and_the_one_before_is_gone_on_from(
    data: SplitData, tmp_path: Path
) -> None:
    whole = outcome(fit(SPEC, data))
    for step in (2, 4):
        stop(data, step, tmp_path)
    newest, events = damage(tmp_path, 1), list[Payload]()
    asked = Asked()
    result = run(SPEC, data, asked, on_event=events.append, checkpoint=Checkpoints(tmp_path))
    (warning,) = of_kind(events, Warned)
    assert warning.code == "CHECKPOINT_DAMAGED"
    assert newest in warning.message
    assert next(place.number for place in asked.places if place.phase == "training") == 3
    assert outcome(result) == whole


def test_when_all_are_damaged_the_training_starts_over_and_says_so(
    data: SplitData, tmp_path: Path
) -> None:
    whole = outcome(fit(SPEC, data))
    for step in (2, 4):
        stop(data, step, tmp_path)
    damage(tmp_path, 2)
    result, warnings = resumed(data, tmp_path)
    assert warnings == ["CHECKPOINT_DAMAGED", "CHECKPOINT_DAMAGED", "CHECKPOINTS_LOST"]
    assert outcome(result) == whole


def rewritten(folder: Path, **facts: Any) -> None:
    """The newest checkpoint with other facts, whole as far as sums can tell."""
    checkpoints = Checkpoints(folder)
    snapshot, _ = checkpoints.read()
    assert snapshot is not None
    checkpoints.write(Snapshot(snapshot.tensors, {**snapshot.facts, **facts}))


@pytest.mark.parametrize(
    "facts",
    [
        {"history": [{"epoch": "one"}]},
        {"selection": {"nonsense": 1}},
        {"plateau": None},
        {"epoch": "first"},
        {"optimizer": {"99": {}, "x": {}}},
        {"seconds": None},
    ],
    ids=lambda facts: next(iter(facts)),
)
def test_what_is_whole_but_no_state_of_a_training_is_passed_over(
    facts: dict[str, Any], data: SplitData, tmp_path: Path
) -> None:
    whole = outcome(fit(SPEC, data))
    stop(data, 2, tmp_path)
    rewritten(tmp_path, **facts)
    result, warnings = resumed(data, tmp_path)
    assert warnings == ["CHECKPOINT_DAMAGED"]
    assert outcome(result) == whole


@pytest.mark.parametrize(
    ("part", "how"),
    [
        *itertools.product(
            ["model/output.linear.weight", "random/cpu"],
            ["gone", "of another shape", "of another type", "unknown"],
        ),
        ("losses", "gone"),
    ],
)
def test_tensors_that_do_not_fit_are_passed_over(
    part: str, how: str, data: SplitData, tmp_path: Path
) -> None:
    stop(data, 2, tmp_path)
    snapshot = snapshot_of(tmp_path)
    tensors = dict(snapshot.tensors)
    if how == "unknown":
        tensors[f"{part}/more"] = tensors[part]
    elif how == "gone":
        del tensors[part]
    else:
        tensors[part] = tensors[part][:1] if how == "of another shape" else tensors[part].double()
    Checkpoints(tmp_path).write(Snapshot(tensors, snapshot.facts))
    assert resumed(data, tmp_path)[1] == ["CHECKPOINT_DAMAGED"]


def test_the_checkpoint_of_another_job_is_passed_over(data: SplitData, tmp_path: Path) -> None:
    stop(data, 2, tmp_path)
    rewritten(tmp_path, spec=SPEC.model_copy(update={"seed": 5}).model_dump(mode="json"))
    assert resumed(data, tmp_path)[1] == ["CHECKPOINT_OF_OTHER_JOB"]


def test_a_paused_training_survives_an_upgrade_that_adds_fields(
    data: SplitData, tmp_path: Path
) -> None:
    """An older version of the service wrote no field of the spec, and no metric, that was added since."""
    whole = outcome(fit(SPEC, data))
    asked = Asked(Place("training", 1, STEPS + 1))
    with pytest.raises(Interrupted):
        run(SPEC, data, asked, checkpoint=Checkpoints(tmp_path))
    facts = snapshot_of(tmp_path).facts
    older_spec = {**facts["spec"]}
    del older_spec["regularization"]["label_smoothing"], older_spec["evaluation"]["robustness"]
    history = [
        {name: value for name, value in each.items() if name != "layers"}
        for each in facts["history"]
    ]
    rewritten(tmp_path, spec=older_spec, history=history)
    result, warnings = resumed(data, tmp_path)
    assert warnings == []
    assert outcome(result) == whole


def test_of_a_checkpoint_from_elsewhere_is_said_that_digits_may_differ(
    data: SplitData, tmp_path: Path
) -> None:
    stop(data, 2, tmp_path)
    machine = {"torch": "1.0", "device": "abacus", "threads": torch.get_num_threads()}
    rewritten(tmp_path, machine=machine)
    events = list[Payload]()
    fit(SPEC, data, on_event=events.append, checkpoint=Checkpoints(tmp_path))
    (warning,) = of_kind(events, Warned)
    assert warning.code == "RESUMED_ELSEWHERE"
    assert f"torch 1.0 before and {torch.__version__} now" in warning.message
    assert "threads" not in warning.message


def test_data_that_has_changed_ends_the_training(data: SplitData, tmp_path: Path) -> None:
    stop(data, 2, tmp_path)
    changed = split_of(SPEC, replace(DATASET, digest="1" * 64))
    with pytest.raises(BadData, match="has changed since"):
        fit(SPEC, changed, checkpoint=Checkpoints(tmp_path))


def test_a_checkpoint_holds_the_weights_of_its_step(data: SplitData, tmp_path: Path) -> None:
    assert stop(data, 2, tmp_path, Order.CANCEL).order is Order.CANCEL
    snapshot = snapshot_of(tmp_path)
    assert (snapshot.facts["epoch"], snapshot.facts["step"]) == (1, 2)
    weights = snapshot.tensors["model/hidden.0.linear.weight"]
    assert not torch.equal(weights, snapshot.tensors["best/hidden.0.linear.weight"])
    assert json.loads(json.dumps(snapshot.facts)) == snapshot.facts
