"""What every architecture takes alike: dropout and a norm, and their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dropnorm.spec._base import Problem, SpecModel
from dropnorm.spec.dropout import Dropout
from dropnorm.spec.norms import NORMS, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Norm, RMSNorm


class Regularization(SpecModel):
    """Dropout and a norm, either, both or none, and their order where both act.

    There is one norm at most: batch norm is compared with another by changing its name.
    """

    dropout: Dropout | None = None
    """Dropout; absent: none."""
    batch_norm: BatchNorm | None = None
    """Batch normalisation; absent: none."""
    layer_norm: LayerNorm | None = None
    """Layer normalisation; absent: none."""
    group_norm: GroupNorm | None = None
    """Group normalisation; absent: none."""
    instance_norm: InstanceNorm | None = None
    """Instance normalisation, of images alone; absent: none."""
    rms_norm: RMSNorm | None = None
    """Root-mean-square normalisation; absent: none."""
    order: Literal["norm_then_dropout", "dropout_then_norm"] = "norm_then_dropout"
    """Where both act in one place. `norm_then_dropout`: dropout comes last, after activation and norm.
    `dropout_then_norm`: dropout stands directly before the norm, which shifts the variance that a batch norm sees
    between training and evaluation (Li et al. 2018)."""

    @property
    def norm(self) -> tuple[str, Norm] | None:
        """The norm with the name of its field; None: there is none."""
        given = ((name, getattr(self, name)) for name in NORMS)
        return next(((name, norm) for name, norm in given if norm is not None), None)

    def without_norm(self) -> Regularization:
        """The same without its norm."""
        return self.model_copy(update=dict.fromkeys(NORMS))

    def _rules(self) -> Iterator[Problem]:
        given = [name for name in NORMS if getattr(self, name) is not None]
        for other in given[1:]:
            yield Problem(other, f"there is {given[0]} already; give one norm at most")
