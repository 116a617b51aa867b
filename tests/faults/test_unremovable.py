"""A fileset that cannot be deleted: everything else goes, people are told, and there is a way out."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from functools import partial
from pathlib import Path
from struct import pack, unpack
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.config import Settings
from app.lifecycle import JobStatus
from app.models import Fileset
from tests import factories
from tests.faults.world import EACH, MESSAGE_LOST_S, QUICK, WORK_S, Tenant, World, seconds_since
from tests.support import guide
from tests.support.deadlines import DEADLINE_S
from tests.support.figures import Within
from tests.support.stack import ALL, CHECKOUT, Stack

NAME = "fileset-2"  # of the unremovable one: neither the first nor the last of its kind
PLUG_IN = CHECKOUT / "tests" / "support" / "faulty_store"
PASSES = 4
REATTEMPT_S = 5.0
# Every pass without progress is followed by at most a second's wait and, rarely, a lost message.
GIVE_UP_S = PASSES * QUICK["backoff_cap_seconds"] + MESSAGE_LOST_S
ADMIN = {"X-NMP-Principal-Id": "ada@example.com"}
TASK_NAMES = {
    "workspace.cleanup.jobs",
    "workspace.cleanup.deployments",
    "workspace.cleanup.secrets",
    "workspace.cleanup.deployment_configs",
    "workspace.cleanup.job_logs",
    "workspace.cleanup.filesets",
    "workspace.cleanup.entities",
    "workspace.cleanup.projects",
    "workspace.cleanup.role_bindings",
    "workspace.cleanup.finalize",
    "workspace.maintenance.sweep",
    "workspace.job.run",
    "workspace.deployment.run",
}
"""What an operator can see in Flower; the first orphan scan comes after an hour."""


LOGIN = ("ops", "its-password")
AS_RELEASED = {
    f"WORKSPACES_{name.upper()}": str(Settings.model_fields[name].default)
    for name in (
        *("slice_seconds", "task_soft_limit_seconds", "task_hard_limit_seconds"),
        *("lease_seconds", "visibility_timeout_seconds"),
    )
}
"""The settings by which a slice has time for several kinds, also on a busy machine."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("unremovable")
    settings = {**QUICK, "max_attempts": PASSES, "reattempt_delays_seconds": (REATTEMPT_S,)}
    with Stack(
        directory,
        parts=(*ALL, "flower"),
        environment={"FLOWER_BASIC_AUTH": ":".join(LOGIN)},
        plug_ins=[PLUG_IN],
        storage_url=f"faulty://{directory / 'data' / 'blobs'}",
        **settings,
    ) as stack:
        stack.blob_root.mkdir(exist_ok=True)
        yield stack


@pytest.fixture(autouse=True)
def _no_faults_at_first(stack: Stack) -> None:
    set_fault(stack, None, None)


def set_fault(stack: Stack, fileset_id: UUID | None, fault: str | None) -> None:
    """From now on the store fails at this fileset, and only there."""
    written = stack.blob_root / "faults.json.new"
    written.write_text(json.dumps({str(fileset_id): fault} if fault else {}))
    written.rename(stack.blob_root / "faults.json")


def unremovable_of(world: World, tenant: Tenant) -> UUID:
    """The id of the fileset that will not go."""
    with Session(world.engine) as session:
        return session.scalars(
            select(Fileset.id).where(Fileset.workspace_id == tenant.id, Fileset.name == NAME)
        ).one()


def tasks_of(stack: Stack, deletion: str) -> list[dict[str, Any]]:
    """What Flower shows of a deletion."""
    tasks = httpx.get(
        f"{stack.flower_url}/api/tasks", params={"limit": 5000}, timeout=10, auth=LOGIN
    ).raise_for_status()
    return [task for task in tasks.json().values() if deletion in (task["args"] or "")]


