"""What every architecture takes alike: dropout and a norm, their order, and limits on weights and on certainty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dropnorm.spec._base import Float, Positive, Problem, SpecModel
from dropnorm.spec.dropout import Dropout
from dropnorm.spec.norms import NORMS, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Norm, RMSNorm


class Regularization(SpecModel):
    """Dropout and a norm, either, both or none, their order where both act, and limits on weights and on certainty.

    There is one norm at most: batch norm is compared with another by changing its name. Weight decay is the
    optimizer's.
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
    max_norm: Positive | None = None
    """Largest 2-norm of the weights that come into one unit of a linear or one channel of a convolutional layer, above
    0; after each step what is longer is scaled back to it (Srivastava et al. 2014, section 5.1, where 3 to 4 is
    common); biases and embeddings are free, and so are output layers that share the weights of an embedding; absent:
    no limit."""
    l1: Positive | None = None
    """L1 penalty: so many times the sum of the absolute weights, biases and norms left out, is minimised with the loss,
    above 0; what is recorded is the loss without it; absent: none."""
    label_smoothing: Annotated[Float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of the target's probability that is spread evenly over all classes, above 0 to below 1; 0.1 is common
    (Szegedy et al. 2016, section 7). The training loss is that of the smoothed targets, evaluations take the true
    ones; where classes or tokens are told; absent: none."""

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
