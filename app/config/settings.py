"""Settings from the environment, prefix `WORKSPACES_`; a bad value refuses to start."""

import os
import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from socket import getaddrinfo
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from app.config.profiles import USUAL, ExecutionProfile, distinct

_CAN_END_PROCESSES = sys.platform == "linux"
"""prctl and /proc see to it that nothing a job has started outlives it; no other system has both."""

_LONGEST_S = 10 * 365 * 86400
Duration = Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]
DurationOrZero = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]


def _rate(text: str) -> str:
    if text and not re.fullmatch(r"[1-9][0-9]{0,5}/(second|minute|hour|day)", text):
        raise ValueError(
            "a rate is a number below a million per second, minute, hour or day, such as 100/minute; "
            "leave it empty for no limit"
        )
    return text


def is_protected(url: str) -> bool:
    """Whether nobody on the way can change what `url` answers: https, or http that stays on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        return parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return parts.scheme == "https" and bool(parts.hostname)


def is_loopback(host: str) -> bool:
    """Whether every address of `host` can be reached from this machine only."""
    try:
        found = {ip_address(str(address[0])) for *_, address in getaddrinfo(host, None)}
    except (OSError, ValueError):
        return False
    return all(
        (one.ipv4_mapped if isinstance(one, IPv6Address) and one.ipv4_mapped else one).is_loopback
        for one in found
    )


def _protected(url: str) -> str:
    if url and not is_protected(url):
        raise ValueError("keys of issuers are fetched over https; http only from 127.0.0.1, ::1 or localhost")
    return url


IssuerUrl = Annotated[str, AfterValidator(_protected)]
ClaimName = Annotated[str, Field(min_length=1)]


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not (len(text) >= 16 and text.isascii() and text.isprintable() and text == text.strip()):
        raise ValueError("needs at least 16 characters, all of them printable ASCII as a header can carry")
    return value


class Settings(BaseSettings):
    """Every knob of the product. Durations are in seconds, sizes in bytes unless the name says otherwise."""

    # Without its input: an error that quoted the settings would quote their passwords.
    model_config = SettingsConfigDict(
        env_prefix="WORKSPACES_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    # URLs may hold a password, so they are left out of `repr(settings)`.
    database_url: str = Field("postgresql+psycopg://app@127.0.0.1:5432/workspaces", repr=False)
    broker_url: str = Field("redis://127.0.0.1:6379/0", repr=False)
    data_dir: Path = Path(".data")
    storage_url: str = Field("", repr=False)
    """Any fsspec URL; empty means the directory `blobs` in `data_dir`."""

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_token: SecretStr = SecretStr("")
    """Bearer token that may read /metrics from another host; without it only loopback may."""

    # --- access
    auth_enabled: bool = False
    """Ask everybody who they are, and let roles decide; without it every caller is an administrator."""
    allow_open_access: bool = False
    """Listen beyond loopback although authentication is off: whoever reaches the server is an administrator."""
    allow_unsigned_jwt: bool = False
    """Believe tokens that nobody has signed; for local use, so a server beyond loopback refuses to start."""
    admin_email: str = ""
    """Whoever proves this email is a PlatformAdmin."""
    gateway_secret: Annotated[SecretStr, AfterValidator(_secret)] = SecretStr("")
    """By which the gateway proves that its identity headers are its own; without it they prove nothing."""
    oidc_issuer: IssuerUrl = ""
    """Whose tokens are believed, as in their claim `iss`; clients are told to log in there."""
    oidc_additional_issuers: tuple[Annotated[IssuerUrl, Field(min_length=1)], ...] = ()
    oidc_client_id: str = ""
    """As which the command line logs in; also the audience, unless that is set."""
    oidc_audience: str = ""
    oidc_jwks_uri: IssuerUrl = ""
    """Where the keys of `oidc_issuer` are; empty means where its discovery document says."""
    oidc_subject_claim: ClaimName = "sub"
    oidc_email_claim: ClaimName = "email"
    oidc_groups_claim: ClaimName = "groups"
    oidc_scope_prefix: str = ""
    """What the issuer puts before our scopes, and clients have to ask for."""
    oidc_default_scopes: str = "openid profile email"
    token_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    """By how much the clocks of issuers may differ from ours."""
    jwks_cache_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    """How long a key that an issuer has withdrawn may still be believed; a day at most."""
    jwks_cooldown_seconds: Duration = 10
    """An issuer is not asked again sooner than this, whatever tokens arrive and whether or not it answered."""

    trusted_proxies: Annotated[int, Field(ge=0)] = 0
    """Reverse proxies in front: as many entries of `X-Forwarded-For` are believed, from the last one on."""

    database_pool_size: PositiveInt = 9
    statement_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    delete_lock_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    """Largest JSON body accepted; file uploads have a limit of their own."""
    max_json_depth: Annotated[int, Field(ge=1, le=150)] = 64
    """Levels of nesting of a JSON body."""
    max_upload_bytes: Annotated[int, Field(ge=0)] = 0
    """Largest body of an upload; 0 is no limit."""
    upload_idle_seconds: Duration = 10
    """An upload of which nothing arrives for so long is refused with 408."""
    write_rate_limit: Annotated[str, AfterValidator(_rate)] = ""
    """How often one caller may write, such as `100/minute`; empty is no limit."""

    runtime_host: str = ""
    """Name of the host of a runtime worker, the same after each restart; empty means the system's host name."""
    subprocess_provider: Literal["auto", "on", "off"] = "auto"
    """Whether jobs and deployments may start processes beside the worker, as its user: whoever may submit them can
    then do what that user can. `auto` is on where HOST is loopback, and only this machine's people can be callers."""
    execution_profiles: Annotated[
        tuple[ExecutionProfile, ...], Field(repr=False), AfterValidator(distinct)
    ] = ()
    """What the steps of jobs may name as their executor; none named means `subprocess/default` and `cpu/default`."""
    runtime_lease_seconds: Duration = 30
    """How long a silent supervisor keeps its job or deployment before it counts as lost."""
    runtime_poll_seconds: Duration = 0.5
    """How often a supervisor looks what was asked of its job or deployment."""
    stop_grace_seconds: Duration = 10
    """Between SIGTERM and SIGKILL for the processes of a job or deployment."""
    job_time_limit_seconds: DurationOrZero = 0
    """A job that runs longer is stopped and ends as `error`; 0 is no limit."""
    job_log_limit_bytes: PositiveInt = 64 * 1024 * 1024
    """Of what a job prints; the rest is dropped, and its log says so."""
    deployment_runtime: Literal["subprocess", "kubernetes", "none"] = "subprocess"
    """What serves deployments; `none`, or `subprocess` where no process may be started, refuses to make any."""
    kubernetes_namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = "default"
    """Where deployments are made in the cluster; it has to exist."""
    kubernetes_api_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """An API to which nobody has to log in, as of `kubectl proxy`; empty is the cluster around, or the kubeconfig."""
    deployment_start_seconds: Duration = 300
    """A deployment whose health check has not succeeded after this long is an ERROR."""
    deleted_deployment_seconds: DurationOrZero = 30
    """How long a deployment is shown as DELETED before the sweep removes it; clients wait for it to be not found."""

    deletion_grace: DurationOrZero = 0
    """Seconds between DELETE and the first destruction, in which the deletion can be restored."""
    burst_deletions: Annotated[int, Field(ge=0)] = 1000
    """More deletions than this within `burst_window_seconds` pause destruction; 0 switches the breaker off."""
    burst_window_seconds: Duration = 600

    slice_seconds: Duration = 20
    lease_seconds: Duration = 60
    item_timeout_seconds: Duration = 10
    page_size: PositiveInt = 100
    """Resources read at a time in a pass."""
    chunk_size: PositiveInt = 1000
    """Rows deleted in one transaction by the kinds that are only rows."""
    dependency_down_after: PositiveInt = 5
    """Transient failures in a row after which the pass ends: whatever is behind them is down."""

    max_attempts: PositiveInt = 8
    backoff_base_seconds: Duration = 2
    backoff_cap_seconds: Duration = 120
    waiting_poll_min_seconds: Duration = 2
    waiting_poll_max_seconds: Duration = 15
    waiting_limit_seconds: Duration = 900
    reattempt_delays_seconds: tuple[Duration, ...] = (600, 3600, 21600, 86400)
    """Wait before each scheduled re-attempt of a FAILED deletion; the last one repeats."""
    reattempt_rounds: Annotated[int, Field(ge=0)] = 7

    sweep_seconds: Duration = 10
    requeue_after_seconds: Duration = 15
    """A due deletion that the sweep rang for is rung for again only after this long."""
    orphan_scan_seconds: Duration = 86400
    staged_upload_days: Annotated[float, Field(gt=0, le=3650)] = 1
    """Age at which an abandoned upload is collected by the audit."""

    visibility_timeout_seconds: PositiveInt = 600
    task_soft_limit_seconds: Duration = 45
    task_hard_limit_seconds: Duration = 55
    worker_soft_shutdown_seconds: Duration = 20
    publish_timeout_seconds: Duration = 0.5

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        # A slice may start its last item just before its end, and must still hold the lease after it.
        if self.slice_seconds + self.item_timeout_seconds >= self.task_soft_limit_seconds:
            raise ValueError(
                "slice_seconds + item_timeout_seconds must be less than task_soft_limit_seconds: "
                "shorten the slice or raise the limit"
            )
        if not self.task_soft_limit_seconds < self.task_hard_limit_seconds < self.lease_seconds:
            raise ValueError(
                "task_soft_limit_seconds < task_hard_limit_seconds < lease_seconds must hold: "
                "a task has to be dead before its lease is given to another worker"
            )
        longest_countdown = max(self.backoff_cap_seconds, self.waiting_poll_max_seconds)
        if self.visibility_timeout_seconds <= self.task_hard_limit_seconds + longest_countdown:
            raise ValueError(
                "visibility_timeout_seconds must exceed task_hard_limit_seconds plus the longest back-off: "
                "Redis would deliver a waiting message twice"
            )
        if not self.reattempt_delays_seconds:
            raise ValueError("reattempt_delays_seconds needs at least one delay")
        if not self.database_url.startswith("postgresql+psycopg://"):
            raise ValueError(
                "database_url must start with postgresql+psycopg://: no other database is supported"
            )
        if self.subprocess_provider == "on" and not _CAN_END_PROCESSES:
            raise ValueError("subprocess_provider cannot be on: what ends the processes of a job needs Linux")
        if self.runtime_host == "kubernetes":
            raise ValueError("runtime_host cannot be kubernetes: so is called what is in the cluster")
        if self.write_rate_limit and not self.broker_url.startswith(("redis://", "rediss://")):
            raise ValueError(
                "write_rate_limit is counted in Redis: broker_url must start with redis:// or rediss://"
            )
        return self

    @model_validator(mode="after")
    def _say_whose_tokens(self) -> Self:
        proofs = (self.oidc_issuer, self.gateway_secret.get_secret_value(), self.allow_unsigned_jwt)
        if self.auth_enabled and not any(proofs):
            raise ValueError(
                "auth_enabled without an oidc_issuer, a gateway_secret or allow_unsigned_jwt lets nobody in: "
                "set one of them"
            )
        if self.oidc_additional_issuers and not self.oidc_issuer:
            raise ValueError("oidc_additional_issuers need an oidc_issuer that they are additional to")
        if self.oidc_issuer and not self.audience:
            raise ValueError(
                "oidc_issuer needs an oidc_client_id or oidc_audience: "
                "tokens that the issuer made for others must not be believed"
            )
        return self

    @property
    def audience(self) -> str:
        """Whom a signed token has to be for."""
        return self.oidc_audience or self.oidc_client_id

    @property
    def runs_processes(self) -> bool:
        """Whether jobs and deployments may start processes beside the runtime worker."""
        if not _CAN_END_PROCESSES:
            return False
        if self.subprocess_provider == "auto":
            # Proved identities mean users from elsewhere, by way of a proxy: they are not to be trusted with this host.
            is_for_locals = not self.auth_enabled or (self.allow_unsigned_jwt and not self.trusted_proxies)
            return is_for_locals and is_loopback(os.environ.get("HOST") or "127.0.0.1")
        return self.subprocess_provider == "on"

    @property
    def profiles(self) -> dict[str, ExecutionProfile]:
        """The execution profiles there are, by name; none where no process may be started."""
        return {one.name: one for one in self.execution_profiles or USUAL} if self.runs_processes else {}

    @property
    def backend(self) -> Literal["subprocess", "kubernetes", "none"]:
        """What serves deployments here."""
        if self.deployment_runtime == "subprocess" and not self.runs_processes:
            return "none"
        return self.deployment_runtime

    @property
    def blob_url(self) -> str:
        """Where filesets keep their bytes, as an fsspec URL."""
        # Not as_uri: what that escapes fsspec would take for the name of another directory.
        return self.storage_url or f"file://{(self.data_dir / 'blobs').absolute()}"

    def reattempt_delay(self, finished_rounds: int) -> timedelta | None:
        """Wait before the next scheduled re-attempt, or None when all rounds are used up."""
        if finished_rounds >= self.reattempt_rounds:
            return None
        delays = self.reattempt_delays_seconds
        return timedelta(seconds=delays[min(finished_rounds, len(delays) - 1)])


