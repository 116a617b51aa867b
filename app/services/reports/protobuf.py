"""The protobuf form of logs, unpacked one level at a time: two bytes can be a message that takes hundreds in memory."""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

Unpack = Callable[[bytes], dict[str, Any]]
"""Unpacks a message: its fields by their names in JSON, with the messages in it as bytes. Raises DecodeError."""

_TEXT, _BYTES, _FIXED64 = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_FIXED64,
)


def _unpacking(
    name: str,
    *,
    lists: dict[str, int] | None = None,
    messages: dict[str, int] | None = None,
    values: dict[str, tuple[int, "FieldDescriptorProto.Type.ValueType"]] | None = None,
) -> Unpack:
    """Unpacks messages with these fields, by their numbers; those that are not named here are not read."""
    # A message that is there twice is merged: as bytes, one is put behind the other.
    parts = {**(lists or {}), **(messages or {})}
    file = FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
    described = file.message_type.add(name=name)
    for field, number in parts.items():
        label = FieldDescriptorProto.LABEL_REPEATED
        described.field.add(name=field, number=number, type=_BYTES, label=label)
    for field, (number, kind) in (values or {}).items():
        described.field.add(name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    message: Any = GetMessageClass(pool.FindMessageTypeByName(name))

    def unpack(raw: bytes) -> dict[str, Any]:
        found = message.FromString(raw)
        return {
            **{field: list(getattr(found, field)) for field in lists or ()},
            **{field: b"".join(getattr(found, field)) for field in messages or ()},
            **{field: getattr(found, field) for field in values or ()},
        }

    return unpack


unpack_export = _unpacking("Export", lists={"resourceLogs": 1})
unpack_resource_logs = _unpacking("ResourceLogs", messages={"resource": 1}, lists={"scopeLogs": 2})
unpack_resource = _unpacking("Resource", lists={"attributes": 1})
unpack_attribute = _unpacking("Attribute", values={"key": (1, _TEXT)}, messages={"value": 2})
unpack_scope_logs = _unpacking("ScopeLogs", lists={"logRecords": 2})
unpack_record = _unpacking(
    "Record",
    values={"timeUnixNano": (1, _FIXED64), "observedTimeUnixNano": (11, _FIXED64)},
    messages={"body": 5},
)


def unpack_value(raw: bytes) -> dict[str, Any]:
    """A whole `AnyValue`, as JSON has it. To be called with bytes that are few enough. Raises DecodeError."""
    value: dict[str, Any] = MessageToDict(AnyValue.FromString(raw))
    return value
