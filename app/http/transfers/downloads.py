"""A stored file as a response: the whole of it, a part, or word that it is unchanged."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from flask import Response, request

from app.errors import DomainError
from app.http.transfers.conditions import Conditions, requested_span
from app.http.transfers.streaming import RevocableStream
from app.storage.reading import Reading


def file_response(
    reading: Reading, *, is_permitted: Callable[[], bool], store_errors: AbstractContextManager[None]
) -> Response:
    """The response to the current GET or HEAD of a file, by its conditions and its range; it closes `reading`.

    The first bytes are read within `store_errors`, before the response starts. Raises BadRequest, PreconditionFailed,
    RangeNotSatisfiable, and as `store_errors` does.
    """
    try:
        conditions = Conditions.of_request()
        conditions.require_match(reading.etag)
        is_known = conditions.is_known(reading.etag)
        span = None if is_known else requested_span(reading.size, reading.etag)
    except DomainError:
        reading.close()
        raise
    if is_known:
        reading.close()
        response = Response(status=304)
    else:
        with store_errors:
            response = _content(reading, span, is_permitted)
    if reading.etag:
        response.set_etag(reading.etag)
    return response


def _content(reading: Reading, span: tuple[int, int] | None, is_permitted: Callable[[], bool]) -> Response:
    start, stop = span or (0, reading.size)
    reading.limit(start, stop)
    if request.method == "GET":
        reading.begin()
    stream = RevocableStream(reading, is_permitted, close=reading.close)
    response = Response(stream, 206 if span else 200, mimetype="application/octet-stream")
    response.content_length = stop - start
    response.headers["Accept-Ranges"] = "bytes"
    # A browser must never take a stored file for one of our pages.
    response.headers["X-Content-Type-Options"] = "nosniff"
    if span:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{reading.size}"
    return response
