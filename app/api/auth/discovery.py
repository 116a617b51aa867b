"""The discovery document for clients that log in."""

from flask import current_app
from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.http.route import RequestContext, Routes

routes = Routes("system")


class Oidc(BaseModel):
    """The token issuer. Endpoints that it does not publish, or not now, are left out."""

    issuer: str
    client_id: str
    default_scopes: str
    scope_prefix: str
    authorization_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    token_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    device_authorization_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    userinfo_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)


class Discovery(BaseModel):
    """Whether authentication is on, and the issuer of tokens."""

    auth_enabled: bool
    oidc: Oidc | None


@routes.add("GET", "/apis/auth/discovery", permission=Permission.PUBLIC, returns=Discovery, transaction=False)
def discover_auth(call: RequestContext) -> Discovery:
    """Get the settings for logging in."""
    settings = call.context.settings
    issuer = current_app.extensions["service"].authenticator.tokens.issuers.get(settings.oidc_issuer)
    if not settings.auth_enabled or issuer is None:
        return Discovery(auth_enabled=settings.auth_enabled, oidc=None)
    published = issuer.document()
    endpoints = {name: published[name] for name in Oidc.model_fields if isinstance(published.get(name), str)}
    oidc = Oidc.model_validate(
        endpoints
        | {
            "issuer": settings.oidc_issuer,
            "client_id": settings.oidc_client_id,
            "default_scopes": settings.oidc_default_scopes,
            "scope_prefix": settings.oidc_scope_prefix,
        }
    )
    return Discovery(auth_enabled=True, oidc=oidc)
