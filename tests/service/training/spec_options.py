"""All that a spec can ask for, read from its models, so that nothing new is left out unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dropnorm.spec._base import SpecModel


def wanted(root: type[SpecModel]) -> dict[str, None]:
    """The options of a model and of all that it is made of, in order.

    `layers.Conv.padding` is some other value than the default, `layers.Pool.mode=average` a choice that is none, and
    `layers.Residual.layers=layers.Conv` a model in a field. A module goes with a class, whose name alone may be
    another's too.
    """
    found: dict[str, None] = {}
    known: set[type[SpecModel]] = set()
    _collect(root, found, known)
    return found


def _collect(kind: type[SpecModel], found: dict[str, None], known: set[type[SpecModel]]) -> None:
    if kind in known:
        return
    known.add(kind)
    for name, field in kind.model_fields.items():
        if name == "kind":
            continue
        parts = list(_parts(field.annotation))
        models = [each for each in parts if isinstance(each, type) and issubclass(each, SpecModel)]
        choices = [
            choice for each in parts if get_origin(each) is Literal for choice in get_args(each)
        ]
        for model in models:
            found[f"{_own(kind, name)}={_name(model)}"] = None
            _collect(model, found, known)
        for choice in choices:
            if choice != _default(field):
                found[f"{_own(kind, name)}={choice}"] = None
        if not models and not choices:
            found[_own(kind, name)] = None


def held(model: SpecModel) -> Iterator[str]:
    """What a spec asks for, likewise."""
    for name, value in model:
        own = _own(type(model), name)
        if value != _default(type(model).model_fields[name]):
            yield own
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, SpecModel):
                yield f"{own}={_name(type(each))}"
                yield from held(each)
            else:
                yield f"{own}={each}"


def _parts(annotation: Any) -> Iterator[Any]:
    """The types that a field's value, or a value within it, may have."""
    if get_origin(annotation) in (Union, UnionType, tuple):
        for part in get_args(annotation):
            yield from _parts(part)
    elif get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    else:
        yield annotation


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _name(kind: type[SpecModel]) -> str:
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def _own(kind: type[SpecModel], field: str) -> str:
    return f"{_name(kind)}.{field}"
