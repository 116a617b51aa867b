"""Clusters of PostgreSQL for running stacks: one is made and migrated in each process that starts some, then copied."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from devstack.servers import EmbeddedPostgres
from tests.support.database import migrate


def lay_out(server: EmbeddedPostgres) -> None:
    """Give a server that has never run a cluster with all tables and no rows. Its passwords are its own."""
    # With the owner of each file, who is not root.
    subprocess.run(["cp", "-a", _migrated().home.cluster, server.home.cluster], check=True)


def pytest_unconfigure() -> None:
    """Delete what was copied."""
    if _migrated.cache_info().currsize:
        server = _migrated()
        server.discard()
        shutil.rmtree(server.data_dir.parent)


@cache
def _migrated() -> EmbeddedPostgres:
    """A server that is not running any more."""
    directory = Path(tempfile.mkdtemp(prefix="workspaces-cluster-"))
    server = EmbeddedPostgres(directory / "postgres", durable=False)
    migrate(server.start())
    server.stop()
    return server
