"""`make up` on the data directory of an earlier commit: nothing in it is lost, and what was under way goes on.

`data-of-1bf1bc2.tar.xz` is the `.data` of `make up` at that commit, with PostgreSQL 18, after an orderly stop. It has
the workspace `kept` with an entity, a file, a job that ended with a result, a job that ran, and a deployment; `gone`,
deleted; and `halfway`, whose deletion was requested while destruction was paused.
"""

import os
import pwd
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.homes import UNPRIVILEGED_USER
from tests.devstack.stacks import REPOSITORY, eventually, running

RECORDED = Path(__file__).with_name("data-of-1bf1bc2.tar.xz")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """The recorded data directory, where the unprivileged user that runs PostgreSQL for root can enter."""
    with tempfile.TemporaryDirectory(prefix="workspaces-recorded-") as directory:
        place = Path(directory) / "data"
        Path(directory).chmod(0o755)
        with tarfile.open(RECORDED) as archive:
            # Python before 3.11.4 has no filters.
            safely = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
            archive.extractall(place, **safely)  # noqa: S202 -- our own archive
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED_USER)
            for path in (place / "postgres", *(place / "postgres").rglob("*")):
                os.lchown(path, owner.pw_uid, owner.pw_gid)
        yield place
        if (link := place / "postgres" / "cluster").is_symlink():
            shutil.rmtree(link.readlink().parent, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.long
def test_make_up_goes_on_with_the_data_of_an_earlier_commit(data_dir: Path, tmp_path: Path) -> None:
    with (
        running(REPOSITORY, output=tmp_path, WORKSPACES_DATA_DIR=str(data_dir)) as stack,
        httpx.Client(base_url=f"http://127.0.0.1:{stack.port}", timeout=30) as client,
    ):

        def get(path: str) -> Any:
            return client.get(path).raise_for_status().json()

        def states() -> dict[str, str]:
            page = get("/apis/entities/v2/deletions")
            return {one["workspace_name"]: one["state"] for one in page["data"]}

        assert get("/apis/entities/v2/workspaces/kept/entities/recipe/soup")["data"] == {"salt": 3}
        assert client.get("/apis/files/v2/workspaces/kept/filesets/notes/-/hello.txt").text == "hello\n"
        jobs = "/apis/jobs/v2/workspaces/kept/jobs"
        assert client.get(f"{jobs}/done/results/score/download").text == "0.93\n"
        assert [line["message"] for line in get(f"{jobs}/done/logs")["data"]] == ["line"]
        # It ran while the stack was stopped in order, and says so.
        assert get(f"{jobs}/running/status")["status"] == "error"
        assert eventually(
            lambda: get("/apis/models/v2/workspaces/kept/deployments/chat")["status"] == "READY", within_s=120
        )
        assert states() == {"gone": "DONE", "halfway": "DELETING"}

        client.put("/apis/entities/v2/cleanup-control", json={"paused": False}).raise_for_status()

        assert eventually(lambda: states() == {"gone": "DONE", "halfway": "DONE"}, within_s=120)
        # The directory and the servers in it were open to every user of the machine.
        assert data_dir.stat().st_mode & 0o777 == 0o700
        assert "trust" not in (data_dir / "postgres" / "cluster" / "pg_hba.conf").read_text()
        assert stack.printed("database  postgresql+psycopg://product:***@127.0.0.1:")
        # The store of before there were markers was taken, because the workspaces in it are known.
        assert sorted(path.name for path in (data_dir / "blobs" / "files").iterdir()) == [
            str(get("/apis/entities/v2/workspaces/kept")["id"]),
            "workspaces-store.json",
        ]
