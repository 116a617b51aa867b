"""Whom a bearer token belongs to, for gateways and clients that have only the token."""

from flask import current_app, request
from pydantic import BaseModel, Field

from app.access.authenticate import bearer_token
from app.access.permissions import Permission
from app.access.tokens import TokenKind
from app.errors import BadRequest, Busy, Unauthorized
from app.http.route import RequestContext, Routes
from app.http.views import Service

routes = Routes("authentication")
PATH = "/apis/auth/authenticate"


class BearerIdentity(BaseModel):
    """Whom the token belongs to. No token acts on behalf of somebody else: only the gateway's headers can say so."""

    principal: str
    email: str | None
    groups: list[str]
    scopes: list[str] = Field(description="All scopes of the token, also those that restrict nothing here.")
    jti: str | None = Field(description="The id of the token, if it has one.")
    token_kind: TokenKind
    on_behalf_of: str | None = None
    on_behalf_of_email: str | None = None
    on_behalf_of_groups: list[str] = []


@routes.add(
    "POST",
    PATH,
    permission=Permission.PUBLIC,
    returns=BearerIdentity,
    raises=(Unauthorized, Busy),
    transaction=False,
)
@routes.add(
    "GET",
    PATH,
    permission=Permission.PUBLIC,
    returns=BearerIdentity,
    raises=(Unauthorized, Busy),
    transaction=False,
)
def authenticate(call: RequestContext) -> BearerIdentity:  # noqa: ARG001 -- every handler takes the call
    """Get whom a bearer token belongs to.

    The one in the header `Authorization`; also while authentication is off.
    """
    token = bearer_token(request.headers.get)
    if token is None:
        raise Unauthorized("Missing bearer token")
    service: Service = current_app.extensions["service"]
    try:
        bearer = service.authenticator.bearer(token)
    except (Unauthorized, BadRequest):
        raise Unauthorized("Invalid bearer token") from None
    return BearerIdentity(
        principal=bearer.principal.id,
        email=bearer.principal.email or None,
        groups=sorted(bearer.principal.groups),
        scopes=list(bearer.scopes),
        jti=bearer.token_id,
        token_kind=bearer.kind,
    )
