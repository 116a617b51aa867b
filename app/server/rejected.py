"""What the server refuses itself: the published form of an error, for requests that the application never sees."""

import json
from http import HTTPStatus

from gunicorn.http import errors

from app.http.headers import ALWAYS

_STATUS: dict[type[Exception], HTTPStatus] = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
}
"""The statuses of gunicorn's errors; all others of a request are a 400."""

_DETAIL: dict[type[Exception], str] = {
    errors.LimitRequestLine: "The address is too long: at most 8190 bytes with the method; shorten the filter.",
    errors.LimitRequestHeaders: "The headers are too large, or too many; send fewer of them.",
    errors.UnsupportedTransferCoding: "Only the transfer coding 'chunked' is supported; send the body as it is.",
    errors.ExpectationFailed: "Only the expectation '100-continue' is supported; leave the header Expect out.",
}


class Refused(errors.ParseException):  # type: ignore[misc]  # gunicorn has no types
    """A request that is refused with a status and a detail before the application sees it."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def rejection_of(error: Exception) -> Refused | None:
    """What an error of gunicorn's about a request stands for, as Refused; None for any other error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName) or not isinstance(
        error, errors.ParseException
    ):
        return None
    status = _STATUS.get(type(error), HTTPStatus.BAD_REQUEST)
    return Refused(status, _DETAIL.get(type(error), f"The request is malformed. {error}."))


def response(status: HTTPStatus, detail: str) -> bytes:
    """A whole response with `detail`, after which the connection is closed."""
    body = json.dumps({"detail": detail}).encode() + b"\n"
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **ALWAYS,
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body
