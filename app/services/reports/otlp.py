"""Logs in the OpenTelemetry protocol, as JSON or as protobuf, and the lines that they have.

A body of a few megabytes can have millions of records. So each part is looked at when its turn comes, and no more than
`MOST_PARTS` are.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from pydantic import BaseModel, Field, StrictBytes, ValidationError
from pydantic_core import from_json

from app import clock
from app.errors import BadRequest, TooLarge
from app.services.reports import protobuf
from app.services.reports.log_lines import Rejected, ReportedLine, Source

MOST_RECORDS = 10_000
"""Records of one request that are stored. The SDKs of OpenTelemetry send some hundreds at a time."""
MOST_PARTS = 200_000
"""Resources, their attributes, scopes and records of one request together."""
LONGEST_BYTES = 64 * 1024
"""The longest text of a record, as of a line that the runtime stores."""

_MOST_PACKED_BYTES = 4 * LONGEST_BYTES
"""A value of more bytes as protobuf is longer than that as text, or it consists of what nobody logs."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ("job", "job_attempt", "job_step", "job_task")
_MOST_NAME_CHARS = 255


class _Attribute(BaseModel):
    key: str
    value: dict[str, Any] | StrictBytes | None = None


class _Resource(BaseModel):
    attributes: list[Any] | None = None


class _Record(BaseModel):
    time: int | None = Field(None, alias="timeUnixNano")
    observed: int | None = Field(None, alias="observedTimeUnixNano")
    body: dict[str, Any] | StrictBytes | None = None


class _ScopeLogs(BaseModel):
    records: list[Any] | None = Field(None, alias="logRecords")


class _ResourceLogs(BaseModel):
    resource: Any = None
    scopes: list[Any] | None = Field(None, alias="scopeLogs")


class _Export(BaseModel):
    resource_logs: list[Any] | None = Field(None, alias="resourceLogs")


_UNPACK: dict[type[BaseModel], protobuf.Unpack] = {
    _Export: protobuf.unpack_export,
    _ResourceLogs: protobuf.unpack_resource_logs,
    _Resource: protobuf.unpack_resource,
    _Attribute: protobuf.unpack_attribute,
    _ScopeLogs: protobuf.unpack_scope_logs,
    _Record: protobuf.unpack_record,
}

Part = TypeVar("Part", bound=BaseModel)


def read_lines(raw: bytes, *, is_protobuf: bool) -> Iterator[ReportedLine | Rejected]:
    """The line of each record of a request, or why there is none; an empty body has no records.

    What a request has beside times, texts and the names of jobs is not read. Raises BadRequest, and TooLarge for more
    than `MOST_PARTS`.
    """
    if not raw:
        return
    reader = _Reader("protobuf" if is_protobuf else "JSON")
    with reader.telling_errors():
        export: Any = raw if is_protobuf else from_json(raw)
    number = 0
    for given in reader.counted(reader.read(_Export, export).resource_logs):
        logs = reader.read(_ResourceLogs, given)
        source = reader.source(logs.resource)
        for scope in reader.counted(logs.scopes):
            for record in reader.counted(reader.read(_ScopeLogs, scope).records):
                number += 1
                if isinstance(source, Rejected):
                    yield source
                elif number > MOST_RECORDS:
                    yield Rejected(f"a request has at most {MOST_RECORDS} records")
                else:
                    yield reader.line(source, reader.read(_Record, record))


@dataclass
class _Reader:
    """Reads the parts of one request, in its form, and counts them."""

    form: str
    left: int = MOST_PARTS

    @contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Raise BadRequest for a part that is none."""
        try:
            yield
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise BadRequest(f"Invalid {self.form} format: {where}: {first['msg']}") from None
        except (DecodeError, ValueError) as error:
            raise BadRequest(f"Invalid {self.form} format: {error}") from None

    def read(self, model: type[Part], given: Any) -> Part:
        """A part of the request. Raises BadRequest."""
        with self.telling_errors():
            return model.model_validate(_UNPACK[model](given) if isinstance(given, bytes) else given)

    def counted(self, parts: list[Any] | None) -> list[Any]:
        """The parts of a list. Raises TooLarge if there are too many."""
        self.left -= len(parts or ())
        if self.left < 0:
            raise TooLarge(
                f"A request has at most {MOST_PARTS} resources, attributes, scopes and records; send several."
            )
        return parts or []

    def source(self, given: Any) -> Source | Rejected:
        """What has printed the records of a resource."""
        resource = self.read(_Resource, {} if given is None else given)
        attributes = [self.read(_Attribute, one) for one in self.counted(resource.attributes)]
        texts = {one.key: self._text(one.value) for one in attributes if one.key in _NAMES}
        if missing := [key for key in _NAMES if texts.get(key, "") == ""]:
            return Rejected(f"missing resource attributes: {', '.join(missing)}")
        names = {key: text for key, text in texts.items() if text and len(text) <= _MOST_NAME_CHARS}
        if long := [key for key in _NAMES if key not in names]:
            return Rejected(
                f"resource attributes of more than {_MOST_NAME_CHARS} characters: {', '.join(long)}"
            )
        return Source(*(names[key] for key in _NAMES))

    def line(self, source: Source, record: _Record) -> ReportedLine | Rejected:
        """The line of a record, or why there is none."""
        text = self._text(record.body)
        if text is None:
            return Rejected(f"a text of more than {LONGEST_BYTES} bytes")
        nanoseconds = record.time or record.observed
        if not nanoseconds:
            return ReportedLine(source, clock.now(), text)
        # Those that the protocol has. A year at an end of the calendar cannot be read in every time zone.
        if not 0 < nanoseconds < 2**64:
            return Rejected("a time that is out of range")
        return ReportedLine(source, _EPOCH + timedelta(microseconds=nanoseconds // 1000), text)

    def _text(self, value: dict[str, Any] | bytes | None) -> str | None:
        """An `AnyValue` as text, a list or a map as JSON; None if it is longer than any that is stored."""
        if isinstance(value, bytes):
            if len(value) > _MOST_PACKED_BYTES:
                return None
            with self.telling_errors():
                value = protobuf.unpack_value(value)
        plain = _plain(value)
        if plain in (None, {}):
            return ""
        text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
        # PostgreSQL cannot store NUL in a text.
        text = text.replace("\0", "")
        return text if len(text.encode()) <= LONGEST_BYTES else None


def _plain(value: Any) -> Any:
    match value:
        case (
            {"stringValue": plain}
            | {"boolValue": plain}
            | {"intValue": plain}
            | {"doubleValue": plain}
            | {"bytesValue": plain}
        ):
            return plain
        case {"arrayValue": {"values": [*items]}}:
            return [_plain(item) for item in items]
        case {"kvlistValue": {"values": [*pairs]}}:
            known = [pair for pair in pairs if isinstance(pair, dict)]
            return {str(pair.get("key")): _plain(pair.get("value")) for pair in known}
    return value
