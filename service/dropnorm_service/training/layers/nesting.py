"""Modules by dotted names."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from torch import Tensor, nn

from dropnorm_service.training.layers.context import Context, Contextual, pass_on


class Series(nn.Sequential, Contextual):
    """Modules one after the other, each with the context if it takes one."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        for module in self:
            x = pass_on(module, x, context)
        return x


def nest(modules: Iterable[tuple[str, nn.Module]]) -> Series:
    """Modules that run one after the other, as `Series` in each other after their names.

    `hidden.0.linear, hidden.0.activation, output.linear` becomes `hidden` and `output`, each with
    what its name begins. Names that begin alike stand together.
    """
    root = Series()
    parts = ((*name.partition("."), module) for name, module in modules)
    for head, group in groupby(parts, key=lambda part: part[0]):
        members = [(rest, module) for _, _, rest, module in group]
        alone = len(members) == 1 and not members[0][0]
        root.add_module(head, members[0][1] if alone else nest(members))
    return root
