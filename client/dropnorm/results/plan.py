"""What a spec comes to, before anything is spent."""

from __future__ import annotations

from typing import Literal

from dropnorm.results import _format
from dropnorm.results._base import ResultModel
from dropnorm.results.evaluation import DatasetSummary
from dropnorm.spec import TrainingSpec


class PlannedLayer(ResultModel):
    """One row of the layer table."""

    name: str
    """Name of the module in the built model, `hidden.0.linear`."""
    type: str
    """Kind of layer, with its settings: `Linear(64 -> 128)`."""
    field: str = ""
    """Path of the spec's field that asked for it; empty: the data did."""
    output_shape: tuple[int, ...]
    """Shape of one sample's output."""
    parameters: int
    """Learnable parameters."""
    flops: int
    """Floating-point operations of one sample's forward pass; a multiply-add counts as two."""


class PlannedBatches(ResultModel):
    """Epochs that are cut into batches alike."""

    first_epoch: int
    """The first of these epochs, from 1."""
    batch_size: int
    """Samples in a full batch."""
    steps_per_epoch: int
    """Optimizer steps per epoch."""
    last_batch_size: int
    """Samples in the last batch of an epoch."""


class MemoryEstimate(ResultModel):
    """Estimated memory of a training step in bytes."""

    parameters: int
    """Weights and buffers."""
    gradients: int
    """Gradients."""
    optimizer: int
    """Optimizer state."""
    activations: int
    """Activations kept for the backward pass of one batch."""
    data: int
    """The data set on the device."""
    total: int
    """All of these."""


class Lint(ResultModel):
    """Something that will train, and is probably not what is wished."""

    code: str
    """Stable code, UPPER_SNAKE: DROPOUT_BEFORE_BATCH_NORM, BIAS_BEFORE_BATCH_NORM, DROPOUT_ON_LOGITS and so on."""
    field: str
    """Path of the field it is about, within the spec."""
    message: str
    """What, why, and what to do instead."""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.code}: {where}{self.message}"


class Plan(ResultModel):
    """The compiler's view of a spec."""

    spec: TrainingSpec
    """The spec with every default filled in."""
    spec_digest: str
    """SHA-256 (hex) of the resolved spec."""
    dataset: DatasetSummary
    """The data and the sizes of its splits."""
    layers: tuple[PlannedLayer, ...]
    """The layers in order of execution."""
    parameters: int
    """Learnable parameters in all."""
    forward_flops: int
    """Floating-point operations of one sample's forward pass."""
    steps_per_epoch: int
    """Optimizer steps of the first epoch."""
    total_steps: int
    """Optimizer steps in all."""
    last_batch_size: int
    """Samples in the last batch of the first epoch."""
    batches: tuple[PlannedBatches, ...] = ()
    """How epochs are cut into batches, in order; more than one with a batch-size schedule."""
    memory: MemoryEstimate
    """Estimated memory."""
    lints: tuple[Lint, ...] = ()
    """What is probably not wished."""

    def __repr__(self) -> str:
        rows = [_format.layer_row(layer) for layer in self.layers]
        table = _format.text_table(_format.LAYER_HEADER, rows, left=3)
        return "\n".join([*table, *_format.plan_notes(self), *map(str, self.lints)])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = [_format.layer_row(layer) for layer in self.layers]
        notes = [*_format.plan_notes(self), *map(str, self.lints)]
        return _format.html_table(
            f"Plan for {self.dataset.name}", _format.LAYER_HEADER, rows, notes, left=3
        )


class Slot(ResultModel):
    """What one worker occupies: a GPU, or a share of the CPU."""

    id: str
    """Name of the slot, `cpu-0` or `cuda-0`."""
    device: Literal["cpu", "cuda"]
    """Kind of device."""
    device_name: str
    """Model of the processor or GPU."""
    threads: int
    """CPU threads the slot's worker may use."""
    memory_bytes: int
    """Memory of the GPU, or what a job on the CPU may use of the machine's."""
    training_job: str = ""
    """Resource name of the job it runs; empty: it is free."""
    attempt: int = 0
    """Attempt it runs; 0 when free."""


class Worker(ResultModel):
    """A machine that runs jobs."""

    name: str
    """Resource name, `workers/{id}`."""
    host: str
    """Name of the machine."""
    slots: tuple[Slot, ...]
    """Its slots."""
    version: str = ""
    """Version of dropnorm that it runs."""
