"""What MLflow must hold in the end, read from the database of its tracking server."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.promises import Findings, epochs_done, final, run_of

from dropnorm.results import Event, State

# As MLflow's page shows them; written down here, since the mirror's own modules load MLflow.
JOB_TAG = "dropnorm.job"
MODEL_TAG = "dropnorm.model"
ERROR_TAG = "dropnorm.mirror_error"

_PATIENCE = 60.0
_STATUS = {State.SUCCEEDED: "FINISHED", State.CANCELLED: "KILLED", State.FAILED: "FAILED"}


class Runs:
    """The runs in an MLflow database."""

    def __init__(self, database: Path) -> None:
        # Not only to read: what a kill left of a write is rolled back by whoever comes first.
        opened = sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=_PATIENCE)
        with contextlib.closing(opened) as store:
            self.tags: dict[str, dict[str, str]] = defaultdict(dict)
            for run, key, tag in store.execute("SELECT run_uuid, key, value FROM tags"):
                self.tags[run][key] = tag
            found = "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'"
            self.status = dict(store.execute(found))
            self.points: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
            for run, key, step in store.execute("SELECT run_uuid, key, step FROM metrics"):
                self.points[run][key, step] += 1
        self.by_job: dict[str, list[str]] = defaultdict(list)
        for run in self.status:
            self.by_job[self.tags[run].get(JOB_TAG, "")].append(run)

    def unended(self, journals: Mapping[str, Sequence[Event]]) -> Sequence[str]:
        """The jobs whose runs have not ended, or wait for their models."""
        return [name for name, events in journals.items() if not self._has_ended(name, events)]

    def _has_ended(self, name: str, events: Sequence[Event]) -> bool:
        if not _ran(events):
            return True
        runs = self.by_job[_id(name)]
        return bool(runs) and all(
            self.status[run] == _STATUS[final(events)]
            and self.tags[run].get(MODEL_TAG) != "pending"
            for run in runs
        )

    def check(self, journals: Mapping[str, Sequence[Event]], findings: Findings) -> None:
        """Exactly one ended run for each job that ran, none for others, each point once, no curve with a hole."""
        for name, events in journals.items():
            runs = self.by_job[_id(name)]
            expected = 1 if _ran(events) else 0
            if len(runs) != expected:
                findings.broken.append(f"{name} has {len(runs)} runs in MLflow, not {expected}")
            for run in runs:
                findings.broken += [f"{name}, its run: {each}" for each in self._wrong(run, events)]
        for job, runs in self.by_job.items():  # of deleted jobs as well
            if len(runs) > 1:
                findings.broken.append(f"trainingJobs/{job} has {len(runs)} runs in MLflow")
        for run, points in self.points.items():
            if doubled := [point for point, count in points.items() if count > 1]:
                findings.broken.append(f"run {run} has points twice: {doubled[:5]}")

    def _wrong(self, run: str, events: Sequence[Event]) -> Sequence[str]:
        wrong = []
        state = final(events)
        if self.status[run] != _STATUS[state]:
            wrong.append(f"it is {self.status[run]} and the job {state.name}")
        if run_of(events) != run:
            wrong.append(f"the journal names {run_of(events)}, not {run}")
        if error := self.tags[run].get(ERROR_TAG):
            wrong.append(f"something is left out: {error}")
        if state is State.SUCCEEDED and self.tags[run].get(MODEL_TAG) != "ready":
            wrong.append(f"its model is {self.tags[run].get(MODEL_TAG)}")
        steps = {step for key, step in self.points[run] if key == "train_loss"}
        if steps != epochs_done(events):
            wrong.append(
                f"its curve has {sorted(steps)}, the journal {sorted(epochs_done(events))}"
            )
        return wrong


def _ran(events: Sequence[Event]) -> bool:
    return any(event.attempt > 0 for event in events)


def _id(name: str) -> str:
    return name.rpartition("/")[2]
