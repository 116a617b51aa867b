"""The private directory of a running job, and the environment of its processes."""

import errno
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from app.config import Settings
from app.logs import get_logger
from app.models import Job
from app.runtime.place import runs_directory
from app.services.job_steps import TASK

log = get_logger(__name__)


Beat = Callable[[], object]

_BEAT_S = 0.5
"""Between two beats."""


def _idle() -> None:
    """Nobody waits for a sign of life."""


class WorkDirectory:
    """`<job id>/` among the runs of this host: the steps of a job share it, and nobody else reads it.

    Raises SQLAlchemy's errors, as `runs_directory` does.
    """

    def __init__(self, settings: Settings, job_id: UUID) -> None:
        self.path = runs_directory(settings) / str(job_id)
        self.results = self.path / "results"
        """What a step leaves here is stored when it has ended."""

    def make(self, *, beat: Beat = _idle) -> None:
        """Make it anew, empty. Calls `beat` now and then while it removes what is there, as all of these do."""
        self.remove(beat=beat)
        self.results.mkdir(parents=True)
        self.path.chmod(0o700)

    def remove(self, *, beat: Beat = _idle) -> None:
        """Remove it with everything in it, if it is there. Raises OSError, and whatever `beat` raises."""
        if self.path.exists():
            _remove_tree(self.path, beat)

    def discard(self, *, beat: Beat = _idle) -> None:
        """As `remove`; if that is not possible, a person is told, and the job ends nevertheless."""
        try:
            self.remove(beat=beat)
        except OSError:
            log.exception("job.directory_remains", directory=str(self.path))

    def told(self, error: Exception) -> str:
        """The words of an error, with what lies here named from here: the server's own paths are nobody's business."""
        return str(error).replace(f"{self.path}/", "").replace(str(self.path), "the working directory")

    def empty_results(self, *, beat: Beat = _idle) -> None:
        """Make room for the results of the next step."""
        if self.results.is_dir() and not self.results.is_symlink():
            _remove_tree(self.results, beat)
        # The step may have put something else in its place.
        self.results.unlink(missing_ok=True)
        self.results.mkdir()

    def environment(
        self, job: Job, workspace: str, step: Mapping[str, Any], given: Mapping[str, str]
    ) -> dict[str, str]:
        """What the process of a step is told: its own variables and the facts of its job, and nothing of the server's.

        `given` are the variables of its execution profile, which its own ones replace.
        Leaves the configuration of the step in a file, whose path is one of the facts.
        """
        config = self.path / "step-config.json"
        config.unlink(missing_ok=True)  # An earlier step may have made it a link.
        config.write_text(json.dumps(step.get("config") or {}))
        own = {variable["name"]: variable["value"] for variable in step.get("environment") or ()}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.path),
            "TMPDIR": str(self.path),
            **given,
            **own,
            "WORKSPACES_RESULTS_DIR": str(self.results),
            # The names under which jobs written for the peer look for the same facts.
            "NEMO_JOB_ID": str(job.id),
            "NEMO_JOB_ATTEMPT_ID": str(job.attempt_id),
            "NEMO_JOB_WORKSPACE": workspace,
            "NEMO_JOB_FILESET": job.fileset,
            "NEMO_JOB_STEP": step["name"],
            "NEMO_JOB_TASK": TASK,
            "NEMO_JOB_STEP_CONFIG_FILE_PATH": str(config),
            "NEMO_JOB_PERSISTENT_JOB_STORAGE_PATH": str(self.path),
            "NEMO_JOB_EPHEMERAL_TASK_STORAGE_PATH": str(self.path),
        }


def run_ids(settings: Settings) -> set[UUID]:
    """The jobs and deployments of this installation that have a directory on this host. Raises SQLAlchemy's errors."""
    found = set()
    with suppress(FileNotFoundError):
        for entry in runs_directory(settings).iterdir():
            with suppress(ValueError):  # Not ours.
                found.add(UUID(entry.name))
    return found


def _remove_tree(top: Path, beat: Beat) -> None:
    """Remove a directory with whatever a job has made of it. Raises OSError, and whatever `beat` raises."""
    said = b""
    # Not shutil: it recurses, and jobs can nest deeper than Python can. Neither of these follows links. Permissions
    # first: a job may have taken them from its own directories, and their owner can give them back.
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 -- nothing in it comes from users
                [*command, "--", str(top)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            ) as removing,
        ):
            _wait(removing, beat)
            errors.seek(0)
            said = errors.read(200)
    if os.path.lexists(top):
        raise OSError(errno.ENOTEMPTY, f"it could not be removed: {said.decode(errors='replace').strip()}")


def _wait(removing: "subprocess.Popen[bytes]", beat: Beat) -> None:
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                removing.wait(_BEAT_S)
                return
            beat()
    except BaseException:
        removing.kill()
        raise
