"""The promise of the product, asked for through the peer's SDK and kept by real worker processes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, and_, create_engine, func, or_, select

from app.cleanup.kinds import ORDER
from app.models import Deployment, Job, Workspace
from tests.compat.nemo import Nemo
from tests.support.stack import Stack

SCRIPTS = Path(__file__).parent / "scripts"
WORKSPACES = "/apis/entities/v2/workspaces"
DELETIONS = "/apis/entities/v2/deletions"
DELETION_TIMEOUT_S = 120

FULL = {
    "members": 10,
    "projects": 5,
    "filesets": 20,
    "parents": 160,
    "children": 40,
    "jobs": 10,
    "configs": 2,
    "deployments": 5,
    "secrets": 4,
    "outputs": 2,
    "lines": 5,
}
"""How much is made of each. `outputs` are jobs whose results go to the first fileset, `lines` are lines of its log."""
LARGE = {**FULL, "filesets": 60, "parents": 800, "children": 200, "jobs": 30}
SMALL = {kind: min(number, 3) for kind, number in FULL.items()}


def expected_of(made: dict[str, int]) -> dict[str, int]:
    """How much of each kind there is then, in the order in which the kinds go."""
    return {
        "jobs": made["jobs"] + made["outputs"],
        "deployments": made["deployments"],
        "secrets": made["secrets"],
        "deployment_configs": made["configs"],
        "job_logs": made["lines"],
        "filesets": made["filesets"] + made["jobs"],  # each job brings one for its results
        "entities": made["parents"] + made["children"],
        "projects": made["projects"],
        "role_bindings": made["members"],
    }


Fill = Callable[[str, dict[str, int]], str]
Step = tuple[str, str | None, int | None]


@pytest.fixture
def engine(stack: Stack) -> Iterator[Engine]:
    engine = create_engine(stack.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def fill(nemo: Nemo, http: httpx.Client, engine: Engine, stack: Stack) -> Iterator[Fill]:
    """Makes and fills a workspace, and returns its id once the runtime has taken up what is in it.

    What runs in those that are left ends with the test: a host has so many job slots, and others need some.
    """
    names = set()

    def fill(name: str, wanted: dict[str, int]) -> str:
        names.add(name)
        filled = nemo.run(SCRIPTS / "fill.py", name, json.dumps(wanted))
        assert filled.returncode == 0, filled.stderr
        workspace_id = http.get(f"{WORKSPACES}/{name}").json()["id"]
        stack.wait_until(
            lambda: not untouched(engine, workspace_id), f"the runtime takes up what is in {name}"
        )
        return workspace_id

    yield fill
    for name in names:
        http.delete(f"{WORKSPACES}/{name}")
    stack.wait_until(lambda: not running(engine), "all that runs has ended")


@pytest.mark.long  # its short form are the deletions of test_sdk.py, test_cli.py and test_snippets.py
@pytest.mark.parametrize("made", [FULL, LARGE], ids=["full", "large"])
def test_a_full_workspace_goes_completely_and_takes_nothing_else_with_it(
    nemo: Nemo, http: httpx.Client, engine: Engine, stack: Stack, fill: Fill, made: dict[str, int]
) -> None:
    number = f"{made['jobs']}-{nemo.programs.release.name}"
    expected, name = expected_of(made), f"tenant-{number}"
    old = fill(name, made)
    old_before = holdings(engine, stack, old)
    neighbour = fill(f"neighbour-{number}", SMALL)
    neighbour_before = holdings(engine, stack, neighbour)
    preview = http.get(f"{WORKSPACES}/{name}/deletion-preview").json()
    assert preview["remaining"] == expected
    assert {kind: len(old_before[kind]) for kind in expected} == expected
    files = sum(content is not None for content in old_before["paths"].values())
    assert files == 2 * made["filesets"] + made["jobs"] + made["outputs"]

    deleted = nemo.run(SCRIPTS / "delete.py", name)
    assert deleted.returncode == 0, deleted.stderr
    successor = fill(name, SMALL)
    successor_before = holdings(engine, stack, successor)

    deletion = f"{DELETIONS}/{deleted.stdout.strip()}"
    stack.wait_until(
        lambda: http.get(deletion).json()["state"] != "DELETING",
        "the deletion ends",
        timeout_s=DELETION_TIMEOUT_S,
    )
    report = http.get(deletion).json()
    assert (report["state"], report["workspace_id"], report["failures"]) == ("DONE", old, [])
    assert report["deleted"] == expected
    assert history(http, deletion) == [
        ("requested", None, None),
        ("started", None, None),
        *phases(expected),
        ("finished", None, None),
    ]

    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(Workspace.id == old)) == 0
    assert not any(holdings(engine, stack, old).values())
    assert successor != old
    assert holdings(engine, stack, successor) == successor_before
    assert holdings(engine, stack, neighbour) == neighbour_before


def running(engine: Engine) -> int:
    """Jobs that a supervisor has."""
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(Job.lease_owner.is_not(None))) or 0


def untouched(engine: Engine, workspace_id: str) -> int:
    """Jobs that do not run yet, and deployments that the runtime has not taken up, or not given back in error."""
    has_failed = and_(Deployment.status == "ERROR", Deployment.lease_owner.is_not(None))
    waiting = {
        Job: Job.status.in_(["created", "pending"]),
        Deployment: or_(Deployment.status == "CREATED", has_failed),
    }
    with engine.connect() as connection:
        return sum(
            connection.scalar(select(func.count()).where(model.workspace_id == workspace_id, waits))
            for model, waits in waiting.items()
        )


def holdings(engine: Engine, stack: Stack, workspace_id: str) -> dict[str, Any]:
    """Every row and every stored byte of a workspace."""
    held: dict[str, Any] = {}
    with engine.connect() as connection:
        for kind in ORDER:
            table = kind.model.__table__
            # Those of running jobs are renewed all the time.
            columns = [column for column in table.c if column.name != "lease_until"]
            rows = connection.execute(
                select(*columns).where(table.c.workspace_id == workspace_id).order_by(table.c.id)
            )
            held[kind.name] = [tuple(row) for row in rows]
    # Only into this workspace's directories: workers are taking others apart at the same time.
    held["paths"] = {
        str(path.relative_to(stack.blob_root)): path.read_bytes() if path.is_file() else None
        for pattern in (f"*/{workspace_id}", f"*/{workspace_id}/**/*")
        for path in stack.blob_root.glob(pattern)
    }
    return held


def phases(counts: dict[str, int]) -> Iterator[Step]:
    """The part of a history in which every kind goes, one after the other."""
    for kind, number in counts.items():
        yield "phase_started", kind, None
        yield "phase_finished", kind, number


def history(http: httpx.Client, deletion: str) -> list[Step]:
    """What happened, to which kind, and how many of it went."""
    events = http.get(f"{deletion}/events", params={"page_size": 1000}).json()["data"]
    return [
        (
            one["event"],
            one["detail"].get("kind"),
            one["detail"].get("deleted") if one["event"] == "phase_finished" else None,
        )
        for one in events
    ]
