"""Logs in the OpenTelemetry protocol, as JSON or as protobuf, and the lines that they have."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from app import clock
from app.errors import BadRequest
from app.services.logs.reported import Rejected, ReportedLine, Source

MOST_RECORDS = 10_000
"""Records of one request that are stored. The SDKs of OpenTelemetry send some hundreds at a time."""
LONGEST_BYTES = 64 * 1024
"""The longest text of a record, as of a line that the runtime stores."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NAME_CHARS = 255


class _Attribute(BaseModel):
    key: str
    value: dict[str, Any] | None = None


class _Resource(BaseModel):
    attributes: list[_Attribute] | None = None


class _Record(BaseModel):
    time: int | None = Field(None, alias="timeUnixNano")
    observed: int | None = Field(None, alias="observedTimeUnixNano")
    body: dict[str, Any] | None = None


class _ScopeLogs(BaseModel):
    records: list[_Record] | None = Field(None, alias="logRecords")


class _ResourceLogs(BaseModel):
    resource: _Resource | None = None
    scopes: list[_ScopeLogs] | None = Field(None, alias="scopeLogs")

    def each_record(self) -> Iterator[_Record]:
        for scope in self.scopes or ():
            yield from scope.records or ()


class Export(BaseModel):
    """A request to store logs. What it has beside times, texts and the names of jobs is not read."""

    resource_logs: list[_ResourceLogs] | None = Field(None, alias="resourceLogs")


def read_export(raw: bytes, *, is_protobuf: bool) -> Export:
    """The request in a body; an empty body has no records. Raises BadRequest."""
    if not raw:
        return Export()
    kind = "protobuf" if is_protobuf else "JSON"
    try:
        message = MessageToDict(ExportLogsServiceRequest.FromString(raw)) if is_protobuf else from_json(raw)
        return Export.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BadRequest(f"Invalid {kind} format: {where}: {first['msg']}") from None
    except (DecodeError, ValueError) as error:
        raise BadRequest(f"Invalid {kind} format: {error}") from None


def lines_of(export: Export) -> Iterator[ReportedLine | Rejected]:
    """The line of each record, or why there is none."""
    number = 0
    for logs in export.resource_logs or ():
        source = _source(logs.resource)
        for record in logs.each_record():
            number += 1
            if isinstance(source, Rejected):
                yield source
            elif number > MOST_RECORDS:
                yield Rejected(f"a request has at most {MOST_RECORDS} records")
            else:
                yield _line(source, record)


def _source(resource: _Resource | None) -> Source | Rejected:
    texts = {one.key: _text(one.value) for one in (resource and resource.attributes) or ()}
    names = {key: texts.get(key, "") for key in ("job", "job_attempt", "job_step", "job_task")}
    if missing := [key for key, text in names.items() if not text]:
        return Rejected(f"missing resource attributes: {', '.join(missing)}")
    if long := [key for key, text in names.items() if len(text) > _MOST_NAME_CHARS]:
        return Rejected(f"resource attributes of more than {_MOST_NAME_CHARS} characters: {', '.join(long)}")
    return Source(*names.values())


def _line(source: Source, record: _Record) -> ReportedLine | Rejected:
    text = _text(record.body)
    if len(text.encode()) > LONGEST_BYTES:
        return Rejected(f"a text of more than {LONGEST_BYTES} bytes")
    nanoseconds = record.time or record.observed
    if not nanoseconds:
        return ReportedLine(source, clock.now(), text)
    try:
        return ReportedLine(source, _EPOCH + timedelta(microseconds=nanoseconds // 1000), text)
    except OverflowError:
        return Rejected("a time that is out of range")


def _text(value: dict[str, Any] | None) -> str:
    """An `AnyValue` as text; a list or a map as JSON."""
    plain = _plain(value)
    if plain in (None, {}):
        return ""
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    # PostgreSQL cannot store NUL in a text.
    return text.replace("\0", "")


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
