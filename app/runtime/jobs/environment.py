"""The environment of a step's processes."""

import json
import os
from collections.abc import Mapping
from typing import Any

from app.models import Job
from app.runtime.processes.workdir import WorkDirectory
from app.services.job_steps import TASK


def step_environment(
    directory: WorkDirectory, job: Job, workspace: str, step: Mapping[str, Any], profile: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a step: its own and the facts of its job, and nothing of the server's.

    `profile` are the variables of its execution profile, which its own ones replace.
    Writes the configuration of the step to a file, whose path is one of the facts.
    """
    config = directory.path / "step-config.json"
    config.unlink(missing_ok=True)  # An earlier step may have made it a link.
    config.write_text(json.dumps(step.get("config") or {}))
    own = {variable["name"]: variable["value"] for variable in step.get("environment") or ()}
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(directory.path),
        "TMPDIR": str(directory.path),
        **profile,
        **own,
        "WORKSPACES_RESULTS_DIR": str(directory.results),
        # The names under which jobs written for the peer look for the same facts.
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
