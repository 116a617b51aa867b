"""Settings from environment variables with the prefix `WORKSPACES_`; a wrong value refuses to start."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, SecretStr, model_validator

from app.config import processes
from app.config.access import AccessSettings
from app.config.cleanup import CleanupSettings
from app.config.notifications import NotificationSettings
from app.config.profiles import USUAL, ExecutionProfile
from app.config.retention import RetentionSettings
from app.config.runtime import RuntimeSettings
from app.config.values import BrokerUrl, CollectorUrl, Duration, Group, KeyFile, Rate, WebAddress


class Settings(AccessSettings, RuntimeSettings, CleanupSettings, RetentionSettings, NotificationSettings):
    """All settings. Durations are in seconds and sizes in bytes, unless the name says otherwise."""

    # URLs may contain a password, so `repr(settings)` omits them.
    database_url: str = Field("postgresql+psycopg://app@127.0.0.1:5432/workspaces", repr=False)
    """SQLAlchemy URL of PostgreSQL 15 or newer; must start with `postgresql+psycopg://`."""
    migration_database_url: str = Field("", repr=False)
    """SQLAlchemy URL of the same database for `workspaces db upgrade` alone, past a pooler or with a role of its own
    that owns the tables; empty means `WORKSPACES_DATABASE_URL`."""
    broker_url: BrokerUrl = Field("redis://127.0.0.1:6379/0", repr=False)
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
    storage_group: Group = ""
    """Group of this machine whose members may read what is stored on a disk; empty means the owner alone."""
    secrets_key_file: KeyFile = ""
    """File with the keys that encrypt the values of secrets, each 32 random bytes as base64 on a line of its own: the
    first encrypts, all decrypt. Nobody but its owner may read it; empty means that no secret can be made or used."""

    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` for machines."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    metrics_token: SecretStr = SecretStr("")
    """Bearer token that may read `/metrics` and all of `/status`; without it only loopback may, and nobody while
    authentication is on."""
    traces_url: CollectorUrl = ""
    """URL at which a collector takes traces by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; empty means
    that there are none. Needs the extra `otel`; the variables `OTEL_…` of OpenTelemetry are honoured besides."""

    flower_url: WebAddress = ""
    """Address of Flower for browsers, to which the console's pages link; empty means no link."""

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
    write_rate_limit: Rate = ""
    """Maximum rate of writes per caller (where nobody logs in: per address) as `number/second`, `/minute`,
    `/hour` or `/day`, such as `100/minute`; empty for no limit. Counted in Redis; while Redis does not answer,
    no write is refused."""

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

    @model_validator(mode="after")
    def _know_whose_access_keys_are(self) -> Self:
        if not self.access_keys_enabled:
            return self
        if not self.access_key_signing_file:
            raise ValueError(
                "access_keys_enabled needs an access_key_signing_file: "
                "make one with `openssl genrsa -out FILE 2048` and chmod 600 it"
            )
        if not self.has_login:
            raise ValueError(
                "access_keys_enabled needs auth_enabled, without allow_unsigned_jwt: "
                "otherwise anybody could make keys in the name of anybody"
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
