"""Validation of the address, the parameters and the body, before a handler runs."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from app.errors import BadRequest, Busy, DomainError, TooLarge, TooSlow

_FILTER = re.compile(r"(filter|search)(\[.*\])?", re.DOTALL)

_BODY_S = 10.0
"""The time for a JSON body, beyond the time that its bytes add."""

_MAX_ERRORS = 100
"""Errors in one answer. A body can contain a million, and nobody reads more than the first."""


class InvalidRequest(Exception):
    """A body or parameter does not fit its model; `errors` is the published list of a 422."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("invalid request")
        self.errors = errors


def path_parameters(given: Mapping[str, str], types: Mapping[str, TypeAdapter[Any]]) -> dict[str, Any]:
    """`given`, validated by `types` where they name a parameter. Raises InvalidRequest or BadRequest."""
    _refuse_invalid_text()
    values: dict[str, Any] = dict(given)
    for name, type_ in types.items():
        with _publishing_errors("path", name):
            values[name] = type_.validate_python(given[name])
    return values


def query_parameters(model: type[BaseModel], *, ignored: tuple[str, ...] = ()) -> BaseModel:
    """The query string as `model`, whose unknown parameters are refused by name. Raises InvalidRequest.

    `ignored` are parameters that may be there and change nothing. Where there is a filter, its keys are read elsewhere.
    """
    given = request.args.to_dict(flat=False)
    if "filter" in model.model_fields:
        given = {name: values for name, values in given.items() if not _FILTER.fullmatch(name)}
    repeated = [name for name, values in given.items() if len(values) > 1]
    if repeated:
        raise InvalidRequest([_repeated(name) for name in repeated[:_MAX_ERRORS]])
    with _publishing_errors("query"):
        return model.model_validate({name: text for name, [text] in given.items() if name not in ignored})


def _repeated(name: str) -> dict[str, Any]:
    return {
        "type": "value_error",
        "loc": ["query", name],
        "msg": "The parameter is given more than once; give it once",
    }


def json_body(
    model: type[BaseModel], *, is_optional: bool, max_bytes: int, max_depth: int
) -> BaseModel | None:
    """The body as `model`; None if it is optional and empty. Raises InvalidRequest or TooLarge."""
    raw = raw_body(max_bytes)
    if is_optional and not raw:
        return None
    if request.mimetype != "application/json":
        raise _body_error(
            "value_error", "A JSON body is required: send it with Content-Type: application/json"
        )
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        if "recursion limit" in str(error):  # The limit of the parser, far above any setting.
            raise _too_deep(max_depth) from None
        raise _body_error("json_invalid", f"JSON decode error: {error}") from None
    _refuse_unstorable(value, max_depth)
    with _publishing_errors("body", with_input=getattr(model, "may_be_repeated", True)):
        # Strict: `{"protected": "off"}` must not protect. Parsed again from the text, because only there strict
        # mode accepts a string for a UUID or an enum.
        return model.model_validate_json(raw, strict=True)


def _refuse_invalid_text() -> None:
    # Werkzeug replaces broken bytes by U+FFFD, so two different addresses would become one.
    address = request.environ["PATH_INFO"].encode("latin-1") + unquote_to_bytes(request.query_string)
    try:
        text = address.decode()
    except UnicodeDecodeError:
        raise BadRequest("The address is not UTF-8; percent-encode it as UTF-8.") from None
    # PostgreSQL text cannot contain NUL, so no such name exists and no such value can be compared.
    if "\0" in text:
        raise BadRequest("The address contains a NUL character; remove it.")


def raw_body(max_bytes: int) -> bytes:
    """The body as it arrived. Raises TooLarge, TooSlow, BadRequest if it broke off, and Busy in a restart."""
    request.max_content_length = max_bytes
    connection = request.environ.get("gunicorn.socket")
    try:
        with connection.body_within(_BODY_S) if connection else nullcontext():
            body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise TooLarge(f"The body is larger than {max_bytes} bytes, the most that is accepted.") from None
    except ClientDisconnected as error:
        if isinstance(error.__context__, TimeoutError):
            raise TooSlow("The body was sent too slowly.") from None
        raise _broken_off(connection) from None
    except TimeoutError:
        raise TooSlow("The body was sent too slowly.") from None
    except Exception:  # noqa: BLE001 -- the boundary to the server, which has its own errors for bad chunks
        raise BadRequest("The body is malformed, or broke off: its chunks cannot be read.") from None
    # Some servers end the stream without an error when the connection breaks.
    if len(body) < (request.content_length or 0):
        raise _broken_off(connection)
    return body


def _broken_off(connection: Any) -> DomainError:
    if connection and connection.is_cut:
        return Busy("The server is restarting; send the request again.")
    return BadRequest("The body broke off.")


def _refuse_unstorable(value: Any, max_depth: int) -> None:
    """Refuse JSON that cannot be stored: deep nesting, NUL in text, and numbers too large for any column."""
    # Level by level: the depth is known without storing it for each of a million values.
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str) and "\0" in one:
                raise _body_error("value_error", "Text must not contain NUL characters")
            elif (isinstance(one, float) and not math.isfinite(one)) or (
                isinstance(one, int) and one.bit_length() > 1024
            ):
                raise _body_error("value_error", "A number is too large to be stored")
        if depth == max_depth and any(isinstance(one, dict | list) for one in level):
            raise _too_deep(max_depth)
        level, depth = below, depth + 1


def _too_deep(max_depth: int) -> InvalidRequest:
    return _body_error("value_error", f"The body is nested more than {max_depth} levels deep; flatten it")


def _body_error(kind: str, message: str) -> InvalidRequest:
    return InvalidRequest([{"type": kind, "loc": ["body"], "msg": message}])


@contextmanager
def _publishing_errors(*where: str, with_input: bool = True) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=with_input)[:_MAX_ERRORS]
        raise InvalidRequest([_published(dict(one), where) for one in found]) from None


def _published(error: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    error["loc"] = [*where, *error["loc"]]
    # The clients know one type for a value that is none of those which are listed.
    error["type"] = "enum" if error["type"] == "literal_error" else error["type"]
    if "ctx" in error:
        error["ctx"] = {key: _in_json(value) for key, value in error["ctx"].items()}
    if len(repr(error.get("input"))) > 1000:
        del error["input"]
    return error


def _in_json(value: Any) -> Any:
    """A limit as the number that it is; anything else, such as an exception, as text."""
    return value if isinstance(value, bool | int | float) else str(value)
