"""The contract explains everything, and gives the models' defaults and limits."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo
from tests.contract import PAIRS, behaviors, comments, each_spec_pair, fields_of, kind_of

from dropnorm.spec import SpecModel

Accepts = Callable[[Any], bool]

EMPTY_HAS_A_MEANING = {"dropnorm.v1.Mlp.hidden"}
"""Required in the models; in protobuf an empty list cannot be told from an absent one."""


@each_spec_pair
def test_what_is_required_says_so(model: type[BaseModel], descriptor: Descriptor) -> None:
    for name, info in fields_of(model).items():
        field = descriptor.fields_by_name[name]
        marked = field_behavior_pb2.REQUIRED in behaviors(field)
        required = info.is_required() and field.full_name not in EMPTY_HAS_A_MEANING

        assert marked == required, field.full_name
        assert comments()[field.full_name].endswith("Required.") == required, field.full_name


def test_everything_is_explained_in_sentences():
    assert len(comments()) > 300
    assert [name for name, text in comments().items() if not text.endswith((".", ":"))] == []


@each_spec_pair
def test_comments_give_the_models_defaults(model: type[BaseModel], descriptor: Descriptor) -> None:
    for name, info in fields_of(model).items():
        field = descriptor.fields_by_name[name]
        comment = comments()[field.full_name]
        _, found, text = comment.rpartition("Default: ")
        assert bool(found) != info.is_required(), field.full_name
        if found:
            assert gives_default(text.removesuffix("."), info.get_default(), field), field.full_name


def gives_default(text: str, default: Any, field: FieldDescriptor) -> bool:
    if default is None or default == {}:
        return bool(text)  # in words: "the kernel size", "none"
    if isinstance(default, bool):
        return text == str(default).lower()
    if isinstance(default, int | float):
        return float(text.replace(",", "")) == default
    if isinstance(default, tuple):
        return [int(item.replace(",", "")) for item in text.split(", ")] == list(default)
    if isinstance(default, BaseModel):
        assert default == type(default)(), field.full_name
        return text.split()[0] == getattr(default, "kind", "its")
    if field.enum_type is not None:
        return text in field.enum_type.values_by_name and text.endswith(f"_{default.upper()}")
    return text == str(default)


NUMBER = r"-?[\d.,e^-]+(?: - 1)?"
RANGE = re.compile(rf"(?P<above>above )?(?P<low>{NUMBER}) to (?P<below>below )?(?P<high>{NUMBER})")


@each_spec_pair
def test_comments_give_the_models_limits(model: type[BaseModel], descriptor: Descriptor) -> None:
    for name, info in fields_of(model).items():
        field = descriptor.fields_by_name[name]
        core, container, _ = kind_of(info.annotation)
        limits = re.search(r"Limits: (.+?)\.(?: |$)", comments()[field.full_name])
        is_number = core in (int, float)
        assert (limits is not None) >= (is_number or container is not None or core is str), (
            field.full_name
        )
        if limits is None:
            continue
        accepts = acceptance(info)
        if container is tuple:
            check_length(limits[1], core, accepts)
        if is_number:
            check_range(limits[1], core, of_each(accepts, limits[1]) if container else accepts)


def acceptance(info: FieldInfo) -> Accepts:
    """Whether a value alone passes the field's own limits."""
    fields: dict[str, Any] = {"value": (info.annotation, info)}
    model = create_model("Alone", __base__=SpecModel, **fields)

    def accepts(value: Any) -> bool:
        try:
            model.model_validate({"value": value})
        except ValidationError:
            return False
        return True

    return accepts


def of_each(accepts: Accepts, limits: str) -> Accepts:
    """Whether a list of as many as there may be passes."""
    count = int(limits.split()[2])
    return lambda value: accepts([value] * count)


def check_length(limits: str, core: Any, accepts: Accepts) -> None:
    most = re.match(r"at most (\d+) items", limits)
    assert most, limits
    item = 1 if core is int else {"kind": "flatten"}
    assert accepts([item] * int(most[1]))
    assert not accepts([item] * (int(most[1]) + 1))


def check_range(limits: str, core: Any, accepts: Accepts) -> None:
    if limits == "finite":
        assert accepts(sys.float_info.max)
        assert not accepts(math.inf)
        return
    found = RANGE.search(limits)
    assert found, limits
    low, high = number(found["low"], core), number(found["high"], core)
    under = low - 1 if core is int else math.nextafter(low, -math.inf)
    over = high + 1 if core is int else math.nextafter(high, math.inf)
    assert accepts(low) == (not found["above"]), limits
    assert accepts(high) == (not found["below"]), limits
    assert not accepts(under), limits
    assert not accepts(over), limits
    assert accepts((low + high) // 2 if core is int else (low + high) / 2), limits


def number(text: str, core: Any) -> Any:
    """`1,024`, `1e-5`, `2^63 - 1`."""
    text, _, less = text.replace(",", "").partition(" - ")
    base, _, exponent = text.partition("^")
    return core(base) ** int(exponent or 1) - int(less or 0)


def test_patterns_in_comments_are_the_models():
    for model, descriptor in PAIRS:
        for name, info in fields_of(model).items():
            for part in info.metadata:
                if pattern := getattr(part, "pattern", None):
                    comment = comments()[descriptor.fields_by_name[name].full_name]
                    assert (
                        f"`{pattern.strip('^$')}`" in comment or "printable characters" in comment
                    )