@pytest.mark.parametrize(
    "path",
    [
        "worker/shutdown/{worker}",
        "worker/pool/shrink/{worker}",
        "worker/pool/restart/{worker}",
        "worker/queue/cancel-consumer/{worker}?queue=cleanup",
        "task/revoke/some-task?terminate=true",
        "task/rate-limit/workspace.maintenance.sweep?workername={worker}&ratelimit=0",
        "task/async-apply/workspace.maintenance.sweep",
        "task/send-task/workspace.maintenance.sweep",
    ],
)
def test_flower_only_watches(stack: Stack, path: str) -> None:
    worker = f"cleanup@{socket.gethostname()}"

    refused = httpx.post(f"{stack.flower_url}/api/{path.format(worker=worker)}", auth=LOGIN, timeout=10)

    assert (refused.status_code, refused.text) == (403, "Read only mode is enabled")


def test_flower_asks_for_its_password_and_takes_nothing_from_pages_of_others(stack: Stack) -> None:
    for path in ("/", "/tasks", "/broker", "/api/tasks", "/api/workers"):
        assert httpx.get(stack.flower_url + path, timeout=10).status_code == 401
        # The page that lets its name lead here has no password either.
        rebound = {"Host": "evil.example:5555", "Origin": "http://evil.example:5555"}
        assert httpx.get(stack.flower_url + path, headers=rebound, timeout=10).status_code == 401
    assert httpx.get(f"{stack.flower_url}/tasks", auth=LOGIN, timeout=10).status_code == 200

    foreign = {"Origin": "http://evil.example"}
    datatable = f"{stack.flower_url}/tasks/datatable"
    assert httpx.post(datatable, headers=foreign, auth=LOGIN, timeout=10).status_code == 403


def test_flower_shows_why_a_task_failed_beside_what_it_was_about(stack: Stack) -> None:
    columns = httpx.get(f"{stack.flower_url}/tasks", auth=LOGIN, timeout=10).text

    for name in ("args", "Result", "Exception"):
        assert re.search(rf"<th[^>]*>\s*{name}\s*</th>", columns)


def test_flower_has_a_page_of_the_broker(stack: Stack) -> None:
    page = httpx.get(f"{stack.flower_url}/broker", auth=LOGIN, timeout=10)

    assert page.status_code == 200, page.text
    assert "redis://" in page.text
    assert "<td>cleanup</td>" in page.text


def test_flower_and_beat_leave_no_file_that_they_would_read(stack: Stack) -> None:
    """They would be pickles, beside the files of jobs."""
    written = {path.name.partition(".")[0] for path in stack.data_dir.iterdir()}
    assert {"beat-schedule", "flower", "flower.db"}.isdisjoint(written)


