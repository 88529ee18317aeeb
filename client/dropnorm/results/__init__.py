"""What comes back from the service: jobs, their journal, their evaluation, plans, workers. Frozen, typed, no I/O."""

from dropnorm.results.auto import AutoOutcome, RangeTestPoint
from dropnorm.results.dataset import Dataset
from dropnorm.results.decoding import BeamSearch
from dropnorm.results.diagnostics import LayerReport, Robustness, VarianceShift
from dropnorm.results.evaluation import (
    ClassMetrics,
    DatasetSummary,
    EpochMetrics,
    Evaluation,
    Metrics,
    NormShift,
    Recalibration,
    SequenceSummary,
    Task,
    TrainingCost,
)
from dropnorm.results.events import (
    CheckpointWritten,
    DatasetLoaded,
    EpochCompleted,
    Evaluated,
    Event,
    LogLine,
    Payload,
    Progressed,
    SharingChanged,
    StateChanged,
    SystemMetrics,
    Tracked,
    Warned,
)
from dropnorm.results.export import ExportProof, ModelExport
from dropnorm.results.job import JobError, Phase, Progress, State, TrainingJob
from dropnorm.results.plan import (
    Lint,
    MemoryEstimate,
    Plan,
    PlannedBatches,
    PlannedLayer,
    Slot,
    Worker,
)
from dropnorm.results.prediction import Prediction
from dropnorm.results.registry import Model, ModelVersion
from dropnorm.results.uncertainty import Calibration, MCDropout, TemperatureScaling

__all__ = [
    "AutoOutcome",
    "BeamSearch",
    "Calibration",
    "CheckpointWritten",
    "ClassMetrics",
    "Dataset",
    "DatasetLoaded",
    "DatasetSummary",
    "EpochCompleted",
    "EpochMetrics",
    "Evaluated",
    "Evaluation",
    "Event",
    "ExportProof",
    "JobError",
    "LayerReport",
    "Lint",
    "LogLine",
    "MCDropout",
    "MemoryEstimate",
    "Metrics",
    "Model",
    "ModelExport",
    "ModelVersion",
    "NormShift",
    "Payload",
    "Phase",
    "Plan",
    "PlannedBatches",
    "PlannedLayer",
    "Prediction",
    "Progress",
    "Progressed",
    "RangeTestPoint",
    "Recalibration",
    "Robustness",
    "SequenceSummary",
    "SharingChanged",
    "Slot",
    "State",
    "StateChanged",
    "SystemMetrics",
    "Task",
    "TemperatureScaling",
    "Tracked",
    "TrainingCost",
    "TrainingJob",
    "VarianceShift",
    "Warned",
    "Worker",
]
