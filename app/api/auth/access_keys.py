"""Access keys over HTTP: tokens that a user makes for its programs, or an administrator for service accounts."""

from typing import Annotated, Any, Literal, Self

from flask import current_app
from pydantic import BaseModel, Field

from app import models as rows
from app.access.keys import registry
from app.access.keys.signing import AUDIENCE, ISSUER, SigningKeys
from app.access.permissions import Permission
from app.clock import Timestamp
from app.errors import AccessKeysDisabled, BadRequest, Forbidden, NotFound, WrongState
from app.http.paging import MAX_PAGE
from app.http.route import Body, Query, RequestContext, Routes
from app.http.views import Service
from app.lifecycle import AccessKeyHolder, AccessKeyStatus

routes = Routes("access keys")
BASE = "/apis/auth/v2/access-keys"
ONE = f"{BASE}/<jti>"
DEFAULT_LIFE_S = 30 * 86400
_LONGEST_LIFE_S = 100 * 365 * 86400

KeyId = Annotated[str, Field(pattern="^ak_[0-9a-f]{32}$")]


class AccessKeyCreate(Body):
    """A key to make."""

    name: str | None = Field(None, min_length=1, max_length=128)
    description: str | None = Field(None, max_length=1024)
    expires_in_seconds: int | None = Field(
        None,
        ge=1,
        le=_LONGEST_LIFE_S,
        description="Its life; 30 days if absent. Null for a key without an end, if the server has no maximum.",
    )
    service_account_id: str | None = Field(
        None,
        max_length=240,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._+/-]*$",
        description="The service account that it is for, whose principal is `service-account:<id>`. For platform "
        "administrators.",
    )

    def life_s(self, longest_s: float) -> float | None:
        """Its life in seconds, None if it has no end. Raises BadRequest for one that is too long."""
        if "expires_in_seconds" not in self.model_fields_set:
            return min(DEFAULT_LIFE_S, longest_s) if longest_s else DEFAULT_LIFE_S
        if longest_s and (self.expires_in_seconds is None or self.expires_in_seconds > longest_s):
            raise BadRequest(
                f"expires_in_seconds must be at most {longest_s:g}, the maximum of this server "
                "(WORKSPACES_ACCESS_KEY_MAX_SECONDS), and cannot be null."
            )
        return self.expires_in_seconds


class AccessKey(BaseModel):
    """A key, without its token."""

    jti: str
    name: str | None
    description: str | None
    principal: str = Field(description="Whom a caller with this key is.")
    entity_type: AccessKeyHolder
    status: AccessKeyStatus
    issuer: str
    audiences: list[str]
    created_at: Timestamp
    expires_at: Timestamp | None

    @classmethod
    def of(cls, key: rows.AccessKey, status: str, **more: Any) -> Self:
        """The public form of a row with that status; `more` are further fields."""
        same = ("jti", "name", "description", "principal", "created_at", "expires_at")
        values = {name: getattr(key, name) for name in same}
        return cls(
            **values, **more, entity_type=key.holder, status=status, issuer=ISSUER, audiences=[AUDIENCE]
        )


class IssuedAccessKey(AccessKey):
    """A new key with its token, which nobody can read again."""

    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- the word of the protocol


class AccessKeyList(BaseModel):
    """A page of keys."""

    data: list[AccessKey]
    has_more: bool


class AccessKeyRevocation(BaseModel):
    """What became of a key; `revoked` is false if it had been revoked before."""

    jti: str
    revoked: bool


class AccessKeySwitch(BaseModel):
    """The status of a key from now on; `changed` is false if it was the same before."""

    jti: str
    status: AccessKeyStatus
    changed: bool


class AccessKeyQuery(Query):
    """A page of keys."""

    page: int = Field(1, ge=1, le=MAX_PAGE // 100)
    page_size: int = Field(100, ge=1, le=100)


@routes.add(
    "POST",
    BASE,
    permission=Permission.ACCESS_KEYS_WRITE,
    returns=IssuedAccessKey,
    raises=(AccessKeysDisabled, BadRequest, Forbidden),
)
def create_access_key(call: RequestContext, body: AccessKeyCreate) -> IssuedAccessKey:
    """Make an access key.

    Its `token` is in this answer alone. A caller with it is you, with the roles that your id and your email have at
    that moment, but not those of your groups; or it is the service account. A key cannot make keys.
    """
    signing_keys = _signing_keys()
    new = registry.NewKey(
        body.name,
        body.description,
        body.life_s(call.context.settings.access_key_max_seconds),
        body.service_account_id,
    )
    key = registry.create_key(call.session, call.actor, new)
    token = signing_keys.sign(
        key.jti, key.principal, key.email, issued_at=key.created_at, expires_at=key.expires_at
    )
    return IssuedAccessKey.of(key, AccessKeyStatus.ACTIVE, token=token)


@routes.add(
    "GET",
    BASE,
    permission=Permission.ACCESS_KEYS_READ,
    returns=AccessKeyList,
    raises=(AccessKeysDisabled,),
)
def list_access_keys(call: RequestContext, query: AccessKeyQuery) -> AccessKeyList:
    """List your access keys, newest first.

    Platform administrators also see those of service accounts.
    """
    _signing_keys()
    found, has_more = registry.list_keys(call.session, call.actor, page=query.page, page_size=query.page_size)
    return AccessKeyList(data=[AccessKey.of(key, status) for key, status in found], has_more=has_more)


@routes.add(
    "DELETE",
    ONE,
    permission=Permission.ACCESS_KEYS_WRITE,
    returns=AccessKeyRevocation,
    raises=(AccessKeysDisabled, NotFound),
)
def revoke_access_key(call: RequestContext, jti: KeyId) -> AccessKeyRevocation:
    """Revoke an access key for good.

    The next request with it is refused. Platform administrators can revoke every key.
    """
    _signing_keys()
    return AccessKeyRevocation(jti=jti, revoked=registry.revoke_key(call.session, call.actor, jti))


@routes.add(
    "POST",
    f"{ONE}/suspend",
    permission=Permission.ACCESS_KEYS_WRITE,
    returns=AccessKeySwitch,
    raises=(AccessKeysDisabled, NotFound, WrongState),
)
def suspend_access_key(call: RequestContext, jti: KeyId) -> AccessKeySwitch:
    """Suspend an access key until it is unsuspended."""
    _signing_keys()
    status, changed = registry.suspend_key(call.session, call.actor, jti)
    return AccessKeySwitch(jti=jti, status=status, changed=changed)


@routes.add(
    "POST",
    f"{ONE}/unsuspend",
    permission=Permission.ACCESS_KEYS_WRITE,
    returns=AccessKeySwitch,
    raises=(AccessKeysDisabled, NotFound, WrongState),
)
def unsuspend_access_key(call: RequestContext, jti: KeyId) -> AccessKeySwitch:
    """Accept a suspended access key again."""
    _signing_keys()
    status, changed = registry.unsuspend_key(call.session, call.actor, jti)
    return AccessKeySwitch(jti=jti, status=status, changed=changed)


def _signing_keys() -> SigningKeys:
    """The keys that sign tokens. Raises AccessKeysDisabled unless the settings switch access keys on."""
    service: Service = current_app.extensions["service"]
    keys = service.authenticator.tokens.signing_keys
    if keys is None or not service.context.settings.access_keys_enabled:
        raise AccessKeysDisabled("Scoped Access Keys are not enabled")
    return keys
