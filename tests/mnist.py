"""Where the real MNIST is, for the tests that want it."""

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[1] / "../shared/data/mnist"

MNIST = Path(os.environ.get("DROPNORM_TEST_MNIST", _DEFAULT)).resolve()
"""Folder of the four original files."""

needs_mnist = pytest.mark.skipif(
    not MNIST.is_dir(),
    reason="MNIST's original files are not here; name their folder by DROPNORM_TEST_MNIST",
)
