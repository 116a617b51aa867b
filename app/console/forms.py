"""The forms that browsers send: bounded, and of text that can be stored."""

from urllib.parse import parse_qsl

from flask import request

from app.errors import BadRequest
from app.http.validation import raw_body

_FORM_BYTES = 64 * 1024
_MOST_FIELDS = 50


def sent_form() -> dict[str, str]:
    """The fields of the form that the request has; of two of the same name the last.

    Raises BadRequest for what no page of ours sends, and what `raw_body` raises.
    """
    if request.mimetype != "application/x-www-form-urlencoded":
        raise BadRequest("A form is required: send it as application/x-www-form-urlencoded.")
    try:
        text = raw_body(_FORM_BYTES).decode()
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"))
    except ValueError:
        raise BadRequest("The form cannot be read: load the page again.") from None
    # PostgreSQL text cannot contain NUL.
    if any("\0" in value for value in fields.values()):
        raise BadRequest("The form contains a NUL character; remove it.")
    return fields
