"""In which form a model leaves the service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Bool, Float, SpecModel

ExportFormat = Literal["safetensors", "pt2", "onnx"]


class ExportSettings(SpecModel):
    """In which form a model leaves the service, and how exact that has to be."""

    format: ExportFormat
    """`safetensors`: weights, with the spec in the file's metadata; `pt2`: a graph of torch.export, which opens with
    torch alone; `onnx`: a graph for ONNX Runtime and others."""
    fold_batch_norm: Bool = False
    """Fold each batch norm that directly follows a linear layer or a convolution into that layer, and take dropout
    out: the model predicts the same with fewer layers, and is not for training any more."""
    tolerance: Annotated[Float, Field(gt=0.0, le=1.0)] = 1e-4
    """Largest deviation of an output from the original's on the test split, as a share of the largest output,
    above 0 to 1; an export beyond it is refused."""
