"""The picture of a range test, which a run has when there was one."""

import math
from pathlib import Path

import pytest
from tests.service.tracking.story import a_spec, an_evaluation

from dropnorm.results import AutoOutcome, RangeTestPoint
from dropnorm_service.tracking.mirror.pictures import draw

POINTS = tuple(
    RangeTestPoint(learning_rate=10.0**step, loss=loss)
    for step, loss in enumerate((2.0, 1.5, 1.0, 9e9, math.inf, math.nan), start=-3)
)


@pytest.mark.parametrize("rate", [None, 0.01])
def test_a_range_test_is_drawn_even_where_it_diverged(tmp_path: Path, rate: float | None) -> None:
    auto = AutoOutcome(learning_rate=rate, range_test=POINTS)
    draw(an_evaluation(a_spec()).model_copy(update={"auto": auto}), "job", tmp_path)
    assert (tmp_path / "range_test.png").read_bytes().startswith(b"\x89PNG")


def test_many_classes_have_no_picture_of_their_confusions(tmp_path: Path) -> None:
    found = an_evaluation(a_spec())
    draw(found, "job", tmp_path)
    (tmp_path / "confusion_matrix.png").unlink()
    many = tuple(each.model_copy(update={"predicted": ()}) for each in found.test.classes)
    test = found.test.model_copy(update={"classes": many})
    draw(found.model_copy(update={"test": test}), "job", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curves.png"]


@pytest.mark.parametrize("auto", [None, AutoOutcome(batch_size=64)])
def test_without_one_there_is_no_picture(tmp_path: Path, auto: AutoOutcome | None) -> None:
    draw(an_evaluation(a_spec()).model_copy(update={"auto": auto}), "job", tmp_path)
    assert not (tmp_path / "range_test.png").exists()
