"""Targets told by beam search."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropnorm.results import BeamSearch
from dropnorm_service.training.data import Split, SplitData
from dropnorm_service.training.decoding import EncoderDecoder, beam_search
from dropnorm_service.training.inference import Inference


def beams(inference: Inference, data: SplitData, *, width: int) -> BeamSearch:
    """How many targets of the test split a beam search of that width tells without a mistake."""

    def measure(network: nn.Module, batch: Split) -> Tensor:
        assert isinstance(network, EncoderDecoder)  # nothing else makes a sequence of another
        # A search holds `width` beginnings of each sample: together as many as a batch has samples elsewhere. The
        # searches of a batch take minutes, so what is done between batches is done between their steps.
        size = max(1, len(batch.x) // width)
        right = [
            (beam_search(network, x, width, inference.between_batches) == y).all(dim=1)
            for x, y in zip(batch.x.split(size), batch.y.split(size), strict=True)
        ]
        return torch.cat(right).sum(dtype=torch.float64)

    share = inference.total(data.test, measure).item() / len(data.test)
    return BeamSearch(width=width, sequence_accuracy=share)
