"""What the server and its processes say to each other, over Unix stream sockets; `frames` makes bytes of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from dropnorm.results import Dataset, JobError, ModelExport, Payload, Plan, Prediction
from dropnorm.spec import DropoutSampling, ExportSettings, Problem, Tensor, TrainingSpec
from dropnorm_service.jobs.ports import Order


class Message(BaseModel):
    """One message, told from others by its `kind`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="constants",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


# Between the server and its fork server.


class Fork(Message):
    """Fork a process; the file descriptor that comes along is its connection to the server."""

    kind: Literal["fork"] = "fork"
    number: int
    """Names the request in the reply."""
    entry: str
    """What the process runs, `package.module:function`, given its connection."""
    environment: dict[str, str]
    """Variables to set before that."""
    memory_limit: int
    """Bytes of memory that the process can get of the system, as setrlimit(2) takes them."""


class Up(Message):
    """Everything is imported."""

    kind: Literal["up"] = "up"


class Forked(Message):
    """The process exists and leads a process group of its own."""

    kind: Literal["forked"] = "forked"
    number: int
    pid: int


class ForkRefused(Message):
    """The system lets no process more be made now."""

    kind: Literal["fork_refused"] = "fork_refused"
    number: int
    reason: str


class Ping(Message):
    """Say that you are there."""

    kind: Literal["ping"] = "ping"


class Pong(Message):
    """The answer to a ping."""

    kind: Literal["pong"] = "pong"


class Exited(Message):
    """A forked process ended."""

    kind: Literal["exited"] = "exited"
    pid: int
    status: int
    """Exit status, or minus the number of the signal that ended it."""


# Between the server and a worker.


class DataSettings(Message):
    """Where data sets come from and where they are cached."""

    cache: Path
    """Folder of the tensor cache."""
    folder: Path | None = None
    """Folder with data sets in their original formats, one subfolder each."""
    mirrors: dict[str, str] = {}
    """URL of a folder to download from, by data set."""
    uploads: Path | None = None
    """Folder of the uploaded data sets."""


class Start(Message):
    """Run one attempt."""

    kind: Literal["start"] = "start"
    spec: TrainingSpec
    folder: Path
    """The job's own folder."""
    data: DataSettings
    checkpoint_interval: float
    """Seconds between two checkpoints."""
    memory_limit_bytes: int | None = None
    """Memory that the training counts on, as the planner does; None: the device's."""
    time_limit: float | None = None
    """Seconds that the training may take, over all attempts; None: any time."""
    epochs_told: int = 0
    """Epochs that the job's journal has."""
    traceparent: str | None = None
    """The trace that the worker's spans belong to; None: they are not wanted."""


class Ordered(Message):
    """Obey between this step and the next."""

    kind: Literal["ordered"] = "ordered"
    order: Order


class Ready(Message):
    """The worker waits for its Start."""

    kind: Literal["ready"] = "ready"


class Report(Message):
    """Something for the job's journal."""

    kind: Literal["report"] = "report"
    time: datetime
    payload: Payload


class Heartbeat(Message):
    """The worker makes progress and has nothing else to say."""

    kind: Literal["heartbeat"] = "heartbeat"


class Stepped(Message):
    """The worker has come further by steps that its progress does not count."""

    kind: Literal["stepped"] = "stepped"


class Trace(Message):
    """The trace of an unexpected error: for the server's log, not for the job's owner."""

    kind: Literal["trace"] = "trace"
    text: str


class Span(Message):
    """Something of a trace that took from here to there; ids in hexadecimal, times in nanoseconds since 1970."""

    kind: Literal["span"] = "span"
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, int] = {}
    error: str = ""
    """Why it did not come to its end; empty: it did."""


class Logged(Message):
    """A record for the server's log."""

    kind: Literal["logged"] = "logged"
    level: int
    logger: str
    text: str


DEVICE_ERROR = "DEVICE_ERROR"
"""The reason of an error for which a worker's device is to blame."""


