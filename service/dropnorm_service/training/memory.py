"""How much memory a training step takes, measured on the meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dropnorm.results import DatasetSummary, MemoryEstimate
from dropnorm.spec import Optimization, TrainingSpec
from dropnorm_service.training.design import Design
from dropnorm_service.training.kept import kept_for_backward
from dropnorm_service.training.model import model_of
from dropnorm_service.training.optimizers import build_optimizer
from dropnorm_service.training.stand_ins import let_stand_in

_FLOAT = 4
_INTEGER = 8


class StepMemory:
    """Estimated memory of a training step, by the samples that are computed at once.

    Weights and buffers count twice: the best epoch's are kept beside those in training; and a third
    time where they are averaged. Activations are
    what autograd keeps of one forward pass; in 16-bit arithmetic they take half, and the weights' 16-bit
    copies come on top. The device's own overhead (context, kernels' work space, fragmentation) is left out.
    Attention keeps a value for each pair of tokens only where it drops some of its weights on a CPU, or on
    whatever device there is: kernels fuse the rest.
    """

    def __init__(self, training: TrainingSpec, paper: Design, dataset: DatasetSummary) -> None:
        self._paper, self._wide = paper, training.compute.precision == "float32"
        compute = training.compute
        self._attention = _FusedAttention(
            with_dropout=compute.device == "cuda" or bool(compute.gpus)
        )
        with torch.device("meta"):
            self._network = model_of(paper, training.initialization)
        self._weights = sum(map(_bytes, self._network.parameters()))
        buffers = sum(map(_bytes, self._network.buffers()))
        samples = dataset.train_samples + dataset.validation_samples + dataset.test_samples
        copies = 2 if training.optimization.averaging is None else 3
        self._fixed = {
            "parameters": copies * (self._weights + buffers),
            "gradients": self._weights,
            "optimizer": optimizer_state(
                training.optimization, self._network, self._network.output_layers
            ),
            "data": samples * _bytes_of_sample(dataset),
        }
        let_stand_in(self._network, paper)

    def of(self, samples: int) -> MemoryEstimate:
        """The estimate for parts of so many samples."""
        with torch.device("meta"), self._attention:
            activations = kept_for_backward(self._network, *self._paper.example(samples))
        if not self._wide:
            activations = activations // 2 + self._weights // 2
        parts = {**self._fixed, "activations": activations}
        return MemoryEstimate(**parts, total=sum(parts.values()))


class _FusedAttention(TorchFunctionMode):
    """On the meta device attention is computed plainly; inside this block, as the kernels of devices do.

    Args:
        with_dropout: also where weights are dropped, which a CPU's kernel cannot.
    """

    def __init__(self, *, with_dropout: bool) -> None:
        super().__init__()
        self._with_dropout = with_dropout

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        if kwargs["dropout_p"] and not self._with_dropout:
            return func(*args, **kwargs)
        seen = kwargs["attn_mask"]
        found, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *args,
            is_causal=kwargs["is_causal"],
            attn_mask=None if seen is None else seen.to(args[0].dtype),
        )
        return found


def _bytes_of_sample(dataset: DatasetSummary) -> int:
    """Bytes of a sample and its target on the device."""
    tokens = dataset.sequences
    inputs = (_FLOAT if tokens is None else _INTEGER) * prod(dataset.input_shape)
    if tokens is not None and tokens.target_length:
        return inputs + _INTEGER * tokens.target_length
    return inputs + (_INTEGER if dataset.task == "classification" else _FLOAT * dataset.outputs)


def optimizer_state(
    optimization: Optimization, network: nn.Module, output_layers: Collection[str] = ()
) -> int:
    """Bytes that an optimizer keeps of a network on the meta device, where a step costs nothing but time.

    What it keeps of a parameter depends on its group and its shape, so that one of those alike stands for all.
    """
    optimizer = build_optimizer(
        optimization, network, torch.device("meta"), output_layers=output_layers
    )
    alike: dict[tuple[int, torch.Size], list[nn.Parameter]] = {}
    for index, group in enumerate(optimizer.param_groups):
        for parameter in group["params"]:
            alike.setdefault((index, parameter.shape), []).append(parameter)
    for first, *_ in alike.values():
        first.grad = torch.empty_like(first)
    optimizer.step()
    return sum(
        len(same) * _bytes(value)
        for same in alike.values()
        for value in optimizer.state[same[0]].values()
        if isinstance(value, Tensor) and value.is_meta
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
