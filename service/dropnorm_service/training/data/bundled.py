"""The data sets that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dropnorm_service.training.data.info import DatasetInfo, PinnedFile


@dataclass(frozen=True)
class Bundled:
    """A loader of `sklearn.datasets`, by name.

    Attributes:
        loader: name of the function.
        scaled: whether `load_diabetes` scales its features; the others have no such argument.
    """

    loader: str
    scaled: bool | None = None
    files: tuple[PinnedFile, ...] = ()

    def find(self, folder: Path) -> Sequence[Path]:
        """Nothing: the data is inside the library."""
        return ()

    def parse(self, paths: Sequence[Path], info: DatasetInfo) -> dict[str, torch.Tensor]:
        """Load it; the only place that pays a second for importing scikit-learn."""
        import sklearn.datasets

        options: dict[str, Any] = {} if self.scaled is None else {"scaled": self.scaled}
        x, y = getattr(sklearn.datasets, self.loader)(return_X_y=True, **options)
        inputs = torch.from_numpy(x).to(torch.float32).reshape(len(x), *info.input_shape)
        if info.task == "regression":
            return {"x": inputs, "y": torch.from_numpy(y).to(torch.float32).reshape(len(y), -1)}
        return {"x": inputs, "y": torch.from_numpy(y).to(torch.int64)}
