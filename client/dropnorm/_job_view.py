"""What both kinds of job handle show without asking the service."""

from __future__ import annotations

from html import escape

from dropnorm.results import Evaluation, JobError, Progress, State, TrainingJob
from dropnorm.spec import TrainingSpec


class JobView:
    """A job as last seen: by the call that made the handle, `refresh()`, or the events watched since."""

    def __init__(self, snapshot: TrainingJob) -> None:
        self._snapshot = snapshot

    @property
    def snapshot(self) -> TrainingJob:
        """The whole job as last seen, frozen."""
        return self._snapshot

    @property
    def id(self) -> str:
        """The last part of the resource name."""
        return self._snapshot.id

    @property
    def name(self) -> str:
        """Resource name, `trainingJobs/{id}`."""
        return self._snapshot.name

    @property
    def display_name(self) -> str:
        """Name for people."""
        return self._snapshot.display_name

    @property
    def owner(self) -> str:
        """User who made it."""
        return self._snapshot.owner

    @property
    def shared(self) -> bool:
        """Whether the project's other users may see and use it."""
        return self._snapshot.shared

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._snapshot.state

    @property
    def spec(self) -> TrainingSpec:
        """What is trained, every default filled in."""
        return self._snapshot.spec

    @property
    def progress(self) -> Progress | None:
        """How far the current or last attempt has come; None before the first."""
        return self._snapshot.progress

    @property
    def evaluation(self) -> Evaluation | None:
        """Its result; None before it has succeeded."""
        return self._snapshot.evaluation

    @property
    def error(self) -> JobError | None:
        """Why it failed; None when it did not."""
        return self._snapshot.error

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's id of its run; None until the service has made it, normally a second after the start."""
        return self._snapshot.mlflow_run_id

    def __repr__(self) -> str:
        return repr(self._snapshot).replace("<TrainingJob", f"<{type(self).__name__}", 1)

    def _repr_html_(self) -> str:
        result = self._snapshot.evaluation
        return f"<code>{escape(repr(self))}</code>" + (result._repr_html_() if result else "")
