"""Settings from environment variables with the prefix `WORKSPACES_`; a wrong value refuses to start."""

import os
import re
from contextlib import suppress
from datetime import timedelta
from grp import getgrnam
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config import processes
from app.config.profiles import USUAL, ExecutionProfile, distinct

_LONGEST_S = 10 * 365 * 86400
Duration = Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]
DurationOrZero = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]


def _rate(text: str) -> str:
    if text and not re.fullmatch(r"[1-9][0-9]{0,5}/(second|minute|hour|day)", text):
        raise ValueError(
            "must be a number below a million per second, minute, hour or day, such as 100/minute, "
            "or empty for no limit"
        )
    return text


def _broker(url: str) -> str:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme == "sentinel":
        raise ValueError(
            "Sentinel is not supported: name the address that always leads to the primary, "
            "such as that of a proxy before it, with redis:// or rediss://"
        )
    if scheme == "redis+cluster":
        raise ValueError("a cluster of Redis is not supported: name a single server with redis://")
    try:
        parts = urlsplit(url)
        is_complete = scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not (is_complete and re.fullmatch(r"(/[0-9]*)?", parts.path)):
        raise ValueError(
            "must be redis://host:port/number, or rediss:// with TLS: no other broker is supported"
        )
    return url


def _group(name: str) -> str:
    with suppress(KeyError):
        return getgrnam(name).gr_name if name else ""
    raise ValueError(f"there is no group '{name}' on this machine")


