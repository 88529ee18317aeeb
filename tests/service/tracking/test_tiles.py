"""Pictures of a training, side by side in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from dropnorm_service.tracking.mirror.pictures import tiles


def test_images_stand_in_rows_of_eight(tmp_path: Path) -> None:
    images = np.arange(10 * 4 * 6 * 3, dtype=np.uint8).reshape(10, 4, 6, 3)
    tiles(images, tmp_path / "sheet.png")

    factor = 96 // 6
    sheet = imread(tmp_path / "sheet.png")[::factor, ::factor, :3]
    assert sheet.shape == (2 * (4 + 2), 8 * (6 + 2), 3)
    for index, image in enumerate(images):
        top, left = 1 + index // 8 * 6, 1 + index % 8 * 8
        found = np.round(sheet[top : top + 4, left : left + 6] * 255)
        np.testing.assert_array_equal(found, image)
    assert (sheet[6:, 2 * 8 :] == 1.0).all()  # what is left of the last row is white
