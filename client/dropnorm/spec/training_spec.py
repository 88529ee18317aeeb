"""TrainingSpec: the whole description of one training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from dropnorm.spec import _files
from dropnorm.spec._base import Int, InvalidSpecError, SpecModel, problems_of
from dropnorm.spec.architecture import Architecture
from dropnorm.spec.compute import Compute
from dropnorm.spec.data import Data
from dropnorm.spec.evaluation import EvaluationSettings
from dropnorm.spec.initialization import Initialization
from dropnorm.spec.optimization import Optimization
from dropnorm.spec.regularization import Regularization


class TrainingSpec(SpecModel):
    """What to train: architecture, regularization, initialization, optimization, data, evaluation, compute and seed.

    Frozen and hashable by `digest`. Only `architecture` and `data` are required.
    """

    architecture: Architecture
    """The network."""
    regularization: Regularization = Regularization()
    """Dropout and batch norm."""
    initialization: Initialization = Initialization()
    """How weights start."""
    optimization: Optimization = Optimization()
    """How weights move, and for how long."""
    data: Data
    """What is learned from."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured."""
    compute: Compute = Compute()
    """Where and how exactly."""
    seed: Annotated[Int, Field(ge=0, lt=2**63)] = 0
    """Seed of initialisation, shuffling, dropout and, unless data.split_seed is given, the splits; 0 to 2^63 - 1."""

    def digest(self) -> str:
        """SHA-256 (hex) of the resolved spec in canonical JSON: equal specs, equal digests, defaults written or not.

        What is absent is left out, so that a later version, with more that may be absent, gives the same.
        """
        resolved = self.model_dump(mode="json", exclude_none=True)
        canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def parse(cls, values: Any) -> TrainingSpec:
        """A spec from plain data, as YAML or JSON gives it.

        Raises:
            InvalidSpecError: with every wrong field.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidSpecError(problems_of(error)) from error

    @classmethod
    def from_file(cls, path: str | Path) -> TrainingSpec:
        """A spec from a YAML or JSON file.

        Raises:
            InvalidSpecError: with every wrong field, or with the place where the text is no YAML or JSON.
            OSError: the file cannot be read; FileNotFoundError when there is none.
            ImportError: the file is YAML, and PyYAML is not installed; dropnorm[cli] brings it.
        """
        path = Path(path)
        try:
            return cls.parse(_files.read(path))
        except RecursionError as error:
            raise _files.too_deep(path) from error
