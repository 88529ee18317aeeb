"""What a caller may say about a job besides its spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dropnorm.spec._base import ONE_LINE, PRINTABLE, Bool, Int, Name, SpecModel, text_of
from dropnorm.spec.training_spec import TrainingSpec

MAX_LABELS = 64

Title = Annotated[
    str,
    text_of(rf"^{PRINTABLE}+$", ONE_LINE, min_length=1, max_length=200),
]
LabelValue = Annotated[str, text_of(rf"^{PRINTABLE}*$", ONE_LINE, max_length=63)]
JobId = Annotated[
    str,
    text_of(
        r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
        "give small letters, digits and -, at most 63, the first a letter and the last no -",
    ),
]


class Submission(SpecModel):
    """A request for one training job."""

    display_name: Title | None = None
    """Name for people, 1 to 200 printable characters, need not be unique; absent: the job's id."""
    experiment: Title = "default"
    """MLflow experiment the run goes to, 1 to 200 printable characters; made when it is missing."""
    labels: Annotated[dict[Name, LabelValue], Field(max_length=MAX_LABELS)] = {}
    """Up to 64 labels for filtering: keys `[a-z][a-z0-9_-]{0,62}`, values up to 63 printable characters."""
    priority: Annotated[Int, Field(ge=-1000, le=1000)] = 0
    """Order in the queue, -1000 to 1000: higher first, then older first."""
    spec: TrainingSpec
    """What to train."""
    shared: Bool = False
    """Whether the project's other users may see and use the job, but not change it."""
    ttl: Annotated[Int, Field(ge=1, le=10**9)] | None = None
    """Seconds for which the job is kept after its end, 1 to 1,000,000,000; absent: the service's job_retention."""
