"""What autograd keeps of a forward pass for the backward pass, by the storages that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Kept:
    """Tensors that were kept, one for each storage: what several operations keep counts once.

    Args:
        besides: tensors whose storages are left out.
    """

    def __init__(self, besides: Iterable[Tensor] = ()) -> None:
        self._besides = {_storage(tensor) for tensor in besides}
        self._tensors: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of what is kept in this block, of which a block around it then sees nothing."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def __contains__(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._tensors

    def bytes(self, besides: Iterable[Tensor] = ()) -> int:
        """Bytes of the storages, of some more tensors left out."""
        out = {_storage(tensor) for tensor in besides}
        return sum(
            tensor.untyped_storage().nbytes()
            for storage, tensor in self._tensors.items()
            if storage not in out
        )

    def _keep(self, tensor: Tensor) -> Tensor:
        if (storage := _storage(tensor)) not in self._besides:
            self._tensors[storage] = tensor
        return tensor


def kept_for_backward(network: nn.Module, *inputs: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass in training mode over a batch.

    The parameters themselves are left out; what several operations keep counts once. The network and the
    batch must be on the meta device.
    """
    kept = Kept(besides=network.parameters())
    with kept.watching():
        network.train()(*inputs)
    return kept.bytes()


def _storage(tensor: Tensor) -> int:
    # On the meta device every data pointer is 0; the storage object is the only identity.
    return int(tensor.untyped_storage()._cdata)
