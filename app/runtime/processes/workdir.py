"""The private directory of a running job."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from app.config import Settings
from app.logs import get_logger
from app.runtime.processes.run_directory import runs_directory

log = get_logger(__name__)


OnProgress = Callable[[], object]

_PROGRESS_S = 0.5
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

    def make(self, *, on_progress: OnProgress = _idle) -> None:
        """Make it anew, empty. Calls `beat` now and then while it removes what is there, as all of these do."""
        self.remove(on_progress=on_progress)
        self.results.mkdir(parents=True)
        self.path.chmod(0o700)

    def remove(self, *, on_progress: OnProgress = _idle) -> None:
        """Remove it with everything in it, if it is there. Raises OSError, and whatever `beat` raises."""
        if self.path.exists():
            _remove_tree(self.path, on_progress)

    def discard(self, *, on_progress: OnProgress = _idle) -> None:
        """As `remove`; if that is not possible, a person is told, and the job ends nevertheless."""
        try:
            self.remove(on_progress=on_progress)
        except OSError:
            log.exception("job.directory_remains", directory=str(self.path))

    def message_of(self, error: Exception) -> str:
        """The words of an error, with what lies here named from here: the server's own paths are nobody's business."""
        return str(error).replace(f"{self.path}/", "").replace(str(self.path), "the working directory")

    def empty_results(self, *, on_progress: OnProgress = _idle) -> None:
        """Make room for the results of the next step."""
        if self.results.is_dir() and not self.results.is_symlink():
            _remove_tree(self.results, on_progress)
        # The step may have put something else in its place.
        self.results.unlink(missing_ok=True)
        self.results.mkdir()


def run_ids(settings: Settings) -> set[UUID]:
    """The jobs and deployments of this installation that have a directory on this host. Raises SQLAlchemy's errors."""
    found = set()
    with suppress(FileNotFoundError):
        for entry in runs_directory(settings).iterdir():
            with suppress(ValueError):  # Not ours.
                found.add(UUID(entry.name))
    return found


def _remove_tree(top: Path, on_progress: OnProgress) -> None:
    """Remove a directory with whatever a job has made of it. Raises OSError, and whatever `beat` raises."""
    errors_text = b""
    # Not shutil: it recurses, and jobs can nest deeper than Python can. Neither of these follows links. Permissions
    # first: a job may have taken them from its own directories, and their owner can give them back.
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 -- nothing in it comes from users
                [*command, "--", str(top)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            ) as removing,
        ):
            _wait(removing, on_progress)
            errors.seek(0)
            errors_text = errors.read(200)
    if os.path.lexists(top):
        raise OSError(
            errno.ENOTEMPTY, f"it could not be removed: {errors_text.decode(errors='replace').strip()}"
        )


def _wait(removing: "subprocess.Popen[bytes]", on_progress: OnProgress) -> None:
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                removing.wait(_PROGRESS_S)
                return
            on_progress()
    except BaseException:
        removing.kill()
        raise
