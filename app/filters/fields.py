"""The fields of a list, and their comparisons with values in SQL."""

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, TypeGuard
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Enum,
    Integer,
    Numeric,
    SQLColumnExpression,
    String,
    Text,
    Uuid,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import coercions, roles

from app.filters.ast import MAX_DEPTH, BadFilter, Operator, Scalar
from app.filters.containment import containing, values_of

Ordering = Callable[[Any, Any], ColumnElement[bool]]
"""`operator.lt` and similar."""

_LEAP_SECOND = re.compile(r"^(.{10}T\d\d:\d\d):60")

_KINDS = (String, DateTime, Uuid, Boolean, Integer)
_TIME = 'a time in ISO 8601, such as "2026-01-31T09:00:00Z"'


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields by which a list can be filtered and sorted: public names and their SQL.

    `key` is unique and breaks ties of a sort. `data`, if given, is a JSONB column whose contents are addressed as
    `data.<path>`. Columns contain text, enums, times, UUIDs, booleans or integers.
    """

    key: SQLColumnExpression[Any]
    columns: Mapping[str, SQLColumnExpression[Any]]
    data: SQLColumnExpression[Any] | None = None
    children: Mapping[str, "Children"] = field(default_factory=dict)
    """Rows below those of the list, by the name of their sort: `<name>.<field>` asks for one with such a field."""
    indexed: Mapping[str, Set[Operator]] = field(default_factory=dict)
    """The operators of a field, or of `data`, whose comparisons an index serves; if ranges, then sorts by it, too."""
    other_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The values of a field that are other names of values."""

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if not isinstance(_expression(column).type, _KINDS):
                raise TypeError(
                    f"field {name!r} is of type {_expression(column).type!r}, which has no comparable values"
                )

    def find(self, name: str) -> "ColumnField | DataField | None":
        """The field of that public name, or None."""
        if name in self.columns:
            return ColumnField(name, _expression(self.columns[name]), self.other_names.get(name, {}))
        base, *path = name.split(".")
        # A function call in PostgreSQL has at most 100 arguments, and each step of the path is one.
        if self.data is not None and base == "data" and 0 < len(path) <= MAX_DEPTH and all(path):
            return DataField(_expression(self.data), path)
        return None

    def below(self, name: str) -> "tuple[Children, str] | None":
        """The children that a name asks for, and the name of their field, which is empty for whether there are any."""
        base, _, rest = name.partition(".")
        return (self.children[base], rest) if base in self.children else None

    def tiebreak(self) -> ColumnElement[Any]:
        """The key, for the end of ORDER BY."""
        return _expression(self.key)

    def names(self) -> str:
        """All valid names, for error messages."""
        data = ["data.<path>"] if self.data is not None else []
        return ", ".join([*self.columns, *data, *(f"{name}.<field>" for name in self.children)])

    def served_by_indexes(self) -> str:
        """What an index serves, for error messages: ` on …`, or nothing."""
        served = [
            f"{'data.<path>' if name == 'data' else name} ({', '.join(sorted(operators))})"
            for name, operators in self.indexed.items()
        ]
        return f" on {'; '.join(served)}" if served else ""


