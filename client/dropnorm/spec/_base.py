"""What every part of a TrainingSpec is made of: frozen models, strict numbers, rules that name their fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dropnorm.spec._schema import SpecJsonSchema

# What may stand in a path; a map's key may be any text, of any length.
_NAME = re.compile(r"[\w-]{1,63}\Z", re.ASCII)


class Problem(NamedTuple):
    """One thing that is wrong with a spec.

    Attributes:
        field: dotted path of the field, as in the protobuf contract: `architecture.mlp.hidden[0]`.
        message: what is wrong and what to do, one sentence.
    """

    field: str
    message: str

    def below(self, prefix: str) -> Problem:
        """The same problem, of a part that stands at `prefix` in a whole."""
        return Problem(join_path(prefix, self.field), self.message)


class InvalidSpecError(ValueError):
    """A spec breaks one or more rules; `problems` names every field."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{field or 'spec'}: {text}" for field, text in self.problems))


class SpecModel(BaseModel):
    """A frozen part of a TrainingSpec. Unknown fields are refused, defaults are visible.

    A subclass states rules over several of its fields in `_rules`; each names the field it blames.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=False,
    )

    @classmethod
    def model_json_schema(cls, *arguments: Any, **options: Any) -> dict[str, Any]:
        """The JSON Schema of this part; arguments as pydantic has them."""
        return super().model_json_schema(
            *arguments, **{"schema_generator": SpecJsonSchema, **options}
        )

    def _rules(self) -> Iterator[Problem]:
        yield from ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        problems = tuple(self._rules())
        if problems:
            raise PydanticCustomError(
                "rule",
                "{text}",  # the text goes through the context so that braces in it stay literal
                {"text": str(InvalidSpecError(problems)), "problems": problems},
            )
        return self


def format_path(parts: Sequence[str | int]) -> str:
    """`("layers", 2, "conv")` -> `layers[2].conv`."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def problems_of(error: ValidationError) -> list[Problem]:
    """Every problem in a pydantic error, with dotted paths; rules over several fields keep theirs."""
    problems = []
    for line in error.errors(include_url=False):
        where = format_path(_field_parts(line["loc"]))
        ruled: Sequence[Problem] = line.get("ctx", {}).get("problems", ())
        if ruled:
            problems += [problem.below(where) for problem in ruled]
        else:
            problems.append(Problem(where, _sentence(line)))
    return problems


def _field_parts(location: tuple[str | int, ...]) -> Sequence[str | int]:
    """The parts of a path that are fields: a bad key of a map blames the map, and so does a bad value under it."""
    if location and location[-1] == "[key]":
        return location[:-2]
    return tuple(takewhile(lambda part: isinstance(part, int) or _NAME.match(part), location))


def join_path(prefix: str, field: str) -> str:
    """`("spec", "data.dataset")` -> `spec.data.dataset`; either side may be empty."""
    return f"{prefix}.{field}" if prefix and field else prefix or field


_TOO_LONG = "give at most {max_length} items, not {actual_length}"


def too_long(most: int, given: int) -> str:
    """What is wrong with a list that has too many items."""
    return _TOO_LONG.format(max_length=most, actual_length=given)


# What pydantic says in terms of Python, said in those of a spec: whole sentences by its code of an error,
_SENTENCES: Mapping[str, str] = {
    "extra_forbidden": "there is no such field; check the spelling or the version of the service",
    "missing": "this field is required",
    "union_tag_not_found": "say which one is meant by its kind",
    "too_long": _TOO_LONG,
}
# and what was expected, to which what was given is added.
_EXPECTED: Mapping[str, str] = {
    "model_type": "give the fields of {class_name} by name",
    "model_attributes_type": "give a kind and its fields by name",
    "dict_type": "give keys and values",
    "tuple_type": "give a list",
}
_PATTERNS: dict[str, str] = {}


def text_of(
    pattern: str, meaning: str, *, min_length: int | None = None, max_length: int | None = None
) -> Any:
    """A pydantic Field of text that matches a pattern.

    Args:
        pattern: regular expression of the whole text.
        meaning: what it asks for, to people: `give ...`.
        min_length: characters at least.
        max_length: characters at most.
    """
    _PATTERNS[pattern] = meaning
    return Field(pattern=pattern, min_length=min_length, max_length=max_length)


def _sentence(line: Mapping[str, Any]) -> str:
    kind, context = line["type"], line.get("ctx", {})
    if kind in _SENTENCES:
        return _SENTENCES[kind].format_map(context)
    if kind == "union_tag_invalid":
        known = context["expected_tags"].replace("'", "")
        return f"there is no kind {context['tag']!r}; choose one of {known}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        text = _PATTERNS[context["pattern"]]
    else:
        text = _EXPECTED[kind].format_map(context) if kind in _EXPECTED else str(line["msg"])
    given = repr(line.get("input"))
    return f"{text}, not {given}" if len(given) <= 60 else text


def _not_one(rate: float) -> float:
    if rate >= 1.0:
        raise ValueError(
            "a dropout rate is the share that is dropped: at 1 nothing is left to learn from, "
            "so give a rate of at least 0 and below 1"
        )
    return rate


# Strict: "128" is not 128 and true is not 1, in Python, YAML and JSON alike. An int is still a float.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]
Name = Annotated[
    str,
    text_of(
        r"^[a-z][a-z0-9_-]{0,62}$",
        "give small letters, digits, _ and -, at most 63, the first a letter",
    ),
]
# Names end up in log lines, terminals and MLflow's pages, where control characters, line breaks, and what changes the
# direction of the text around it would show something else than what is there.
PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
ONE_LINE = "give printable text on one line"
MAX_WIDTH = 2**20
Width = Annotated[Int, Field(ge=1, le=MAX_WIDTH)]
Small = Annotated[Int, Field(ge=1, le=1024)]
Epochs = Annotated[Int, Field(ge=1, le=100_000)]
Share = Annotated[Float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[
    Float,
    Field(ge=0.0, le=1.0),
    AfterValidator(_not_one),
    WithJsonSchema({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}),
]
Positive = Annotated[Float, Field(gt=0.0, le=1e6)]
NonNegative = Annotated[Float, Field(ge=0.0, le=1e6)]