def is_protected(url: str) -> bool:
    """Whether no network attacker can change the response of `url`: https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        return parts.hostname in {"127.0.0.1", "::1", "localhost"}
    return parts.scheme == "https" and bool(parts.hostname)


def _protected(url: str) -> str:
    if url and not is_protected(url):
        raise ValueError("must start with https://; http:// is allowed only for 127.0.0.1, ::1 and localhost")
    return url


_HOST_NAME = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?"


def _host(name: str) -> str:
    if not re.fullmatch(_HOST_NAME, name.lower()):
        raise ValueError(
            f"'{name[:100]}' is no host name: give it without scheme and port, such as api.example.com"
        )
    return name.lower()


def _origin(text: str) -> str:
    if not re.fullmatch(rf"https?://({_HOST_NAME}|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?", text.lower()):
        raise ValueError(
            f"'{text[:100]}' is no origin: give scheme and host, with a port if it is not the usual one, "
            "such as https://console.example.com"
        )
    return text.lower()


IssuerUrl = Annotated[str, AfterValidator(_protected)]
ClaimName = Annotated[str, Field(min_length=1)]


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text and not (len(text) >= 16 and text.isascii() and text.isprintable() and text == text.strip()):
        raise ValueError(
            "needs at least 16 characters, all of them printable ASCII, because it is sent in a header"
        )
    return value


Quantities = dict[
    Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]*$")],
    Annotated[str, Field(pattern=r"^[0-9.]+[A-Za-z]*$")],
]
"""Resources of a pod, each with a quantity as Kubernetes writes it."""


class Settings(BaseSettings):
    """All settings. Durations are in seconds and sizes in bytes, unless the name says otherwise.

    The text of each is also its comment in `.env.example` and its row in the documentation.
    """

    # Errors must not quote their input, which may contain passwords.
    model_config = SettingsConfigDict(
        env_prefix="WORKSPACES_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    # URLs may contain a password, so `repr(settings)` omits them.
    database_url: str = Field("postgresql+psycopg://app@127.0.0.1:5432/workspaces", repr=False)
    """SQLAlchemy URL of PostgreSQL 15 or newer; must start with `postgresql+psycopg://`."""
    migration_database_url: str = Field("", repr=False)
    """SQLAlchemy URL of the same database for `workspaces db upgrade` alone, past a pooler or with a role of its own
    that owns the tables; empty means `WORKSPACES_DATABASE_URL`."""
    broker_url: Annotated[str, AfterValidator(_broker)] = Field("redis://127.0.0.1:6379/0", repr=False)
    """URL of the Redis or Valkey that carries the messages, `redis://` or `rediss://`. Its content may be lost at any
    time."""
    data_dir: Path = Path(".data")
    """Directory for all data kept in files; a relative path starts at the working directory."""
    storage_url: str = Field("", repr=False)
    """fsspec URL of the store for the bytes of filesets; empty means the directory `blobs` in the data directory.
    """
    deletion_log_url: str = Field("", repr=False)
    """fsspec URL of the log of finished deletions, which no restore of the database or the store may overwrite; empty
    means the directory `deletion-log` in the data directory."""
    storage_group: Annotated[str, AfterValidator(_group)] = ""
    """Group of this machine whose members may read what is stored on a disk; empty means the owner alone."""

    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` for machines."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    metrics_token: SecretStr = SecretStr("")
    """Bearer token that may read `/metrics` and all of `/status`; without it only loopback may, and nobody while
    authentication is on."""

    # --- access
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
    gateway_secret: Annotated[SecretStr, AfterValidator(_secret)] = SecretStr("")
    """Shared secret with which the gateway authenticates its `X-NMP-` identity headers; at least 16 characters.
    Without it these headers are not trusted."""
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
    """OIDC client id used by the CLI; also the expected audience unless `WORKSPACES_OIDC_AUDIENCE` is set."""
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
    """Scopes that the CLI requests when it logs in."""
    token_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30
    """Allowed difference between the clocks of the issuers and ours."""
    jwks_cache_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    """How long an issuer's keys are cached, one day at most: a withdrawn key is accepted for that long, or for a
    day while the issuer does not answer."""
    jwks_cooldown_seconds: Duration = 10
    """Minimum time between two requests for an issuer's keys, whether or not it answered; a new key may be refused
    for that long."""

    trusted_hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """JSON list of the host names by which clients reach the API, besides `localhost` and IP addresses. Requests by any
    other name are refused while authentication is off or `WORKSPACES_ALLOW_UNSIGNED_JWT` is true, and wherever the list
    is not empty; `/health/` answers all."""
    trusted_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """JSON list of further origins whose pages in a browser may write, such as `https://console.example.com`; those of
    the request's own Host may always."""
    trusted_proxies: Annotated[int, Field(ge=0)] = 0
    """Number of reverse proxies in front of the API: this many entries of `X-Forwarded-For` are trusted, counted
    from the last. Without it the audit log shows a proxy's address for all clients behind it."""

    database_pool_size: PositiveInt = 9
    """Database connections of each process; one more than the threads of a web process."""
    database_prepare_threshold: Annotated[int, Field(ge=0)] = 5
    """How often a connection executes a statement before it prepares it; 0 for never, as PgBouncer in transaction
    mode needs. With 0 the time limits belong to the role, and `workspaces db upgrade` sets them."""
    statement_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    """Time limit of a database statement; after it the database cancels the statement and the API answers 503.
    A connection that has not answered 2 s later is closed."""
    delete_lock_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    """How long a DELETE waits for writes in progress in its workspace before it answers 503."""
    max_body_bytes: PositiveInt = 4 * 1024 * 1024
    """Maximum size of a JSON body."""
    max_json_depth: Annotated[int, Field(ge=1, le=150)] = 64
    """Maximum nesting of a JSON body, at most 150."""
    max_upload_bytes: Annotated[int, Field(ge=0)] = 0
    """Maximum size of an upload's body, including the lines of a form; 0 for no limit."""
    upload_idle_seconds: Duration = 10
    """An upload that receives no bytes for this long is refused with 408."""
    write_rate_limit: Annotated[str, AfterValidator(_rate)] = ""
    """Maximum rate of writes per caller (where nobody logs in: per address) as `number/second`, `/minute`,
    `/hour` or `/day`, such as `100/minute`; empty for no limit. Counted in Redis; while Redis does not answer,
    no write is refused."""

    runtime_host: str = ""
    """Host name of a runtime worker, the same after each restart and different on each host; empty means the
    system's host name."""
    subprocess_provider: Literal["auto", "on", "off"] = "auto"
    """Whether jobs and deployments may start processes beside the runtime worker, as its user: `on`, `off` or
    `auto`. `auto` allows it only where nobody else can call: the server listens on loopback, and open access,
    a gateway secret, an issuer, trusted proxies and authentication (but for unsigned tokens) are all off. `on` trusts
    every Editor with that host and with all secrets that its user can read."""
    execution_profiles: Annotated[
        tuple[ExecutionProfile, ...], Field(repr=False), AfterValidator(distinct)
    ] = ()
    """JSON list of the executors that steps of jobs may name; empty means `subprocess/default` and `cpu/default`.
    Each has a `provider` (`subprocess`, or `cpu` for steps written for containers) and may have a `profile` (its
    name), a `time_limit_seconds` per step, a `stop_grace_seconds` and an `environment`, such as `[{"provider":
    "subprocess", "profile": "short", "time_limit_seconds": 600, "environment": {"TZ": "UTC"}}]`."""
    runtime_lease_seconds: Duration = 30
    """How long a supervisor that does not renew its lease keeps its job or deployment before it counts as lost."""
    runtime_on_stop: Literal["end", "drain"] = "end"
    """What a runtime worker does when it is stopped: `end` ends its jobs and deployments at once; `drain` takes up
    nothing more, and lets jobs go on for `WORKSPACES_RUNTIME_DRAIN_SECONDS`."""
    runtime_drain_seconds: DurationOrZero = 540
    """How long a runtime worker that drains waits for its jobs; then it ends them. Whatever stops it must wait for
    a minute more, as `stop_grace_period` of docker-compose.yml does."""
    runtime_poll_seconds: Duration = 0.5
    """How often a supervisor reads the requested state of its job or deployment."""
    stop_grace_seconds: Duration = 10
    """Time between SIGTERM and SIGKILL for the processes of a job or deployment."""
    job_api_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """URL at which jobs reach the API, for their variable `NMP_BASE_URL`; empty means port `PORT` of this machine.
    With authentication on it comes without credentials: a job gets those that its own variables give it."""
    job_time_limit_seconds: DurationOrZero = 0
    """Time limit of a job, without its pauses; a job over the limit is stopped and ends as `error`. 0 for no limit.
    """
    job_results_seconds: Duration = 600
    """How long a job may go on storing results after it was cancelled or its time was over, and how long it tries
    again while the store takes none."""
    job_log_limit_bytes: PositiveInt = 64 * 1024 * 1024
    """Maximum size of a job's log in the database; beyond it only the end is kept, and the log says how much is left
    out."""
    deployment_runtime: Literal["subprocess", "kubernetes", "none"] = "subprocess"
    """Runtime of deployments: `subprocess`, `kubernetes`, or `none`, which refuses to create any; `subprocess`
    refuses too where processes are not allowed. A change applies to new deployments; existing ones run on until
    they are deleted, in a cluster while the extra `kubernetes` is installed."""
    kubernetes_namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] = "default"
    """Namespace for deployments in a Kubernetes cluster (extra `kubernetes`); it must exist. The `runtime` worker
    needs rights there to get, create and delete `deployments` and `services`, to watch `deployments` (without that
    right it polls) and to list `pods`; the orphan scan lists `deployments` and `services`. A change applies to new
    deployments; existing ones are stopped where they were created."""
    kubernetes_api_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """URL of a Kubernetes API that needs no login, such as that of `kubectl proxy`; empty means the cluster of the
    worker's pod, or else its kubeconfig. Delete all deployments of a cluster before you set another: they are
    searched only in the configured one."""
    kubernetes_requests: Quantities = {"cpu": "100m", "memory": "256Mi"}
    """JSON object of what each pod requests, so that the scheduler knows; `{}` for nothing. GPUs come from the
    configuration of the deployment."""
    kubernetes_limits: Quantities = {"cpu": "8", "memory": "32Gi"}
    """JSON object of what each pod may use at most; `{}` for no limit."""
    kubernetes_run_as_non_root: bool = False
    """Whether pods of deployments may not run as root. One whose configuration has a `run_as_user` other than 0 may
    not in any case."""
    kubernetes_image_pull_secrets: tuple[str, ...] = ()
    """JSON list of the Secrets in the namespace that hold the passwords of image registries."""
    deployment_start_seconds: Duration = 300
    """Time in which the health check of a new deployment must succeed; after it the deployment is an ERROR. One that
    has served once is started again for as long as it takes."""
    deleted_deployment_seconds: DurationOrZero = 30
    """How long a deployment is shown as DELETED before it is removed and its name is free."""

    deletion_grace: DurationOrZero = 0
    """Seconds between DELETE and the first destruction; until then the deletion can be restored."""
    burst_deletions: Annotated[int, Field(ge=0)] = 5
    """The breaker holds the deletions of a requester only from this many requests within
    `WORKSPACES_BURST_WINDOW_SECONDS` on; 0 disables it. Workspaces younger than the window do not count."""
    burst_share: Annotated[float, Field(gt=0, le=1)] = 0.3334
    """Share of the workspaces older than the window that one requester may delete within it; the breaker holds the
    deletions of one who deletes more."""
    burst_window_seconds: Duration = 600
    """Time window of the breaker."""

    slice_seconds: Duration = 20
    """How long a slice works before it yields to other deletions."""
    lease_seconds: Duration = 60
    """How long a worker that does not renew its lease keeps its deletion before another worker may take it over."""
    item_timeout_seconds: Duration = 10
    """Time limit for one resource; after it the attempt counts as a transient failure."""
    page_size: PositiveInt = 100
    """Number of resources that a pass reads at a time."""
    chunk_size: PositiveInt = 1000
    """Number of rows deleted in one transaction, for resources that are only rows."""
    dependency_down_after: PositiveInt = 5
    """Number of transient failures in a row that end a pass, because their dependency is down."""

    max_attempts: PositiveInt = 8
    """Number of attempts without progress after which a deletion is FAILED."""
    backoff_base_seconds: Duration = 2
    """First upper limit of the random wait after an attempt without progress; it doubles with each one."""
    backoff_cap_seconds: Duration = 120
    """Highest upper limit of that wait."""
    waiting_poll_min_seconds: Duration = 2
    """First wait before a pending resource is checked again; it doubles with each check."""
    waiting_poll_max_seconds: Duration = 15
    """Longest wait between two such checks."""
    waiting_limit_seconds: Duration = 900
    """A resource that takes longer than this to stop counts as a transient failure."""
    reattempt_delays_seconds: tuple[Duration, ...] = (600, 3600, 21600, 86400)
    """JSON list of the waits before the scheduled re-attempts of a FAILED deletion; the last one repeats."""
    reattempt_rounds: Annotated[int, Field(ge=0)] = 7
    """Number of scheduled re-attempts before only an operator can continue; 0 for none."""

    sweep_seconds: Duration = 10
    """Time between two sweeps."""
    requeue_after_seconds: Duration = 15
    """Minimum time before the sweep enqueues the same deletion, job or deployment again."""
    orphan_scan_seconds: Duration = 86400
    """Time between two orphan scans."""
    staged_upload_days: Annotated[float, Field(gt=0, le=3650)] = 1
    """Age in days at which the orphan scan collects an unfinished upload."""

    visibility_timeout_seconds: PositiveInt = 600
    """Time after which Redis delivers an unacknowledged message again."""
    task_soft_limit_seconds: Duration = 45
    """A task that takes longer is interrupted."""
    task_hard_limit_seconds: Duration = 55
    """A task that takes longer is killed; must be less than the lease."""
    worker_soft_shutdown_seconds: Duration = 20
    """How long a stopping worker waits for its tasks before it returns them to the queue."""
    publish_timeout_seconds: Duration = 0.5
    """How long the background publisher waits for Redis before it drops a message; the sweep enqueues it again."""

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        # A slice may start its last item just before its end, and must still have the lease after that item.
        if self.slice_seconds + self.item_timeout_seconds >= self.task_soft_limit_seconds:
            raise ValueError(
                "slice_seconds + item_timeout_seconds must be less than task_soft_limit_seconds: "
                "shorten the slice or raise the limit"
            )
        if not self.task_soft_limit_seconds < self.task_hard_limit_seconds < self.lease_seconds:
            raise ValueError(
                "task_soft_limit_seconds < task_hard_limit_seconds < lease_seconds must hold: "
                "a task has to be dead before another worker may take its lease"
            )
        longest_countdown = max(self.backoff_cap_seconds, self.waiting_poll_max_seconds)
        if self.visibility_timeout_seconds <= self.task_hard_limit_seconds + longest_countdown:
            raise ValueError(
                "visibility_timeout_seconds must exceed task_hard_limit_seconds plus the longest back-off: "
                "Redis would deliver a waiting message twice"
            )
        if not self.reattempt_delays_seconds:
            raise ValueError("reattempt_delays_seconds needs at least one delay")
        for name in ("database_url", "migration_database_url"):
            if not (getattr(self, name) or self.database_url).startswith("postgresql+psycopg://"):
                raise ValueError(
                    f"{name} must start with postgresql+psycopg://: no other database is supported"
                )
        if self.subprocess_provider == "on" and not processes.CAN_END_PROCESSES:
            raise ValueError("subprocess_provider cannot be on: what ends the processes of a job needs Linux")
        if self.runtime_host == "kubernetes":
            raise ValueError(
                "runtime_host cannot be kubernetes: this name stands for deployments in a cluster"
            )
        return self

    @model_validator(mode="after")
    def _keep_the_deletion_log_apart(self) -> Self:
        store, log = (f"{url.rstrip('/')}/" for url in (self.blob_url, self.log_url))
        if log.startswith(store):
            raise ValueError(
                "deletion_log_url must lie outside the store: a restore of the store would overwrite it"
            )
        return self

    @model_validator(mode="after")
    def _need_a_trusted_issuer(self) -> Self:
        proofs = (self.oidc_issuer, self.gateway_secret.get_secret_value(), self.allow_unsigned_jwt)
        if self.auth_enabled and not any(proofs):
            raise ValueError(
                "auth_enabled without an oidc_issuer, a gateway_secret or allow_unsigned_jwt lets nobody in: "
                "set one of them"
            )
        if self.oidc_additional_issuers and not self.oidc_issuer:
            raise ValueError("oidc_additional_issuers needs an oidc_issuer")
        if self.oidc_issuer and not self.audience:
            raise ValueError(
                "oidc_issuer needs an oidc_client_id or oidc_audience: "
                "tokens that the issuer made for other audiences must not be accepted"
            )
        return self

    @property
    def direct_database_url(self) -> str:
        """The URL of the database past any pooler."""
        return self.migration_database_url or self.database_url

    @property
    def has_login(self) -> bool:
        """Whether callers prove who they are; an unsigned token proves nothing."""
        return self.auth_enabled and not self.allow_unsigned_jwt

    @property
    def audience(self) -> str:
        """The expected audience of signed tokens."""
        return self.oidc_audience or self.oidc_client_id

    @property
    def runs_processes(self) -> bool:
        """Whether jobs and deployments may start processes beside the runtime worker."""
        return self.why_no_processes is None

    @property
    def why_no_processes(self) -> str | None:
        """Why no job or deployment may start processes, with the setting that decides; None if they may."""
        signs = {
            "WORKSPACES_ALLOW_OPEN_ACCESS is true": self.allow_open_access,
            "WORKSPACES_GATEWAY_SECRET is set": bool(self.gateway_secret.get_secret_value()),
            "WORKSPACES_OIDC_ISSUER is set": bool(self.oidc_issuer),
            "WORKSPACES_TRUSTED_PROXIES is set": self.trusted_proxies > 0,
            "WORKSPACES_AUTH_ENABLED is true": self.has_login,
        }
        return processes.why_no_processes(self.subprocess_provider, signs)

    @property
    def api_url(self) -> str:
        """The URL at which jobs reach the API."""
        return self.job_api_url.rstrip("/") or f"http://127.0.0.1:{os.environ.get('PORT') or 8080}"

    @property
    def profiles(self) -> dict[str, ExecutionProfile]:
        """The execution profiles by name; none where processes are not allowed."""
        return {one.name: one for one in self.execution_profiles or USUAL} if self.runs_processes else {}

    @property
    def backend(self) -> Literal["subprocess", "kubernetes", "none"]:
        """The runtime of deployments in this process."""
        if self.deployment_runtime == "subprocess" and not self.runs_processes:
            return "none"
        return self.deployment_runtime

    @property
    def blob_url(self) -> str:
        """The fsspec URL of the store for the bytes of filesets."""
        return self.storage_url or self._in_data_dir("blobs")

    @property
    def log_url(self) -> str:
        """The fsspec URL of the log of finished deletions."""
        return self.deletion_log_url or self._in_data_dir("deletion-log")

    def _in_data_dir(self, name: str) -> str:
        # Not `as_uri`: fsspec takes escaped characters literally, as the name of another directory.
        return f"file://{(self.data_dir / name).absolute()}"

    def reattempt_delay(self, finished_rounds: int) -> timedelta | None:
        """The wait before the next scheduled re-attempt, or None after the last round."""
        if finished_rounds >= self.reattempt_rounds:
            return None
        delays = self.reattempt_delays_seconds
        return timedelta(seconds=delays[min(finished_rounds, len(delays) - 1)])