@dataclass(frozen=True, eq=False)
class Children:
    """Rows that belong to one of a list: an alias of their model, its fields, and what ties them to that one."""

    model: Any
    fields: Fields
    is_child: ColumnElement[bool]

    def exist(self, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        """Whether there is one that meets the conditions: one look into an index for each row of the list."""
        # OFFSET keeps PostgreSQL from making a join of it, which reads the children of all rows.
        found = select(self.fields.tiebreak()).where(self.is_child, *conditions).offset(literal_column("0"))
        return found.correlate_except(self.model).exists()


def _expression(column: SQLColumnExpression[Any]) -> ColumnElement[Any]:
    # The SQL of a model's attribute: to a type checker, the attribute itself is no ColumnElement.
    element: ColumnElement[Any] = coercions.expect(roles.ExpressionElementRole, column)
    return element


@dataclass(frozen=True)
class ColumnField:
    """A field with a column, and so with a type."""

    name: str
    expression: ColumnElement[Any]
    other_names: Mapping[str, str] = field(default_factory=dict)

    def sortable(self) -> ColumnElement[Any]:
        return self.expression

    def is_null(self) -> ColumnElement[bool]:
        return self.expression.is_(None)

    def as_text(self) -> ColumnElement[str]:
        if not isinstance(self.expression.type, String | Uuid):
            raise BadFilter(f"Field '{self.name}' is not text, so '$like' does not apply to it.")
        return cast(self.expression, Text)

    def equals_any(self, values: Sequence[Scalar]) -> ColumnElement[bool]:
        return self.expression.in_([self._typed(value) for value in values])

    def is_ordered(self, ordering: Ordering, value: Scalar) -> ColumnElement[bool]:
        return ordering(self.expression, self._typed(value))

    def _typed(self, value: Scalar) -> ColumnElement[Any]:
        """The value in the column's type, so that PostgreSQL never guesses or fails."""
        if isinstance(value, str):
            value = self.other_names.get(value, value)
        match self.expression.type, value:
            case Enum(enums=known) as kind, str() if value in known:
                return literal(kind.enum_class(value) if kind.enum_class else value, kind)
            case Enum(enums=known), _:
                raise self._expected(f"one of {', '.join(known)}")
            case String(), str():
                return literal(value, Text)
            case String(), _:
                raise self._expected('text, such as "5"')
            case DateTime(), str():
                return literal(self._time(value), DateTime(timezone=True))
            case DateTime(), _:
                raise self._expected(_TIME)
            case Uuid(), _:
                return literal(self._uuid(value), Uuid)
            case Boolean(), bool() | "true" | "false":
                return literal(value in (True, "true"), Boolean)
            case Boolean(), _:
                raise self._expected("true or false")
        return literal(self._integer(value), BigInteger)

    def _time(self, value: str) -> datetime:
        try:
            # RFC 3339 allows small letters, and a leap second, which is the first one of the next minute to PostgreSQL.
            text, leaps = _LEAP_SECOND.subn(r"\1:59", value.upper())
            moment = datetime.fromisoformat(text) + timedelta(seconds=leaps)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self._expected(_TIME) from None

    def _uuid(self, value: Scalar) -> UUID:
        try:
            return UUID(str(value))
        except ValueError:
            raise self._expected("a UUID") from None

    def _integer(self, value: Scalar) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
            value = int(value)
        # As wide as PostgreSQL's widest integer, which fails on larger values instead of not matching.
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise self._expected("an integer of at most 64 bits")
        return value

    def _expected(self, what: str) -> BadFilter:
        return BadFilter(f"Field '{self.name}' expects {what}.")


@dataclass(frozen=True)
class DataField:
    """A path in a JSON document, with values of different types in different rows.

    The type of the filter's value decides: a number compares with stored numbers as a number,
    every other value compares as text.
    """

    document: ColumnElement[Any]
    path: Sequence[str]

    def sortable(self) -> ColumnElement[Any]:
        # jsonb sorts numbers as numbers; a stored null sorts like a missing key.
        return func.nullif(self._json(), cast(literal("null", Text), JSONB))

    def is_null(self) -> ColumnElement[bool]:
        return self.as_text().is_(None)

    def as_text(self) -> ColumnElement[str]:
        return func.jsonb_extract_path_text(self.document, *self.path, type_=Text)

    def equals_any(self, values: Sequence[Scalar]) -> ColumnElement[bool]:
        # One condition for all numbers and one for all other values: each reads the document anew.
        numbers = [value for value in values if _is_number(value)]
        others = [value for value in values if not _is_number(value)]
        either: list[ColumnElement[bool]] = []
        if others:
            either.append(self.as_text().in_([_text(value) for value in others]))
        if numbers:
            is_equal = cast(self.as_text(), Numeric).in_([_decimal(value) for value in numbers])
            is_same_text = self.as_text().in_([_text(value) for value in numbers])
            either.append(self._if_number(is_equal, otherwise=is_same_text))
        return and_(*self._contained(values), or_(*either))

    def can_be_found(self, values: Sequence[Scalar]) -> bool:
        """Whether an index of documents can find all those with one of these values."""
        return self._documents(values) is not None

    def _contained(self, values: Sequence[Scalar]) -> list[ColumnElement[bool]]:
        """The condition by which an index finds all documents with one of these values, and others; or none."""
        documents = self._documents(values)
        if documents is None:
            return []
        return [or_(*(self.document.contains(cast(literal(one, Text), JSONB)) for one in documents))]

    def _documents(self, values: Sequence[Scalar]) -> list[str] | None:
        known = [_json_values(value) for value in values]
        found = [one for one in known if one is not None]
        return containing(self.path, list(chain.from_iterable(found))) if len(found) == len(known) else None

    def is_ordered(self, ordering: Ordering, value: Scalar) -> ColumnElement[bool]:
        if isinstance(value, int | float):
            return self._if_number(
                ordering(cast(self.as_text(), Numeric), _decimal(value)), otherwise=false()
            )
        return ordering(self.as_text(), literal(value, Text))

    def _if_number(self, then: ColumnElement[bool], *, otherwise: ColumnElement[bool]) -> ColumnElement[bool]:
        # CASE fixes the order of evaluation; with AND the cast could fail on a row whose value is no number.
        return case((func.jsonb_typeof(self._json()) == "number", then), else_=otherwise)

    def _json(self) -> ColumnElement[Any]:
        return func.jsonb_extract_path(self.document, *self.path, type_=JSONB)


def _is_number(value: Scalar) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json_values(value: Scalar) -> list[str] | None:
    """The values of a document that are equal to one of a filter; None if they cannot be told."""
    if _is_number(value):
        return [f"{Decimal(str(value)):f}", json.dumps(json.dumps(value))]
    return values_of(value if isinstance(value, str) else json.dumps(value))


def _text(value: Scalar) -> ColumnElement[str]:
    """A value as a document has it in its text."""
    return literal(value if isinstance(value, str) else json.dumps(value), Text)


def _decimal(value: float) -> ColumnElement[Decimal]:
    return literal(Decimal(str(value)), Numeric)
