"""Filters, orders and pages as SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Subquery,
    and_,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)

from dropnorm.results import State
from dropnorm_service.jobs import filtering, paging
from dropnorm_service.jobs.paging import Key, Order
from dropnorm_service.jobs.ports import JobQuery
from dropnorm_service.jobs.wrong_fields import WrongFields
from dropnorm_service.store.rows import to_micros
from dropnorm_service.store.schema import IS_SHARED, job_labels, jobs, specs

_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "name": jobs.c.id,
    "display_name": jobs.c.display_name,
    "experiment": jobs.c.experiment,
    "state": jobs.c.state,
    "priority": type_coerce(jobs.c.priority, BigInteger),  # what it is compared with may be larger
    "create_time": jobs.c.create_time,
    "update_time": jobs.c.update_time,
    "end_time": jobs.c.end_time,
    "owner": jobs.c.owner,
    "shared": jobs.c.shared,
}

# A job that has not ended sorts as if it ended after all others.
_NEVER = 2**62
_SORT_KEYS = {**_COLUMNS, "end_time": func.coalesce(jobs.c.end_time, literal(_NEVER, BigInteger))}

_TEXT = ("name", "display_name", "experiment")

_OPERATORS: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    **filtering.COMPARE,
    ":": lambda column, value: column.icontains(value, autoescape=True),
}


class Listing:
    """One query for a page of jobs.

    Raises:
        InvalidListRequest: filter, order, page size or token cannot be understood.
    """

    def __init__(self, query: JobQuery) -> None:
        self._query = query
        wrong = WrongFields()
        with wrong:
            self.page_size = paging.page_size(query.page_size)
        with wrong:
            self._tree = filtering.parse_filter(query.filter)
        with wrong:
            self._orders = paging.parse_order(query.order_by)
            kinds: list[type[Key]] = [
                str if order.field in _TEXT else int for order in self._orders
            ]
            self._after = paging.read_token(query, kinds)
        wrong.settle()

    def select(self) -> Select[Any]:
        """The page's jobs with their specs, and one more if another page follows."""
        keys = [_SORT_KEYS[order.field] for order in self._orders]
        page = select(jobs, *(key.label(f"key_{n}") for n, key in enumerate(keys)))
        page = page.where(jobs.c.deleted == 0)
        if self._tree is not None:
            page = page.where(_condition(self._tree))
        if self._after is not None:
            page = page.where(_behind(self._orders, keys, self._after))
        page = page.order_by(*map(_directed, self._orders, keys)).limit(self.page_size + 1)
        user = self._query.seen_by
        shown = page.subquery("page") if user is None else self._seen(page, user)
        # Specs are joined to the finished page, so that sorting many jobs does not carry them along.
        return (
            select(shown, specs.c.spec)
            .join(specs, specs.c.job_id == shown.c.id)
            .order_by(*self._sorted(shown))
        )

    def _seen(self, page: Select[Any], user: str) -> Subquery:
        """The page of a user: of his own jobs and of others' shared ones, each of which an index has in order."""
        own = page.where(jobs.c.owner == user).subquery("own")
        others = page.where(IS_SHARED, jobs.c.owner != user).subquery("others")
        both = union_all(select(own), select(others)).subquery("both")
        page = select(both).order_by(*self._sorted(both)).limit(self.page_size + 1)
        return page.subquery("page")

    def _sorted(self, page: Subquery) -> list[ColumnElement[Any]]:
        return [_directed(order, page.c[f"key_{n}"]) for n, order in enumerate(self._orders)]

    def token_after(self, row: Row[Any]) -> str:
        """The token of the page that begins behind a row of `select`."""
        keys = [getattr(row, f"key_{n}") for n in range(len(self._orders))]
        return paging.page_token(self._query, keys)


def _directed(order: Order, key: ColumnElement[Any]) -> ColumnElement[Any]:
    return key.desc() if order.descending else key.asc()


def _behind(
    orders: Sequence[Order], keys: Sequence[ColumnElement[Any]], values: Sequence[Key]
) -> ColumnElement[bool]:
    """Rows that sort behind these values: (a > x) or (a = x and (b > y or ...))."""

    def step(
        rest: ColumnElement[bool], each: tuple[Order, ColumnElement[Any], Key]
    ) -> ColumnElement[bool]:
        order, key, value = each
        further = key < value if order.descending else key > value
        at_least = key <= value if order.descending else key >= value
        # Said in this form, because a database can find the first part in an index.
        return and_(at_least, or_(further, rest))

    return reduce(step, reversed(list(zip(orders, keys, values, strict=True))), false())


def _condition(tree: filtering.Filter) -> ColumnElement[bool]:
    """True or false for every job, never unknown, so that NOT finds exactly the others."""
    match tree:
        case filtering.And(terms):
            return and_(true(), *map(_condition, terms))
        case filtering.Or(terms):
            return or_(false(), *map(_condition, terms))
        case filtering.Not(term):
            return not_(_condition(term))
        case filtering.IsSet(field):
            return _COLUMNS[field].is_not(None)
        case filtering.HasLabel(key):
            return _has_label(job_labels.c.key == key)
        case filtering.LabelComparison(key, operator_, value):
            matches = _OPERATORS[operator_](job_labels.c.value, value)
            return _has_label(and_(job_labels.c.key == key, matches))
        case filtering.Comparison(field, operator_, value):
            column = _COLUMNS[field]
            compared = _OPERATORS[operator_](column, _sql_value(value))
            return and_(column.is_not(None), compared) if field == "end_time" else compared


def _has_label(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return jobs.c.id.in_(select(job_labels.c.job_id).where(condition))


def _sql_value(value: filtering.Value) -> Key:
    match value:
        case State():
            return value.value
        case bool():
            return int(value)
        case datetime():
            return to_micros(value)
        case _:
            return value
