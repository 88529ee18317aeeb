"""Every layer and optimizer on a GPU: the numbers of the CPU, and deterministic."""

import copy
from typing import get_args

import pytest
import torch
from tests.service.training.shorthand import LAYERS

from dropnorm import spec as dn
from dropnorm_service.training import build_optimizer
from dropnorm_service.training.device import arithmetic
from dropnorm_service.training.layers import BLUEPRINTS, Shape
from dropnorm_service.training.layers.ghosts import GhostBatchNorm

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_layer_computes_as_on_the_cpu(layer: dn.Layer, shape: Shape) -> None:
    torch.manual_seed(0)
    on_cpu = BLUEPRINTS[layer.kind](layer, shape).make()
    if layer.kind == "dropout" or getattr(layer, "dropconnect_rate", None):
        on_cpu.eval()  # each device draws random numbers of its own
    on_gpu = copy.deepcopy(on_cpu).cuda()
    x = torch.randn(8, *shape)
    results = []
    with arithmetic(dn.Compute(deterministic=True)):
        for module, inputs in ((on_cpu, x.clone()), (on_gpu, x.cuda())):
            inputs.requires_grad_()
            output = module(inputs)
            output.square().sum().backward()
            assert inputs.grad is not None
            results.append((output.detach().cpu(), inputs.grad.cpu()))
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-2)  # a GPU may convolve in TF32


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("size", [None, 4, 5])
def test_ghost_batches_never_wait_for_the_device(momentum: float | None, size: int | None) -> None:
    on_cpu = GhostBatchNorm(6, size, momentum=momentum)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    x = torch.randn(16, 6, 3, 3)
    there = x.cuda().contiguous(memory_format=torch.channels_last)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y = on_gpu(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y.cpu(), on_cpu(x), rtol=1e-4, atol=1e-4)
    for name, buffer in on_gpu.named_buffers():
        torch.testing.assert_close(buffer.cpu(), on_cpu.get_buffer(name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer", [layer for layer, _ in LAYERS if layer.kind == "dropout"], ids=str
)
def test_dropout_drops_its_share(layer: dn.Layer) -> None:
    module = BLUEPRINTS["dropout"](layer, (1000,)).make().cuda()
    dropped = module(torch.ones(1000, 1000, device="cuda")) == 0.0
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(
    "settings", [kind() for kind in get_args(get_args(dn.Optimizer)[0])], ids=str
)
def test_optimizer_steps_as_on_the_cpu(settings: dn.Optimizer) -> None:
    moved = []
    for device in map(torch.device, ("cpu", "cuda")):
        layer = torch.nn.Linear(10, 10, device=device)
        for parameter in layer.parameters():
            parameter.data.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        optimizer = build_optimizer(dn.Optimization(optimizer=settings), layer, device)
        for _ in range(5):
            optimizer.zero_grad()
            (layer.weight.square().sum() + layer.bias.square().sum()).backward()
            optimizer.step()
        moved.append(layer.weight.detach().cpu())
    torch.testing.assert_close(*moved)
