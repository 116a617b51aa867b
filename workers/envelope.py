"""The form of a message that a worker takes from the broker: whoever reaches the broker can put anything there."""

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

T = TypeVar("T")

_MAX_BYTES = 1024 * 1024
"""More than any message of ours: their facts are names and ids."""

Text = Annotated[str, StringConstraints(max_length=64 * 1024)]
RequestId = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9._-]{1,64}\z")]
"""As the API accepts them: it stands in the log."""
Traceparent = Annotated[str, StringConstraints(pattern=r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\z")]
Seconds = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)]


class MalformedMessage(ValueError):
    """A message that no program of ours has sent; the text names the first thing that is wrong with it."""


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class _DeliveryInfo(_Form):
    exchange: Text = ""
    routing_key: Text = ""
    redelivered: bool = False


class _Properties(_Form):
    delivery_tag: Annotated[Text, Field(min_length=1)]
    body_encoding: Literal["base64"]
    delivery_info: _DeliveryInfo
    delivery_mode: int | None = None
    priority: int | None = None
    reply_to: Text | None = None
    correlation_id: Text | None = None


class _Envelope(_Form):
    """What every message has, those to all workers included."""

    body: Annotated[str, StringConstraints(max_length=_MAX_BYTES)]
    properties: _Properties
    headers: dict[str, Any]
    content_type: str = Field(alias="content-type")
    content_encoding: str = Field(alias="content-encoding")


class _TaskHeaders(_Form):
    """Those that Celery sends, and our own."""

    task: Text
    id: Text
    lang: Text | None = None
    shadow: Text | None = None
    root_id: Text | None = None
    parent_id: Text | None = None
    group: Text | None = None
    group_index: int | None = None
    meth: Text | None = None
    eta: Text | None = None
    expires: Text | None = None
    retries: Annotated[int, Field(ge=0)] = 0
    timelimit: Annotated[list[Seconds | None], Field(min_length=2, max_length=2)] | None = None
    argsrepr: Text | None = None
    kwargsrepr: Text | None = None
    origin: Text | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[Text] | None = None
    stamps: dict[str, Text | list[Text]] | None = None
    redelivered: bool = False
    request_id: RequestId | None = None
    traceparent: Traceparent | None = None


class _Embedded(_Form):
    """What would run after the task: nothing of ours does."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_ENVELOPE = TypeAdapter(_Envelope)
_HEADERS = TypeAdapter(_TaskHeaders)
_TASK_BODY = TypeAdapter(tuple[list[Any], dict[str, Any], _Embedded])


def unpackable(message: Any) -> dict[str, Any]:
    """`message`, if it can be unpacked. Raises MalformedMessage."""
    _checked(_ENVELOPE.validate_python, message)
    return message  # type: ignore[no-any-return]  # its form was just checked


def executable(message: Any) -> dict[str, Any]:
    """`message` without headers that we do not know, if it asks for a task in the form in which ours do.

    Raises MalformedMessage.
    """
    envelope = _checked(_ENVELOPE.validate_python, message)
    if (envelope.content_type, envelope.content_encoding) != ("application/json", "utf-8"):
        raise MalformedMessage("content-type: it is not JSON in UTF-8")
    headers = _checked(_HEADERS.validate_python, envelope.headers)
    try:
        body = base64.b64decode(envelope.body, validate=True)
    except ValueError:
        raise MalformedMessage("body: it is not base64") from None
    _checked(_TASK_BODY.validate_json, body)
    properties = envelope.properties.model_dump(exclude_unset=True)
    return {**message, "headers": headers.model_dump(exclude_unset=True), "properties": properties}


def _checked(validate: Callable[[Any], T], value: Any) -> T:
    try:
        return validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedMessage(f"{where or 'all of it'}: {first['msg']}") from None
