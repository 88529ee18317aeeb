"""What results are made of: frozen models that outlive versions (a newer service may send more than they know)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResultModel(BaseModel):
    """A frozen part of a result. Numbers may be NaN or infinite: a diverged loss is a fact worth keeping."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
    )
