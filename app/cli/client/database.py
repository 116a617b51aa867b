"""The routes of the API carried out in this process: `--direct`, for when the server or the broker is down."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import request
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from app.access.authenticate import Authenticator
from app.access.gateway import Header
from app.access.principal import Principal
from app.api.application import assemble
from app.cli.client.api import Away, Query, refused
from app.cli.direct import OPERATOR, describe
from app.clock import database_now
from app.context import Context
from app.db import read
from app.errors import DomainError
from app.http.rate_limit import WriteLimit
from app.http.validation import InvalidRequest
from app.http.views import Service


class _OperatorOfThisHost(Authenticator):
    """Whoever has the settings of the processes can do in the database whatever the API permits to anybody."""

    def principal(self, header: Header) -> Principal:  # noqa: ARG002 -- no request says who asks
        return Principal(OPERATOR, is_platform_admin=True)


class Database:
    """The same functions behind the same routes as those of a server, on the database of the settings."""

    option = " --direct"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._app = assemble()
        unlimited = context.settings.model_copy(update={"write_rate_limit": ""})
        self._app.extensions["service"] = Service(
            context, _OperatorOfThisHost(context.settings), WriteLimit(unlimited)
        )

    def ask(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """The body of the answer to a request. Raises Refused or Away."""
        given = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        with self._app.test_request_context(path, method=method, query_string=given, json=body):
            if request.routing_exception:
                raise request.routing_exception
            # The view without Flask's error handlers, which would hide from the operator what the server's log has.
            view: Callable[..., Any] = self._app.view_functions[str(request.endpoint)]
            try:
                return self._app.make_response(view(**(request.view_args or {}))).get_json()
            except DomainError as error:
                raise refused(error.status, error.message) from None
            except InvalidRequest as error:
                raise refused(422, error.errors) from None
            except HTTPException as error:
                raise refused(error.code or 500, error.name) from None
            except (OperationalError, PoolTimeout) as error:
                raise Away(describe(error)) from None

    def time(self) -> str:
        """The database's time."""
        at = read(self._context.sessions, lambda session: session.scalars(select(database_now())).one())
        return f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"
