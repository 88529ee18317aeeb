"""torch's own transformer layers, given the weights of ours."""

from __future__ import annotations

import torch
from torch import nn

from dropnorm_service.training.network import Network

Layer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer


def copy_layer(model: Network, prefix: str, layer: Layer) -> None:
    """Give torch's layer the weights of the one that is called `prefix` in our model."""
    norm = "sum.branch.norm" if layer.norm_first else "norm"
    attentions = {"self_attn": "attention"}
    if isinstance(layer, nn.TransformerDecoderLayer):
        attentions["multihead_attn"] = "cross"
    branches = [*attentions.values(), "feed_forward"]
    names = {f"norm{index + 1}": f"{branch}.{norm}" for index, branch in enumerate(branches)}
    names["linear1"] = "feed_forward.sum.branch.inner.linear"
    names["linear2"] = "feed_forward.sum.branch.output"
    for theirs, ours in attentions.items():
        names[f"{theirs}.out_proj"] = f"{ours}.sum.branch.output"
    state = {
        f"{theirs}.{part}": model.get_parameter(f"{prefix}.{ours}.{part}").detach()
        for theirs, ours in names.items()
        for part in ("weight", "bias")
    }
    for theirs, ours in attentions.items():
        heads = f"{prefix}.{ours}.sum.branch.heads"
        linears = [f"{heads}.query", f"{heads}.key", f"{heads}.value"]
        if ours == "cross":
            linears[1:] = [f"{name}.linear" for name in linears[1:]]
        for part in ("weight", "bias"):
            rows = [model.get_parameter(f"{linear}.{part}").detach() for linear in linears]
            state[f"{theirs}.in_proj_{part}"] = torch.cat(rows)
    layer.load_state_dict(state)


def copy_norm(model: Network, name: str, norm: nn.LayerNorm) -> None:
    """Give torch's norm the weights of the one of that name in our model."""
    norm.load_state_dict(model.get_submodule(name).state_dict())
