"""A model that left the service, and the proof that it is still the same."""

from __future__ import annotations

from datetime import datetime

from dropnorm.results._base import ResultModel
from dropnorm.spec import ExportSettings


class ExportProof(ResultModel):
    """What came out when the exported file was opened again and run on the test split, beside the original."""

    samples: int
    """Inputs that both were run on: the test split; of a generator, noise."""
    largest_deviation: float
    """Largest absolute difference between an output of the exported model and the original's."""
    largest_output: float
    """Largest absolute output of the original."""
    accuracy: float | None = None
    """Accuracy of the exported model, 0 to 1; only in classification."""
    original_accuracy: float | None = None
    """Accuracy of the original, 0 to 1; only in classification."""
    batch_size: int
    """Inputs of each run that was timed."""
    threads: int
    """CPU threads that each had."""
    milliseconds: float
    """Median time of the exported model for such a batch on the CPU."""
    original_milliseconds: float
    """Median time of the original, in turns with the exported model."""


class ModelExport(ResultModel):
    """A model in a form that leaves the service."""

    name: str
    """Resource name, `trainingJobs/{id}/exports/{export}`."""
    settings: ExportSettings
    """In which form."""
    file_name: str
    """Name of the file, `model.onnx`."""
    size_bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 (hex) of the file."""
    folded_norms: int
    """Batch norms that are part of the layer before them now."""
    kept_norms: int
    """Batch norms that are layers of their own."""
    removed_dropouts: int
    """Dropout layers that were taken out."""
    proof: ExportProof
    """What came out when the file was opened again and run."""
    create_time: datetime
    """When it was made."""

    def __str__(self) -> str:
        proof = self.proof
        return (
            f"{self.name}: {self.size_bytes:,} bytes, {self.folded_norms} norms folded; off by "
            f"{proof.largest_deviation:.1e} at most on {proof.samples:,} samples; {proof.milliseconds:.2f} ms for "
            f"{proof.batch_size} against {proof.original_milliseconds:.2f} ms"
        )
