"""How targets are told, beside greedy decoding."""

from __future__ import annotations

from dropnorm.results._base import ResultModel


class BeamSearch(ResultModel):
    """The test split's targets told by a search that keeps several beginnings (Wu et al. 2016)."""

    width: int
    """Beginnings that it keeps."""
    sequence_accuracy: float
    """Share of targets told without a mistake, 0 to 1; beside `test.sequence_accuracy`, that of greedy decoding."""
