"""Rows as JSON, column by column: the text that a resource would have, without an object for each row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Enum,
    Integer,
    SQLColumnExpression,
    String,
    Text,
    Uuid,
    cast,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import coercions, roles
from sqlalchemy.types import TypeEngine

from app.clock import as_timestamp

Encode = Callable[[Any], str]

_READ_AS_TEXT = (DateTime, JSONB, String, Uuid)


@dataclass(frozen=True)
class _Field:
    """One field of the resource: its part of the text of an item, and how a value becomes that."""

    part: str
    column: ColumnElement[Any]
    encode: Encode
    is_text: bool
    """Whether the column is read as text, whatever its type."""


class RowText:
    """The JSON of `resource`, whose fields are `columns` by name; a field without one has its default.

    The text is that of the resource itself, but for white space and the spelling of numbers in documents. A column
    whose values need not be valid is validated.
    """

    def __init__(self, resource: type[BaseModel], columns: Mapping[str, SQLColumnExpression[Any]]) -> None:
        self._fields = []
        parts = []
        for name, field in resource.model_fields.items():
            key = f"{encode_basestring(field.serialization_alias or name)}:"
            if name in columns:
                found = _field(key, field, coercions.expect(roles.ExpressionElementRole, columns[name]))
                self._fields.append(found)
                parts.append(found.part)
            else:
                default = TypeAdapter[Any](field.annotation or Any).dump_json(field.get_default()).decode()
                parts.append(f",{key}{default}".replace("%", "%%"))
        self._template = f"{{{''.join(parts).removeprefix(',')}}}"

    @property
    def columns(self) -> tuple[ColumnElement[Any], ...]:
        """What is selected, as it is stored."""
        return tuple(field.column.label(f"item_{number}") for number, field in enumerate(self._fields))

    def read(self, columns: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        """`columns`, or those of a subquery that selects them, as `texts` takes them."""
        return [
            _as_text(column) if field.is_text else column
            for field, column in zip(self._fields, columns, strict=True)
        ]

    def texts(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """The items of rows of what `read` returns."""
        # Column by column: the loop over the values of one is in C.
        columns = zip(*rows, strict=True)
        values = (map(field.encode, column) for field, column in zip(self._fields, columns, strict=False))
        return [self._template % row for row in zip(*values, strict=True)]


def _field(key: str, field: FieldInfo, column: ColumnElement[Any]) -> _Field:
    kind, is_optional = _without_none(field.annotation)
    encode = _encoding(kind, column.type)
    # One that may be null although the field may not be is validated, and then is an error.
    if encode is None or (getattr(column, "nullable", True) and not is_optional):
        return _Field(f",{key}%s", column, *_validating(field, column))
    is_text = isinstance(column.type, _READ_AS_TEXT)
    if is_optional:
        encode = _or_null(encode)
    if field.exclude_if:
        return _Field("%s", column, _unless(field.exclude_if, f",{key}", encode), is_text)
    return _Field(f",{key}%s", column, encode, is_text)


def _as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    match column.type:
        case Text():
            return column
        case DateTime():
            return as_timestamp(column)
    return cast(column, Text)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    kinds = [one for one in get_args(annotation) if one is not type(None)]
    is_optional = len(kinds) == len(get_args(annotation)) - 1 == 1
    kind = kinds[0] if is_optional else annotation
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind, is_optional


def _encoding(kind: Any, type_: TypeEngine[Any]) -> Encode | None:
    """How values are encoded of which the database knows that they are right; None for all others."""
    match type_:
        case Uuid() if kind in {UUID, str}:
            return '"{}"'.format
        case DateTime() if kind is datetime:
            return '"{}"'.format
        case Enum(enum_class=known) if kind is known:
            return encode_basestring
        case String() if kind is str:
            return encode_basestring
        case Boolean() if kind is bool:
            return {True: "true", False: "false"}.__getitem__
        case Integer() if kind is int:
            return str
        case JSONB() if kind == dict[str, Any]:
            # PostgreSQL's own text of a document: it is not parsed, and takes no more memory than its characters.
            return str
    return None


def _validating(field: FieldInfo, column: ColumnElement[Any]) -> tuple[Encode, bool]:
    """An encoding that validates, and whether it takes the column as text."""
    adapter = TypeAdapter[Any](field.rebuild_annotation())
    # A document as well: one row after another is parsed, not all that have been read.
    is_text = isinstance(column.type, JSONB)

    def encode(value: Any) -> str:
        is_json = is_text and value is not None
        valid = adapter.validate_json(value) if is_json else adapter.validate_python(value)
        return adapter.dump_json(valid, by_alias=True).decode()

    return encode, is_text


def _or_null(encode: Encode) -> Encode:
    return lambda value: "null" if value is None else encode(value)


def _unless(is_excluded: Callable[[Any], bool], before: str, encode: Encode) -> Encode:
    return lambda value: "" if is_excluded(value) else before + encode(value)
