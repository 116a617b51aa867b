"""Clusters of PostgreSQL for running stacks: whoever needs the first one of a test run makes it, all others copy it."""

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from devstack.servers import EmbeddedPostgres
from tests.support.database import migrate

_KEPT = pytest.StashKey[Path]()
_kept: Path
"""Of the process that distributes the tests, which outlives those that run them."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that will run tests where the clusters are going to be."""
    node.workerinput["clusters"] = str(_kept)


def pytest_configure(config: pytest.Config) -> None:
    """Know where the clusters are going to be."""
    global _kept  # noqa: PLW0603 -- of the process, as plug-ins are
    if given := getattr(config, "workerinput", {}).get("clusters"):
        _kept = Path(given)
    else:
        _kept = config.stash[_KEPT] = Path(tempfile.mkdtemp(prefix="workspaces-clusters-"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete what was copied."""
    if kept := config.stash.get(_KEPT, None):
        for data_dir in kept.glob("*/postgres"):
            EmbeddedPostgres(data_dir, durable=False).discard()
        shutil.rmtree(kept)


def lay_out(server: EmbeddedPostgres, *, migrated: bool = True) -> None:
    """Give a server that has never run a cluster with all tables and no rows, or one without tables.

    Its passwords are its own.
    """
    made = _made("migrated" if migrated else "empty")
    # With the owner of each file, who is not root.
    subprocess.run(["cp", "-a", made.home.cluster, server.home.cluster], check=True)


def _made(name: str) -> EmbeddedPostgres:
    """A server that is not running any more."""
    directory = _kept / name
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = EmbeddedPostgres(directory / "postgres", durable=False)
        if not (directory / "made").exists():
            if name == "empty":
                server.prepare()
            else:
                migrate(server.start())
                server.stop()
            (directory / "made").touch()
    return server
