"""Filter -> SQL predicates: which keys a noun knows, and how the text of a condition meets a typed column.

Absent values count: `key=` finds them, and `key!=x` includes them. A date stands for the whole local day, a
time for the whole minute or second that it names: what a list shows can be written into a filter.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeAlias

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Enum,
    Float,
    Integer,
    String,
    Table,
    and_,
    cast,
    exists,
    false,
    or_,
    true,
)

from appliance.errors import UsageError
from appliance.filters import Choice, Condition, Filter, Op, Pattern, Wild
from appliance.scalars import boolean
from appliance.storage.schema import Instant

Predicate: TypeAlias = ColumnElement[bool]
Apply: TypeAlias = Callable[[Condition], Predicate]
Keys: TypeAlias = Mapping[str, ColumnElement[Any] | Apply]

PROPERTY = "property."
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
TIMED = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?P<seconds>:\d{2})?(?P<zone>Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
"""A time without a fraction of a second."""
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
"""Numbers that the database can hold; none of ours comes near."""


def where(filter_: Filter | None, keys: Keys, properties: Apply | None = None) -> Predicate:
    """The predicate that holds where every condition does.

    :raises UsageError: an unknown key, or a value that its column cannot have
    """
    if filter_ is None:
        return true()
    return and_(true(), *(_predicate(condition, keys, properties) for condition in filter_.conditions))


def through(column: ColumnElement[Any], *links: Predicate) -> Apply:
    """A key whose values are in another table: some row of it that fulfils `links` must match.

    It is absent where no row holds a value.
    """

    def apply(condition: Condition) -> Predicate:
        if condition.value.literal == "" and condition.op in (Op.EQUAL, Op.DIFFERENT):
            held = exists().where(*links, column != "").correlate_except(column.table)
            return ~held if condition.op is Op.EQUAL else held
        found = exists().where(*links, compare(column, _positive(condition))).correlate_except(column.table)
        return ~found if condition.op is Op.DIFFERENT else found

    return apply


def property_of(table: Table, owner: ColumnElement[Any]) -> Apply:
    """The keys `property.<name>` of a noun; each condition looks for its own row (trap T42)."""
    owner_id = next(iter(table.primary_key.columns))

    def apply(condition: Condition) -> Predicate:
        name = condition.key.removeprefix(PROPERTY)
        return through(table.c.value, owner_id == owner, table.c.key == name)(condition)

    return apply


def compare(column: ColumnElement[Any], condition: Condition) -> Predicate:
    """One condition on one column."""
    literal = condition.value.literal
    if literal is None:
        return _like(column, condition)
    if literal == "":
        return _absent(column, condition)
    if isinstance(column.type, Instant) and _is_span(literal):
        return _within(column, literal, condition)
    value = _typed(column, literal, condition)
    if isinstance(column.type, Boolean | Enum) and condition.op not in (Op.EQUAL, Op.DIFFERENT):
        kind = "yes or no" if isinstance(column.type, Boolean) else "one of several words"
        raise UsageError(f"{condition}: {condition.key} is {kind}", hint="use = or !=")
    match condition.op:
        case Op.EQUAL:
            return column == value
        case Op.DIFFERENT:
            return column.is_distinct_from(value)
        case Op.LESS:
            return column < value
        case Op.AT_MOST:
            return column <= value
        case Op.MORE:
            return column > value
        case Op.AT_LEAST:
            return column >= value


def _predicate(condition: Condition | Choice, keys: Keys, properties: Apply | None) -> Predicate:
    if isinstance(condition, Choice):
        target = keys.get(condition.key)
        if isinstance(target, ColumnElement) and all(_is_one_value(target, v) for v in condition.values):
            return _among(target, condition)  # SQLite takes any number of values, but not of terms
        op = Op.EQUAL if condition.among else Op.DIFFERENT
        each = [
            _predicate(Condition(condition.key, op, value), keys, properties) for value in condition.values
        ]
        return or_(false(), *each) if condition.among else and_(true(), *each)
    if properties is not None and condition.key.startswith(PROPERTY):
        return properties(condition)
    target = keys.get(condition.key)
    if target is None:
        known = sorted(keys) + [f"{PROPERTY}<key>"] * (properties is not None)
        near = difflib.get_close_matches(condition.key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        raise UsageError(f"there is no filter key {condition.key!r}", hint=hint)
    if not isinstance(target, ColumnElement):
        return target(condition)
    _check_no_date(target, condition, keys)
    return compare(target, condition)


def _check_no_date(column: ColumnElement[Any], condition: Condition, keys: Keys) -> None:
    """Refuse what would compare a date with the letters of a text."""
    text = condition.value.literal or ""
    if condition.op in (Op.EQUAL, Op.DIFFERENT) or not isinstance(column.type, String) or not _is_span(text):
        return
    dated = [
        key for key, one in keys.items() if isinstance(one, ColumnElement) and isinstance(one.type, Instant)
    ]
    raise UsageError(
        f"{condition}: {condition.key} is a text, and comes neither before nor after a date",
        hint=f"dates are in {', '.join(dated)}" if dated else "use = or !=",
    )


def _is_one_value(column: ColumnElement[Any], value: Pattern) -> bool:
    text = value.literal
    return bool(text) and not (isinstance(column.type, Instant) and _is_span(text or ""))


def _among(column: ColumnElement[Any], choice: Choice) -> Predicate:
    values = [
        _typed(column, value.literal or "", Condition(choice.key, Op.EQUAL, value)) for value in choice.values
    ]
    return column.in_(values) if choice.among else or_(column.is_(None), column.not_in(values))


def _positive(condition: Condition) -> Condition:
    if condition.op is Op.DIFFERENT:
        return Condition(condition.key, Op.EQUAL, condition.value)
    return condition


def _like(column: ColumnElement[Any], condition: Condition) -> Predicate:
    text = column if isinstance(column.type, String) else cast(column, String)
    matches: Predicate = text.op("GLOB", is_comparison=True)(_glob(condition.value))
    if condition.op is Op.EQUAL:
        return matches
    if condition.op is Op.DIFFERENT:
        return ~matches | column.is_(None)
    raise UsageError(f"{condition}: {condition.op} takes no wildcard", hint="use = or !=")


def _glob(pattern: Pattern) -> str:
    """The pattern for GLOB, which is LIKE with case, `*` and `?` (SQLite's LIKE ignores case)."""
    return "".join(
        part.value if isinstance(part, Wild) else "".join(f"[{c}]" if c in "*?[" else c for c in part)
        for part in pattern.parts
    )


def _absent(column: ColumnElement[Any], condition: Condition) -> Predicate:
    missing: Predicate = column.is_(None)
    if isinstance(column.type, String) and not isinstance(column.type, Enum):
        missing = missing | (column == "")
    if condition.op is Op.EQUAL:
        return missing
    if condition.op is Op.DIFFERENT:
        return ~missing
    raise UsageError(f"{condition}: there is nothing to compare with", hint=f"{condition.key}= finds absence")


def _typed(column: ColumnElement[Any], text: str, condition: Condition) -> object:
    kind = column.type
    try:
        if isinstance(kind, Boolean):
            return boolean(text)
        if isinstance(kind, Integer):
            return _whole(text)
        if isinstance(kind, Float):
            return _finite(text)
        if isinstance(kind, Instant):
            return _instant(text)
        if isinstance(kind, Enum):
            return _word(kind, text)
    except ValueError as exc:
        raise UsageError(f"{condition}: {exc}") from exc
    return text


def _whole(text: str) -> int:
    if not WHOLE.fullmatch(text.strip()):
        raise ValueError("write a whole number")
    return int(text)


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("write a number")
    return number


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("write a time such as 2030-01-31T18:00, or a date") from None


def _is_span(text: str) -> bool:
    return DATE.fullmatch(text) is not None or TIMED.fullmatch(text) is not None


def _within(column: ColumnElement[Any], text: str, condition: Condition) -> Predicate:
    """A comparison with a whole local day, or a whole minute or second."""
    try:
        if timed := TIMED.fullmatch(text):
            begin = _instant(text)
            end = begin + (timedelta(seconds=1) if timed["seconds"] else timedelta(minutes=1))
        else:
            day = datetime.combine(date.fromisoformat(text), time())
            begin, end = day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{condition}: there is no such day or time") from None
    within = and_(column >= begin, column < end)
    match condition.op:
        case Op.EQUAL:
            return within
        case Op.DIFFERENT:
            return or_(column.is_(None), ~within)
        case Op.LESS:
            return column < begin
        case Op.AT_MOST:
            return column < end
        case Op.MORE:
            return column >= end
        case Op.AT_LEAST:
            return column >= begin


def _word(kind: Enum, text: str) -> object:
    assert kind.enum_class is not None
    try:
        return kind.enum_class(text)
    except ValueError:
        raise ValueError(f"one of {', '.join(kind.enums)}") from None
