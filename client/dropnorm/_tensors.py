"""torch's tensors without torch itself, which a client does not need."""

from __future__ import annotations

from typing import Any


def numpy_of(tensor: Any) -> Any:
    """A torch tensor as a numpy array, wherever it is; floats that numpy has no type for as float32, which holds them.

    Raises:
        RuntimeError, TypeError: it is no dense tensor of numbers with values.
    """
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()