def test_an_unremovable_fileset_fails_its_workspace_in_sight_and_goes_once_it_can(
    world: World, stack: Stack, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    fileset = unremovable_of(world, doomed)
    set_fault(stack, fileset, "503")
    started = time.monotonic()

    deletion = world.delete(doomed.name)
    successor = world.fill(doomed.name, each=1)
    stack.wait_until(
        lambda: any(
            task["state"] == "RETRY" and f"filesets/{NAME}: OSError: 503" in task["exception"]
            for task in tasks_of(stack, deletion)
        ),
        "Flower shows a RETRY with its reason",
    )
    report = world.report_in(deletion, "FAILED")  # it is tried again soon

    within("unremovable fileset: FAILED", seconds_since(started), GIVE_UP_S + WORK_S)
    [failure] = report["failures"]
    assert (failure["kind"], failure["name"], failure["error_class"]) == ("filesets", NAME, "transient")
    assert failure["resource_id"] == str(fileset)
    assert failure["message"].startswith("OSError: 503 Service Unavailable")
    assert failure["attempts"] >= PASSES
    assert f"filesets/{NAME}: OSError: 503" in report["reason"]
    assert f"no progress in {PASSES} passes" in report["reason"]
    assert str(stack.blob_root) not in json.dumps(report)
    # Everything else of its kind went, and what comes after the kind stays.
    assert report["deleted"]["filesets"] == EACH - 1
    assert report["remaining"]["filesets"] == 1
    assert report["remaining"]["entities"] == doomed.rows["entities"]
    assert world.is_untouched(neighbour)
    assert world.is_untouched(successor)
    assert f"workspace={doomed.name}" in the_line_about_failure(stack, deletion)
    assert f"filesets/{NAME}: OSError: 503" in the_line_about_failure(stack, deletion)
    assert f"POST /apis/entities/v2/deletions/{deletion}/retry" in the_line_about_failure(stack, deletion)
    assert "raised unexpected" not in stack.log("worker")
    assert "Traceback" not in stack.log("worker")
    successes = [line for line in stack.log("worker").splitlines() if "succeeded in" in line]
    assert all("deletion_id=" in line for line in successes)
    flower_told_the_failure(stack, doomed, deletion)

    reattempted = stack.wait_until(
        lambda: "reattempted" in world.events(deletion), "the schedule tries again", timeout_s=30
    )
    within("FAILED: re-attempted", reattempted, REATTEMPT_S + MESSAGE_LOST_S)
    set_fault(stack, None, None)
    mended_at = time.monotonic()
    world.wait_for_state(deletion, "DONE")

    within(
        "cause removed: DONE by itself",
        seconds_since(mended_at),
        GIVE_UP_S + REATTEMPT_S + MESSAGE_LOST_S + WORK_S,
    )
    assert world.left_of(doomed.id) == []
    assert world.is_untouched(neighbour)
    assert world.is_untouched(successor)
    assert world.report(deletion)["deleted"] == doomed.rows
    flower_told_the_successes(stack, doomed, deletion)


def the_line_about_failure(stack: Stack, deletion: str) -> str:
    lines = [line for line in stack.log("worker").splitlines() if "workspace.cleanup_failed" in line]
    return next(line for line in lines if deletion in line)


def flower_told_the_failure(stack: Stack, tenant: Tenant, deletion: str) -> None:
    """A FAILURE whose exception names the resource and the cause."""
    stack.wait_until(
        lambda: any(
            task["state"] == "FAILURE"
            and task["name"] == "workspace.cleanup.filesets"
            and f"{tenant.name} is FAILED: filesets/{NAME}: OSError: 503" in task["exception"]
            for task in tasks_of(stack, deletion)
        ),
        "Flower shows the FAILURE with its reason",
    )


def flower_told_the_successes(stack: Stack, tenant: Tenant, deletion: str) -> None:
    """Rows that a person can read, under the names of the phases and no others."""
    end = f"{tenant.name} is gone: "
    stack.wait_until(
        lambda: any(end in (task["result"] or "") for task in tasks_of(stack, deletion)),
        "Flower shows the end",
    )
    tasks = tasks_of(stack, deletion)
    for task in tasks:
        phase = re.escape(task["name"].rpartition(".")[2])
        facts = rf"workspace={tenant.name} attempt=\d+ phase={phase} deletion_id={deletion}"
        assert re.fullmatch(facts, task["args"]), task["args"]
    said = [task["result"].strip("'") for task in tasks if task["state"] == "SUCCESS"]
    for kind in ("jobs", "deployment_configs", "projects"):
        # In whichever task of one kind or of several it went.
        slice_ = rf"{tenant.name} (.*; )?{kind}: {tenant.rows[kind]} deleted, 0 left(; .*)?"
        end_of_all = rf"{tenant.name} is gone: (.*, )?{kind} {tenant.rows[kind]}(, .*)?"
        assert any(re.fullmatch(f"{slice_}|{end_of_all}", one) for one in said), (kind, said)
    every = (
        httpx.get(f"{stack.flower_url}/api/tasks", params={"limit": 5000}, timeout=10, auth=LOGIN)
        .json()
        .values()
    )
    # On a busy machine Flower may have missed the event with the name.
    assert {task["name"] for task in every} - {None} <= TASK_NAMES
    names = {task["name"] for task in tasks}
    assert {"workspace.cleanup.jobs", "workspace.cleanup.filesets"} <= names, "what failed has its own name"
    assert names <= {name for name in TASK_NAMES if ".cleanup." in name}


def test_a_skipped_fileset_is_retained_on_record_and_the_rest_goes(
    world: World, stack: Stack, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    fileset = unremovable_of(world, doomed)
    set_fault(stack, fileset, "503")
    deletion = world.delete(doomed.name)
    # Between two re-attempts there are five seconds in which it is FAILED.
    world.wait_for_state(deletion, "FAILED")

    skipped = stack.client.post(
        f"/apis/entities/v2/deletions/{deletion}/skip",
        json={"kind": "filesets", "resource_id": str(fileset), "reason": "the disk is under legal hold"},
        headers=ADMIN,
    )
    assert skipped.status_code == 200, skipped.text
    skipped_at = time.monotonic()
    world.wait_for_state(deletion, "DONE")

    within("skipped: DONE", seconds_since(skipped_at), MESSAGE_LOST_S + WORK_S)
    report = world.report(deletion)
    [failure] = report["failures"]
    assert (failure["name"], failure["skipped_by"]) == (NAME, ADMIN["X-NMP-Principal-Id"])
    assert failure["skip_reason"] == "the disk is under legal hold"
    assert "skipped" in world.events(deletion)
    assert report["deleted"] == {**doomed.rows, "filesets": EACH - 1}
    left = world.left_of(doomed.id)
    assert all(str(fileset) in path or path.endswith(f"/{doomed.id}") for path in left)
    assert any(path.endswith("b.txt") for path in left)
    assert world.is_untouched(neighbour)


def test_what_is_forbidden_fails_at_once_and_waits_for_a_person(
    world: World, stack: Stack, within: Within
) -> None:
    doomed, neighbour = world.fill(), world.fill(each=1)
    set_fault(stack, unremovable_of(world, doomed), "forbidden")
    started = time.monotonic()

    deletion = world.delete(doomed.name)
    world.wait_for_state(deletion, "FAILED")

    within("forbidden: FAILED", seconds_since(started), MESSAGE_LOST_S + WORK_S)
    report = world.report(deletion)
    assert [failure["error_class"] for failure in report["failures"]] == ["permanent"]
    assert f"filesets/{NAME}: PermissionError: 403 Forbidden" in report["reason"]
    assert report["next_reattempt_at"] is None
    assert report["deleted"]["filesets"] == EACH - 1
    assert "backed_off" not in world.events(deletion)

    set_fault(stack, None, None)
    retry(world, deletion, within)
    assert world.left_of(doomed.id) == []
    assert world.is_untouched(neighbour)
    assert "reattempted" not in world.events(deletion)


def test_a_directory_that_the_system_protects_is_reported_and_goes_once_it_can(
    world: World, within: Within
) -> None:
    doomed = world.fill()
    directory = world.stack.blob_root / "files" / str(doomed.id) / str(unremovable_of(world, doomed)) / "a"

    with protected(directory):
        deletion = world.delete(doomed.name)
        world.wait_for_state(deletion, "FAILED")
        [failure] = world.report(deletion)["failures"]
        still_there = (directory / "b.txt").read_bytes()

    assert (failure["name"], failure["error_class"]) == (NAME, "permanent")
    assert "PermissionError" in failure["message"]
    assert still_there == b"bytes"
    retry(world, deletion, within)
    assert world.left_of(doomed.id) == []


def retry(world: World, deletion: str, within: Within) -> None:
    """What an administrator does once the cause is gone."""
    answer = world.stack.client.post(f"/apis/entities/v2/deletions/{deletion}/retry", headers=ADMIN)
    assert answer.status_code == 200, answer.text
    retried_at = time.monotonic()
    world.wait_for_state(deletion, "DONE")
    within("retried by an administrator: DONE", seconds_since(retried_at), MESSAGE_LOST_S + WORK_S)


@contextmanager
def protected(directory: Path) -> Iterator[None]:
    """A directory from which nobody, or nobody but root, can remove anything."""
    if os.geteuid() != 0:
        mode = directory.stat().st_mode
        directory.chmod(0o500)
        try:
            yield
        finally:
            directory.chmod(mode)
        return
    try:
        set_immutable(directory, immutable=True)
    except OSError as error:
        pytest.skip(f"root can remove everything here: the filesystem has no immutable flag ({error})")
    try:
        yield
    finally:
        set_immutable(directory, immutable=False)


def set_immutable(directory: Path, *, immutable: bool) -> None:
    """What `chattr +i` and `-i` do."""
    get_flags, set_flags, flag = 0x80086601, 0x40086602, 0x10  # FS_IOC_GETFLAGS, _SETFLAGS, FS_IMMUTABLE_FL
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        (flags,) = unpack("l", ioctl(descriptor, get_flags, pack("l", 0)))
        ioctl(descriptor, set_flags, pack("l", flags | flag if immutable else flags & ~flag))
    finally:
        os.close(descriptor)


def test_flower_shows_what_the_readme_says(world: World, stack: Stack) -> None:
    """Row by row: the workspaces of its tour, deleted as there, and what a real Flower has of each."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in guide.table_lines((CHECKOUT / "README.md").read_text(), "What Flower shows")
    ]
    [gone, stuck, paused] = rows[1:]  # below the names of the columns
    with Session(world.engine) as session:
        workspace = factories.make_workspace(session, "stuck")
        bad = factories.make_fileset(session, workspace, "bad", store=world.store, files={"a.txt": b"bytes"})
        factories.make_workspace(session, "oops")
        unremovable = bad.id
        session.commit()
    set_fault(stack, unremovable, "forbidden")
    for worker in stack.running("worker"):
        worker.stop()
    stack.start("worker", **AS_RELEASED)

    delete_in_one_task(world, stack, gone)
    deletion = world.delete("stuck")
    world.wait_for_state(deletion, "FAILED")
    wait_until_shown(stack, deletion, stuck)
    world.pause(paused=True)
    try:
        wait_until_shown(stack, world.delete("oops"), paused)
    finally:
        world.pause(paused=False)


def delete_in_one_task(world: World, stack: Stack, row: list[str]) -> None:
    """Delete the team of the tour until one task was enough: on a busy machine its work is handed over meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with Session(world.engine) as session:
            team = factories.make_workspace(session, "ml-team")
            factories.make_job(session, team, "train", JobStatus.COMPLETED)
            factories.make_fileset(session, team, "raw")
            factories.make_fileset(session, team, "clean")
            factories.make_entity(session, team, "thing")
            factories.make_project(session, team)
            session.commit()
        deletion = world.delete("ml-team")
        world.wait_for_state(deletion, "DONE")
        stack.wait_until(partial(is_end_shown, stack, deletion), "Flower shows its end")
        if is_shown(stack, deletion, row):
            return
        assert time.monotonic() < deadline, f"never as in {row}: {tasks_of(stack, deletion)}"


def wait_until_shown(stack: Stack, deletion: str, row: list[str]) -> None:
    stack.wait_until(partial(is_shown, stack, deletion, row), f"Flower shows {row}")


def is_shown(stack: Stack, deletion: str, row: list[str]) -> bool:
    return any(shows(task, row) for task in tasks_of(stack, deletion))


def is_end_shown(stack: Stack, deletion: str) -> bool:
    return any(" is gone: " in (task["result"] or "") for task in tasks_of(stack, deletion))


def shows(task: dict[str, Any], row: list[str]) -> bool:
    """Whether a task of Flower is what a row of the README says, where `…` stands for anything."""
    name, facts, state, text = row
    patterns = [".*".join(re.escape(part) for part in cell.split("…")) for cell in (facts, text)]
    # Which quotes Python writes depends on those in the message.
    patterns = [pattern.replace('"', "'") for pattern in patterns]
    told = (
        (task["exception"] or "").replace('"', "'")
        if state == "FAILURE"
        else (task["result"] or "").strip("'")
    )
    return (
        (task["name"], task["state"]) == (name, state)
        and re.fullmatch(patterns[0], task["args"]) is not None
        and re.fullmatch(patterns[1], told or "") is not None
    )
