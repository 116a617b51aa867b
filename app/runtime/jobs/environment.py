"""The environment of a step's processes."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.config import Settings
from app.lifecycle import JobStatus
from app.models import Job
from app.runtime.leased_row import LeasedRow
from app.runtime.processes.workdir import WorkDirectory
from app.services.job_steps import TASK
from app.services.secrets.encryption import Keyring
from app.services.secrets.references import references, secret_values

_API_URLS = ("NMP_BASE_URL", *(f"NMP_{one}_URL" for one in ("AUTH", "FILES", "JOBS", "MODELS", "SECRETS")))
"""Variables in which clients of the peer look for the API, and for parts of it that could be elsewhere."""


def read_secrets(
    row: LeasedRow[Job, JobStatus], settings: Settings, step: Mapping[str, Any]
) -> dict[str, str]:
    """The variables of a step that come from secrets, with the values of now. Waits for a database that is away.

    They go to the processes of the step alone: to no file, row or command line. Raises LeaseLost, NotFound,
    SecretsDisabled and SecretUnreadable.
    """
    if not references(step):
        return {}
    keys = Keyring.read(settings)

    def read(session: Session, job: Job) -> dict[str, str]:
        return secret_values(session, keys, job, step)

    return row.write(read)


def step_environment(
    directory: WorkDirectory,
    job: Job,
    workspace: str,
    step: Mapping[str, Any],
    profile: Mapping[str, str],
    *,
    secrets: Mapping[str, str],
    api_url: str,
) -> dict[str, str]:
    """The variables of a step: its own, those of its execution profile (`profile`), and the facts of its job.

    Its own are those with a value, and those of `read_secrets`.

    Its own variables override those of the profile, and both override the URLs of the API; the facts override all.
    Writes the configuration of the step to a file whose path is one of the facts.
    """
    config = directory.path / "step-config.json"
    config.unlink(missing_ok=True)  # An earlier step may have put a link there.
    config.write_text(json.dumps(step.get("config") or {}))
    given = {one["name"]: one["value"] for one in step.get("environment") or () if "value" in one}
    return {
        **directory.environment,
        **dict.fromkeys(_API_URLS, api_url),
        **profile,
        **given,
        **secrets,
        "WORKSPACES_RESULTS_DIR": str(directory.results),
        # The names that jobs written for the peer read the same facts from.
        "NEMO_JOB_ID": str(job.id),
        "NEMO_JOB_ATTEMPT_ID": str(job.attempt_id),
        "NEMO_JOB_WORKSPACE": workspace,
        "NEMO_JOB_FILESET": job.fileset,
        "NEMO_JOB_STEP": step["name"],
        "NEMO_JOB_TASK": TASK,
        "NEMO_JOB_STEP_CONFIG_FILE_PATH": str(config),
        "NEMO_JOB_PERSISTENT_JOB_STORAGE_PATH": str(directory.path),
        "NEMO_JOB_EPHEMERAL_TASK_STORAGE_PATH": str(directory.path),
    }
