"""The settings of jobs and deployments."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from app.config.profiles import ExecutionProfile, distinct
from app.config.section import Section
from app.config.values import Duration, DurationOrZero, Quantities


class RuntimeSettings(Section):
    """What runs: where, for how long, and what becomes of it at the end."""

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
    name), a `time_limit_seconds` per step, a `stop_grace_seconds`, an `environment`, and limits of each process: a
    `max_memory_bytes`, `max_processes` (of the worker's user; none for root) and a `max_file_bytes`, such as
    `[{"provider": "subprocess", "profile": "short", "time_limit_seconds": 600, "environment": {"TZ": "UTC"}}]`."""
    runtime_job_slots: PositiveInt = 64
    """How many jobs may run on a host at a time; others wait. A paused job takes no slot, nor does a deployment."""
    jobs_per_workspace: NonNegativeInt = 0
    """How many jobs of one workspace may run at a time, on all hosts; others wait. 0 for no limit; while others wait,
    a free slot goes to the workspace in which the fewest jobs run all the same."""
    deployments_per_workspace: NonNegativeInt = 0
    """How many deployments of one workspace may be served at a time; others wait as PENDING. 0 for no limit. A new
    version of one that is served takes no further place."""
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
    kubernetes_requests: Quantities = Field({"cpu": "100m", "memory": "256Mi"})
    """JSON object of what each pod requests, so that the scheduler knows; `{}` for nothing. GPUs come from the
    configuration of the deployment."""
    kubernetes_limits: Quantities = Field({"cpu": "8", "memory": "32Gi"})
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
