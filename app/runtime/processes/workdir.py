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
"""Called now and then during long work, for example to renew a lease. What it raises ends the work."""

_PROGRESS_S = 0.5
"""Between two calls of `on_progress`."""


def _ignore_progress() -> None:
    """For callers without a lease."""


class WorkDirectory:
    """`<id of the run>/` below `runs_directory`: the steps of a job share it, and no other user can read it.

    Raises SQLAlchemy's errors, as `runs_directory` does.
    """

    def __init__(self, settings: Settings, job_id: UUID) -> None:
        self.path = runs_directory(settings) / str(job_id)
        self.results = self.path / "results"
        """Files that a step leaves here are stored when it has ended."""

    def make(self, *, on_progress: OnProgress = _ignore_progress) -> None:
        """Make it, empty. Like all methods here, calls `on_progress` while it removes former contents."""
        self.remove(on_progress=on_progress)
        self.results.mkdir(parents=True)
        self.path.chmod(0o700)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every command in this directory gets: nothing of the server's but PATH."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.path),
            "TMPDIR": str(self.path),
        }

    def remove(self, *, on_progress: OnProgress = _ignore_progress) -> None:
        """Remove it with everything in it, if it exists. Raises OSError, and the errors of `on_progress`."""
        if os.path.lexists(self.path):  # also a link that a job has put there, to nothing
            _remove_tree(self.path, on_progress)

    def discard(self, *, on_progress: OnProgress = _ignore_progress) -> None:
        """As `remove`, but a failure is logged for the operator, and the job ends nevertheless."""
        try:
            self.remove(on_progress=on_progress)
        except OSError:
            log.exception("job.directory_remains", directory=str(self.path))

    def message_of(self, error: Exception) -> str:
        """The message of an error with paths relative to this directory: users must not see the server's paths."""
        return str(error).replace(f"{self.path}/", "").replace(str(self.path), "the working directory")

    def empty_results(self, *, on_progress: OnProgress = _ignore_progress) -> None:
        """Make room for the results of the next step."""
        if self.path.is_symlink():
            self.path.unlink()  # a step has put it there: what is below it is not ours
        if os.path.lexists(self.results):
            _remove_tree(self.results, on_progress)
        self.results.mkdir(parents=True)
        self.path.chmod(0o700)


def run_ids(settings: Settings) -> set[UUID]:
    """The jobs and deployments of this installation that have a directory on this host. Raises SQLAlchemy's errors."""
    return {UUID(name) for name in _names(settings) if _is_run(name)}


def remove_unknown(settings: Settings) -> list[str]:
    """Remove what is beside the runs of this installation on this host, which a job has put there; its names.

    What cannot be removed is logged. Raises SQLAlchemy's errors.
    """
    removed = []
    for name in sorted(name for name in _names(settings) if not _is_run(name)):
        shown = os.fsencode(name).decode(errors="backslashreplace")
        try:
            _remove_tree(runs_directory(settings) / name, _ignore_progress)
        except OSError:
            log.exception("runtime.unknown_entry_remains", name=shown)
        else:
            removed.append(shown)
    return removed


def _names(settings: Settings) -> list[str]:
    with suppress(FileNotFoundError):
        return os.listdir(runs_directory(settings))  # noqa: PTH208 -- only names
    return []


def _is_run(name: str) -> bool:
    """Whether a name is that of a run, as `WorkDirectory` writes it."""
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _remove_tree(top: Path, on_progress: OnProgress) -> None:
    """Remove a directory, whatever a job has put there or in its place. Raises OSError, and those of `on_progress`."""
    if top.is_symlink() or not top.is_dir():
        top.unlink()  # a link that is named is followed by chmod
        return
    errors_text = b""
    # Not shutil: it recurses, and jobs can nest directories deeper than Python can recurse. Neither command follows
    # links below `top`. Permissions first: a job may have taken them from its own directories, and the owner can
    # restore them.
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
