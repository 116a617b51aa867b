"""Error responses: one JSON shape, the right status, no internals of the server."""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, jsonify, request
from psycopg.errors import IdleInTransactionSessionTimeout, LockNotAvailable, QueryCanceled
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from app.db import OutcomeUnknown
from app.errors import DomainError, RangeNotSatisfiable, TooManyRequests, Unauthorized
from app.health.database_faults import DatabaseFault, fault_of
from app.http.validation import InvalidRequest
from app.logs import explain, get_logger

log = get_logger(__name__)


def register_failures(app: Flask) -> None:
    """Register a handler in `app` for every exception, with the published form."""
    app.register_error_handler(DomainError, _domain)
    app.register_error_handler(InvalidRequest, _invalid)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(PoolTimeout, _busy)
    app.register_error_handler(DBAPIError, _database)
    app.register_error_handler(Exception, _unexpected)


def _answer(status: int, detail: Any, *, code: str | None = None) -> Response:
    response = jsonify(detail=detail, code=code) if code else jsonify(detail=detail)
    response.status_code = status
    if status == HTTPStatus.CONFLICT:
        # Otherwise the SDK repeats the request, and the answer would be the same.
        response.headers["x-should-retry"] = "false"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


def _domain(error: DomainError) -> Response:
    response = _answer(error.status, error.message, code=error.code)
    match error:
        case Unauthorized():
            response.headers["WWW-Authenticate"] = "Bearer"
        case TooManyRequests():
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        case RangeNotSatisfiable():
            response.headers["Content-Range"] = f"bytes */{error.size}"
            response.set_etag(error.etag)
    return response


def _invalid(error: InvalidRequest) -> Response:
    return _answer(422, error.errors)


def _http(error: HTTPException) -> Response:
    if isinstance(error, NotFound) and len(request.path) > 1 and request.path.endswith("/"):
        return _without_trailing_slash()
    response = _answer(error.code or 500, error.name)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _without_trailing_slash() -> Response:
    # Quoted again: browsers skip a tab, so a decoded `/%09/evil.example/` would lead to another host.
    location = quote(request.path.rstrip("/"))
    if request.query_string:
        location += f"?{request.query_string.decode('latin-1')}"
    response = _answer(307, "Remove the slash at the end of the address.")
    response.headers["Location"] = location
    return response


def _database(error: DBAPIError) -> Response:
    if isinstance(error.orig, IdleInTransactionSessionTimeout | OutcomeUnknown):
        log.warning("request.outcome_unknown", path=request.path, error=explain(error))
        return _answer(
            503,
            "The request may have been applied: the database was lost meanwhile, or it took too long. Read the "
            "resource, or repeat the request.",
        )
    if isinstance(error.orig, LockNotAvailable | QueryCanceled) or isinstance(error, OperationalError):
        return _busy(error)
    return _unexpected(error)


def _busy(error: Exception) -> Response:
    fault = fault_of(error)
    log.warning("request.database_busy", path=request.path, fault=fault.name.lower(), error=explain(error))
    if fault is DatabaseFault.FULL:
        return _answer(507, f"The database {fault.value}; its operator has to look.")
    return _answer(503, f"The database {fault.value}; try again.")


def _unexpected(error: Exception) -> Response:
    log.error("request.failed", path=request.path, method=request.method, exc_info=error)
    return _answer(500, "An unexpected error occurred.")
