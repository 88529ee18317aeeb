"""What counts as an option of a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tests.service.training.spec_options import held, wanted

from dropnorm.spec import layers
from dropnorm.spec._base import SpecModel


class Dropout(SpecModel):
    kind: Literal["own"] = "own"
    rate: float = 0.5
    how: Literal["often", "seldom"] = "often"


Part = Annotated[Dropout | layers.Dropout, Field(discriminator="kind")]


class Whole(SpecModel):
    parts: tuple[Part, ...]
    size: int | None = None
    names: tuple[str, ...] = Field(default_factory=tuple)


HERE = "test_spec_options"


def test_models_in_tuples_and_of_the_same_name_count_each() -> None:
    found = list(wanted(Whole))
    assert found[:4] == [
        f"{HERE}.Whole.parts={HERE}.Dropout",
        f"{HERE}.Dropout.rate",
        f"{HERE}.Dropout.how=seldom",
        f"{HERE}.Whole.parts=layers.Dropout",
    ]
    assert "layers.Dropout.rate" in found
    assert found[-2:] == [f"{HERE}.Whole.size", f"{HERE}.Whole.names"]


def test_what_is_left_at_its_default_is_not_held() -> None:
    plain, other = Whole(parts=(Dropout(),)), Whole(parts=(Dropout(how="seldom"),), size=3)
    assert set(wanted(Whole)) & set(held(plain)) == {f"{HERE}.Whole.parts={HERE}.Dropout"}
    assert set(wanted(Whole)) & set(held(other)) == {
        f"{HERE}.Whole.parts={HERE}.Dropout",
        f"{HERE}.Dropout.how=seldom",
        f"{HERE}.Whole.size",
    }
