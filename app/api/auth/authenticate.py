"""Whom a bearer token belongs to, for gateways and clients that have only the token; and our keys to verify some."""

from typing import Any

from flask import current_app, request
from pydantic import BaseModel, Field

from app.access.authenticate import bearer_token
from app.access.authorize import Actor, require_authentic
from app.access.permissions import Permission
from app.access.tokens import TokenKind
from app.db import read
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
def authenticate(call: RequestContext) -> BearerIdentity:
    """Get whom a bearer token belongs to.

    The one in the header `Authorization`; also while authentication is off. An access key has to be in force.
    """
    token = bearer_token(request.headers.get)
    if token is None:
        raise Unauthorized("Missing bearer token")
    service: Service = current_app.extensions["service"]
    try:
        bearer = service.authenticator.bearer(token)
        if bearer.principal.access_key:
            actor = Actor(bearer.principal, Permission.PUBLIC)
            read(call.context.sessions, lambda session: require_authentic(session, actor))
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


class JsonWebKeySet(BaseModel):
    """Public keys, as RFC 7517 has them."""

    keys: list[dict[str, Any]]


@routes.add("GET", "/apis/auth/jwks", permission=Permission.PUBLIC, returns=JsonWebKeySet, transaction=False)
def list_signing_keys(call: RequestContext) -> JsonWebKeySet:  # noqa: ARG001 -- every handler takes the call
    """Get the public keys that verify the tokens of access keys.

    None without a signing file. They do not know whether a key is revoked: ask `authenticate` for that.
    """
    service: Service = current_app.extensions["service"]
    keys = service.authenticator.tokens.signing_keys
    return JsonWebKeySet(keys=keys.published() if keys else [])