class End(Message):
    """The worker's last message: it finished, or obeyed an order, or failed."""

    kind: Literal["end"] = "end"
    order: Order | None = None
    error: JobError | None = None
    retry: bool = False
    """Whether the error is the world's fault and another attempt may succeed."""


# Between the server and its planner, its inspector and its inventory.


class PlanRequest(Message):
    """Plan a spec."""

    kind: Literal["plan_request"] = "plan_request"
    number: int
    """Names the request in the reply."""
    spec: TrainingSpec
    data: DataSettings
    memory_limit_bytes: int | None
    """Memory of the device it would run on; None: unknown."""


class PlanReply(Message):
    """The plan, or what is wrong with the spec, or with the planner."""

    kind: Literal["plan_reply"] = "plan_reply"
    number: int
    plan: Plan | None = None
    problems: tuple[Problem, ...] = ()
    trace: str = ""
    """The trace of an unexpected error, for the server's log."""


class Inspect(Message):
    """Look at an uploaded data set."""

    kind: Literal["inspect"] = "inspect"
    dataset_id: str
    path: Path
    samples: int
    """Samples allowed."""
    values: int
    """Values per sample allowed."""


class Inspected(Message):
    """What the data set is, or what is wrong with it, or with the inspector."""

    kind: Literal["inspected"] = "inspected"
    dataset: Dataset | None = None
    """The data set, but for what its file's name and size say."""
    problems: tuple[Problem, ...] = ()
    trace: str = ""
    """The trace of an unexpected error, for the server's log."""


# Between the server and its predictor.


class AnswerRequest(Message):
    """Let a model predict."""

    kind: Literal["answer_request"] = "answer_request"
    number: int
    """Names the request in the reply."""
    training_job: str
    """Name of the job whose model it is."""
    folder: Path
    """Where the model is."""
    inputs: Tensor
    sampling: DropoutSampling | None = None


class AnswerReply(Message):
    """What the model says, or what is wrong with the request, the model, or the predictor."""

    kind: Literal["answer_reply"] = "answer_reply"
    number: int
    prediction: Prediction | None = None
    problems: tuple[Problem, ...] = ()
    limit: int | None = None
    """Inputs at a time at most, where the problem is that there are more."""
    unusable: str = ""
    """Why the model cannot be used, a sentence."""
    trace: str = ""
    """The trace of an unexpected error, for the server's log."""


# Between the server and an exporter.


class ExportRequest(Message):
    """Write a model in another form."""

    kind: Literal["export_request"] = "export_request"
    number: int
    """Names the request in the reply."""
    model: Path
    """Where the model is."""
    settings: ExportSettings
    name: str
    """Resource name of the export."""
    folder: Path
    """Where it goes."""
    data: DataSettings


class ExportReply(Message):
    """What was written, or why nothing was."""

    kind: Literal["export_reply"] = "export_reply"
    number: int
    export: ModelExport | None = None
    unusable: str = ""
    """Why the model cannot be used, a sentence."""
    refused: str = ""
    """Why the model does not go into the form, a sentence."""
    deviates: bool = False
    """It is refused because it would not predict the same."""
    disk_full: bool = False
    """There was no room for it."""
    trace: str = ""
    """The trace of an unexpected error, for the server's log."""


class Gpu(Message):
    """A GPU that CUDA can use."""

    name: str
    memory_bytes: int
    visible: str
    """What CUDA_VISIBLE_DEVICES calls it."""


class Inventory(Message):
    """The GPUs in CUDA's order."""

    kind: Literal["inventory"] = "inventory"
    gpus: tuple[Gpu, ...]


AnyMessage = (
    Fork
    | Up
    | Forked
    | ForkRefused
    | Ping
    | Pong
    | Exited
    | Start
    | Ordered
    | Ready
    | Report
    | Heartbeat
    | Stepped
    | Trace
    | Logged
    | Span
    | End
    | PlanRequest
    | PlanReply
    | AnswerRequest
    | AnswerReply
    | Inspect
    | Inspected
    | ExportRequest
    | ExportReply
    | Inventory
)
