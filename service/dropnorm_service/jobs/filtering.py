"""The filter of a list: a subset of AIP-160, read into a small tree that a store can compile.

    state = RUNNING AND labels.team = "vision"
    (priority >= 10 OR experiment = "urgent") AND NOT labels:draft
    display_name:"dropout" AND create_time > 2026-01-31T00:00:00Z

OR binds tighter than AND, as AIP-160 has it. `=` is exact; `:` asks whether a text contains the
value (whatever the case), whether a label has the value, and with `*` whether the field is set at
all; `labels:team` asks for a label of any value. A label that is not there equals and differs from
nothing: `labels.team != "x"` finds other teams, `NOT labels.team = "x"` also jobs without a team.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn

from dropnorm.results import State
from dropnorm_service.jobs.errors import InvalidListRequest

MAX_LENGTH = 4096
MAX_COMPARISONS = 100
MAX_NESTING = 16

Operator = Literal["=", "!=", "<", "<=", ">", ">=", ":"]
Value = str | int | bool | datetime | State

COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""What each operator but `:` asks, of values or of columns."""


@dataclass(frozen=True)
class Comparison:
    """A field against a value of its type; a `name` is compared by the job's id."""

    field: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class IsSet:
    """Whether a field has a value."""

    field: str


@dataclass(frozen=True)
class LabelComparison:
    """A label against a value; a job without the label does not match."""

    key: str
    operator: Literal["=", "!="]
    value: str


@dataclass(frozen=True)
class HasLabel:
    """Whether a label is there."""

    key: str


@dataclass(frozen=True)
class And:
    """All of these."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True)
class Or:
    """Any of these."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """Not this."""

    term: Filter


Filter = Comparison | IsSet | LabelComparison | HasLabel | And | Or | Not


def parse_filter(text: str, fields: Mapping[str, Kind] | None = None) -> Filter | None:
    """The tree of a filter; None for an empty one, which everything passes.

    Args:
        text: the filter.
        fields: what may be compared, by name; absent: the fields of a job, and its labels.

    Raises:
        InvalidListRequest: the filter cannot be understood; the message says where.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidListRequest.of("filter", f"at most {MAX_LENGTH} characters, not {len(text)}")
    if not text.strip():
        return None
    return _Parser(text, fields).parse()


@dataclass(frozen=True)
class Kind:
    """A type of field: which operators it takes and how its values are written."""

    operators: tuple[Operator, ...]
    read: Callable[[str], Value]


def _state(text: str) -> State:
    try:
        return State[text.upper()]
    except KeyError:
        raise ValueError(f"a state is one of {', '.join(state.name for state in State)}") from None


