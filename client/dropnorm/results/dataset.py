"""Data sets that were uploaded."""

from __future__ import annotations

from datetime import datetime

from dropnorm.results import _format
from dropnorm.results._base import ResultModel
from dropnorm.results.evaluation import SequenceSummary, Task


class Dataset(ResultModel):
    """A data set that was uploaded. Its content never changes; a job names it in `data.dataset`."""

    name: str
    """Resource name, `datasets/{id}`."""
    task: Task
    """What it is for by itself; some architectures do something else with it."""
    input_shape: tuple[int, ...]
    """Shape of one sample: `[features]`, `[channels, height, width]` or `[tokens]`."""
    outputs: int
    """Number of classes or regression targets."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in order; empty in regression."""
    feature_names: tuple[str, ...] = ()
    """Names of the features of a table in order; empty where they have none."""
    samples: int
    """Samples outside a test split of its own."""
    test_samples: int = 0
    """Samples in its own test split; 0: it has none."""
    sequences: SequenceSummary | None = None
    """What is known of the tokens; absent: samples are numbers."""
    size_bytes: int
    """Size of its file in bytes."""
    sha256: str
    """SHA-256 (hex) of its file."""
    digest: str
    """SHA-256 (hex) of its tensors: what jobs report as their data's digest."""
    create_time: datetime
    """When it was uploaded."""
    owner: str = "local"
    """User who made it."""
    shared: bool = False
    """Whether the project's other users may see it and train on it, but not change it."""

    @property
    def id(self) -> str:
        """The last part of the resource name: what `data.dataset` of a spec says."""
        return self.name.rpartition("/")[2]

    def __repr__(self) -> str:
        shape = _format.shape(self.input_shape)
        return f"<Dataset {self.id}: {self.task}, {self.samples:,} samples of {shape}>"

    __str__ = __repr__
