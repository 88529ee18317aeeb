"""A spec as MLflow parameters: one dotted name per field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from dropnorm.spec import SpecModel, TrainingSpec

_MAX_VALUE_LENGTH = 6000
_INPUT_ONLY = frozenset(
    {"keep_prob"}
)  # another way to write `rate`, which a resolved spec always has


def parameters(spec: TrainingSpec) -> dict[str, str]:
    """Every field of a resolved spec: `regularization.dropout.rate` -> `0.2`, `architecture.layers.0.kind` -> `conv`.

    The variant of a union is its `kind`. Values are written as in YAML. An absent part is `none`
    (`regularization.dropout`), an absent value `default`, which stands for what its documentation says.
    """
    return {name: _cut(value) for name, value in _fields("", spec)}


def _fields(prefix: str, model: SpecModel) -> Iterator[tuple[str, str]]:
    for name, value in model:
        if name in _INPUT_ONLY:
            continue
        path = f"{prefix}.{name}" if prefix else name
        if value is None:
            annotation = type(model).model_fields[name].annotation
            yield path, "none" if _is_part(annotation) else "default"
        else:
            yield from _value(path, value)


def _value(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, SpecModel):
        yield from _fields(path, value)
    elif isinstance(value, tuple) and any(isinstance(item, SpecModel) for item in value):
        for index, item in enumerate(value):
            yield from _value(f"{path}.{index}", item)
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _is_part(annotation: Any) -> bool:
    return any(
        isinstance(option, type) and issubclass(option, BaseModel)
        for option in get_args(annotation)
    )


def _cut(value: str) -> str:
    return value if len(value) <= _MAX_VALUE_LENGTH else value[: _MAX_VALUE_LENGTH - 1] + "…"
