"""How a client logs in."""

from flask import current_app
from pydantic import BaseModel, Field

from app.access.permissions import Permission
from app.http.route import RequestContext, Routes

routes = Routes("system")


class Oidc(BaseModel):
    """Where a client gets its tokens; endpoints are left out that the issuer has not or does not tell now."""

    issuer: str
    client_id: str
    default_scopes: str
    scope_prefix: str
    authorization_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    token_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    device_authorization_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)
    userinfo_endpoint: str | None = Field(None, exclude_if=lambda value: value is None)


class Discovery(BaseModel):
    """How a client logs in."""

    auth_enabled: bool
    oidc: Oidc | None


@routes.add("GET", "/apis/auth/discovery", permission=Permission.PUBLIC, returns=Discovery, transaction=False)
def discover_auth(call: RequestContext) -> Discovery:
    """Learn whether and how to log in."""
    settings = call.context.settings
    issuer = current_app.extensions["service"].authenticator.tokens.issuers.get(settings.oidc_issuer)
    if not settings.auth_enabled or issuer is None:
        return Discovery(auth_enabled=settings.auth_enabled, oidc=None)
    told = issuer.document()
    endpoints = {name: told[name] for name in Oidc.model_fields if isinstance(told.get(name), str)}
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