def _integer(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None:
        raise ValueError("expected a whole number")
    return int(text)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError("a time is written as 2026-01-31T12:00:00Z, with its zone")
    return time


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


def _job_id(text: str) -> str:
    if not text.startswith("trainingJobs/"):
        raise ValueError("a job's name is trainingJobs/{id}")
    return text.removeprefix("trainingJobs/")


EQUALITY: tuple[Operator, ...] = ("=", "!=")
_ORDER: tuple[Operator, ...] = (*EQUALITY, "<", "<=", ">", ">=")
TEXT = Kind((*EQUALITY, ":"), str)
TIME = Kind((*_ORDER, ":"), _time)
NUMBER = Kind(_ORDER, _integer)
BOOLEAN = Kind(EQUALITY, _yes_or_no)

_FIELDS: Mapping[str, Kind] = {
    "name": Kind(EQUALITY, _job_id),
    "display_name": TEXT,
    "experiment": TEXT,
    "state": Kind(EQUALITY, _state),
    "priority": NUMBER,
    "create_time": TIME,
    "update_time": TIME,
    "end_time": TIME,
    "owner": TEXT,
    "shared": BOOLEAN,
}

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\s()\"'<>=!:,]+")
_OPERATOR = re.compile(r"<=|>=|!=|<|>|=|:")
_VALUE = re.compile(r"[^\s()\"']+")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", re.DOTALL)
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class _Parser:
    """Recursive descent: filter = any {AND any}; any = term {OR term}; term = [NOT | -] simple."""

    def __init__(self, text: str, fields: Mapping[str, Kind] | None) -> None:
        self._text = text
        self._fields = _FIELDS if fields is None else fields
        self._labels = fields is None
        self._at = 0
        self._comparisons = 0

    def parse(self) -> Filter:
        tree = self._all(depth=0)
        if self._rest():
            self._fail("expected AND, OR or the end of the filter")
        return tree

    def _all(self, depth: int) -> Filter:
        terms = [self._any(depth)]
        while self._keyword("AND"):
            terms.append(self._any(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _any(self, depth: int) -> Filter:
        terms = [self._term(depth)]
        while self._keyword("OR"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _term(self, depth: int) -> Filter:
        negated = self._keyword("NOT") or self._symbol("-")
        simple = self._group(depth + 1) if self._symbol("(") else self._comparison()
        return Not(simple) if negated else simple

    def _group(self, depth: int) -> Filter:
        if depth > MAX_NESTING:
            self._fail(f"parentheses nest at most {MAX_NESTING} deep")
        tree = self._all(depth)
        if not self._symbol(")"):
            self._fail("expected AND, OR or a closing parenthesis")
        return tree

    def _comparison(self) -> Filter:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"a filter holds at most {MAX_COMPARISONS} comparisons")
        start = self._skip()
        path = self._take(_WORD, "the name of a field")
        root, _, key = path.partition(".")
        if root == "labels" and self._labels:
            return self._label(key, start)
        kind = self._fields.get(path)
        if kind is None:
            known = ", ".join([*self._fields, *["labels.KEY"] * self._labels])
            self._fail(f"there is no field {path}; the fields are {known}", start)
        operator, at = self._operator()
        if operator not in kind.operators:
            self._fail(f"{path} is compared with {' '.join(kind.operators)} only", at)
        value, quoted, at = self._value()
        if operator == ":" and value == "*" and not quoted:
            return IsSet(path)
        if operator == ":" and kind is TIME:
            self._fail(f"{path}:* asks whether there is one; compare with = < > otherwise", at)
        try:
            return Comparison(path, operator, kind.read(value))
        except ValueError as error:
            self._fail(str(error), at)

    def _label(self, key: str, start: int) -> Filter:
        operator, at = self._operator()
        value, quoted, value_at = self._value()
        if not key:
            if operator != ":":
                self._fail("write labels:KEY, or labels.KEY = VALUE", at)
            return HasLabel(self._label_key(value, value_at))
        key = self._label_key(key, start)
        match operator:
            case ":" if value == "*" and not quoted:
                return HasLabel(key)
            case "=" | ":":
                return LabelComparison(key, "=", value)
            case "!=":
                return LabelComparison(key, "!=", value)
            case _:
                self._fail("a label is compared with = != : only", at)

    def _label_key(self, key: str, at: int) -> str:
        if _LABEL_KEY.fullmatch(key) is None:
            self._fail("a label's key is [a-z][a-z0-9_-]{0,62}", at)
        return key

    def _operator(self) -> tuple[Operator, int]:
        at = self._skip()
        return self._take(_OPERATOR, "one of = != < <= > >= :"), at  # type: ignore[return-value]

    def _value(self) -> tuple[str, bool, int]:
        at = self._skip()
        quoted = _QUOTED.match(self._text, at)
        plain = self._take(_VALUE, "a value") if quoted is None else ""
        if "\x00" in (quoted[0] if quoted else plain):  # which not every database could look for
            self._fail("a value has no NUL character", at)
        if quoted is None:
            return plain, False, at
        self._at = quoted.end()
        inside = quoted[1] if quoted[1] is not None else quoted[2]
        return re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL), True, at

    def _keyword(self, word: str) -> bool:
        match = _WORD.match(self._text, self._skip())
        if match is None or match[0] != word:
            return False
        self._at = match.end()
        return True

    def _symbol(self, symbol: str) -> bool:
        if not self._text.startswith(symbol, self._skip()):
            return False
        self._at += len(symbol)
        return True

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._skip())
        if match is None:
            self._fail(f"expected {what}")
        self._at = match.end()
        return match[0]

    def _skip(self) -> int:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        return self._at

    def _rest(self) -> str:
        return self._text[self._skip() :]

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        position = (self._at if at is None else at) + 1
        raise InvalidListRequest.of("filter", f"at character {position}: {message}")
