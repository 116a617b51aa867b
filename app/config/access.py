"""The settings of who may call, and how callers prove who they are."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from app.config.section import Section
from app.config.values import ClaimName, Duration, HostName, IssuerUrl, KeyFile, Origin, Secret

_LONGEST_LIFE_S = 100 * 365 * 86400


class AccessSettings(Section):
    """Authentication, administrators, browsers and proxies."""

    auth_enabled: bool = False
    """Authenticate every caller and check roles; otherwise every caller is an administrator."""
    allow_open_access: bool = False
    """Allow a server without authentication to listen beyond loopback, where every client is an administrator.
    Otherwise such a server refuses to start."""
    allow_unsigned_jwt: bool = False
    """Accept unsigned tokens, for local use only: a server that listens beyond loopback refuses to start."""
    admin_email: str = ""
    """A caller with this verified email is a PlatformAdmin, if the gateway or `WORKSPACES_OIDC_ISSUER` vouches
    for it."""
    gateway_secret: Secret = SecretStr("")
    """Shared secret with which the gateway authenticates its identity headers; at least 16 characters. Without it
    these headers are not trusted."""
    gateway_headers: Literal["nmp", "nhx"] = "nmp"
    """Which identity headers the gateway sends: `nmp` for `X-NMP-…`, or `nhx` for `X-NHX-…`, as NeMo Helix has them.
    The gateway must remove both from requests of clients; one of the other sort that it lets through is refused."""
    services: tuple[Annotated[str, Field(min_length=1)], ...] = ("*",)
    """JSON list of the platform's own services, which may do everything: the id `service:jobs` from the gateway is one
    if the list has `jobs`. The default `*` takes every `service:` id for one, as before there was a list; name them
    where the gateway passes on ids that people have chosen."""
    oidc_issuer: IssuerUrl = ""
    """URL of the trusted issuer, as in the claim `iss` of its tokens; clients log in there. Needs a client id or an
    audience."""
    oidc_additional_issuers: tuple[Annotated[IssuerUrl, Field(min_length=1)], ...] = ()
    """JSON list of further trusted issuers. Each of them can issue tokens for any identity, but not for the
    administrator by `WORKSPACES_ADMIN_EMAIL`."""
    oidc_client_id: str = ""
    """OIDC client id used by the CLI and the console; also the expected audience unless `WORKSPACES_OIDC_AUDIENCE` is
    set."""
    oidc_client_secret: Secret = SecretStr("")
    """Secret with which the console proves to the issuer that it is the client, at least 16 characters; empty if the
    issuer asks for none (a public client). Only web processes need it."""
    oidc_audience: str = ""
    """Expected audience of signed tokens; empty means the client id."""
    oidc_jwks_uri: IssuerUrl = ""
    """URL of the issuer's keys; empty means the one in its discovery document."""
    oidc_subject_claim: ClaimName = "sub"
    """Token claim with the caller's id."""
    oidc_email_claim: ClaimName = "email"
    """Token claim with the caller's email."""
    oidc_groups_claim: ClaimName = "groups"
    """Token claim with the caller's groups."""
    oidc_scope_prefix: str = ""
    """Prefix that the issuer puts before our scopes, such as `api://workspaces`; clients request scopes with it."""
    oidc_default_scopes: str = "openid profile email"
    """Scopes that the CLI and the console request when somebody logs in."""
    token_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    """Allowed difference between the clocks of the issuers and ours."""
    jwks_cache_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    """How long an issuer's keys are cached, one day at most: a withdrawn key is accepted for that long, or for a
    day while the issuer does not answer."""
    jwks_cooldown_seconds: Duration = 10
    """Minimum time between two requests for an issuer's keys, whether or not it answered; a new key may be refused
    for that long."""

    console_key_file: KeyFile = ""
    """File with the keys that sign the cookies of the console, in the form of `WORKSPACES_SECRETS_KEY_FILE`: the first
    signs, all verify. The same for all web processes; without one the console answers 503."""
    console_session_seconds: Annotated[float, Field(ge=60, le=30 * 86400)] = 8 * 3600
    """How long a sign-in at the console lasts; then the issuer is asked again."""

    access_keys_enabled: bool = False
    """Offer access keys at `/apis/auth/v2/access-keys` and accept their tokens. Needs a signing file, and callers who
    prove who they are."""
    access_key_signing_file: str = ""
    """File with the private RSA keys (PEM) of access keys: the first one signs, all verify. The same for all web
    processes. Nobody but its owner may read it."""
    access_key_max_seconds: Annotated[float, Field(ge=0, le=_LONGEST_LIFE_S, allow_inf_nan=False)] = 0
    """Longest life of an access key. 0 for no limit: only then may a key have no end. By default a key lives for 30
    days."""
    access_key_retention_days: Annotated[float, Field(gt=0, le=36500)] = 30
    """Age in days, since its end, at which an access key that is revoked or expired is forgotten."""

    trusted_hosts: tuple[HostName, ...] = ()
    """JSON list of the host names by which clients reach the API, besides `localhost` and IP addresses. Requests by any
    other name are refused while authentication is off or `WORKSPACES_ALLOW_UNSIGNED_JWT` is true, and wherever the list
    is not empty; `/health/` answers all."""
    trusted_origins: tuple[Origin, ...] = ()
    """JSON list of further origins whose pages in a browser may write, such as `https://console.example.com`; those of
    the request's own Host may always."""
    trusted_proxies: Annotated[int, Field(ge=0)] = 0
    """Number of reverse proxies in front of the API: this many entries of `X-Forwarded-For` are trusted, counted
    from the last. Without it the audit log shows a proxy's address for all clients behind it."""