_OF_JOBS = {"WORKSPACES_RESULTS_DIR", "WORKSPACES_RUN"}
"""What jobs and deployments are told; a command that one of them runs finds it beside the settings."""
_OF_CLUSTERS = re.compile(
    r"WORKSPACES_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes tells every pod beside a service whose name begins with `workspaces`; and `…_PORT`, an address."""


@cache
def load_settings() -> Settings:
    """The settings of this process, read once.

    Exits with status 2 and one line naming the variable when a value is wrong or nothing reads the variable.
    """
    try:
        settings = Settings()
        refusal = _unread(os.environ)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        refusal = f"{_variable(str(first['loc'][0]))}: {said}" if first["loc"] else _in_variables(said)
    except SettingsError as error:
        # pydantic-settings says it only in words: which field, and as the cause why its list could not be parsed.
        [field] = re.findall(r'field "(\w+)"', str(error))
        refusal = f"{_variable(field)}: must be JSON, such as a list in brackets: {error.__cause__}"
    if refusal:
        print(refusal, file=sys.stderr)  # noqa: T201 -- logging is not set up yet
        raise SystemExit(2)
    return settings


def _variable(field: str) -> str:
    return f"WORKSPACES_{field.upper()}"


def _in_variables(text: str) -> str:
    """A rule about fields, in the names that the person who set them knows."""
    return re.sub(rf"\b({'|'.join(Settings.model_fields)})\b", lambda field: _variable(field[0]), text)


def _unread(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the first variable of ours that nothing reads: mistyped, it would change nothing."""
    fields = set(Settings.model_fields)
    known = {_variable(field) for field in fields} | _OF_JOBS
    for name, value in sorted(environment.items()):
        if not name.startswith("WORKSPACES_") or name.upper() in known:
            continue
        if _OF_CLUSTERS.fullmatch(name) or (name.endswith("_PORT") and "://" in value):
            continue
        # Without the prefix, by which all of them are alike.
        nearest = get_close_matches(name.removeprefix("WORKSPACES_").lower(), fields, n=1)
        remedy = (
            f"did you mean {_variable(nearest[0])}?" if nearest else "see .env.example for those there are."
        )
        return f"{name}: there is no such setting; {remedy}"
    return None
