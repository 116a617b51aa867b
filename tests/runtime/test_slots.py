"""Job slots: who gets a free one, what the others are told, and what takes none."""

from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.clock import seconds_from_now
from app.context import Context
from app.health.capacity import older_jobs, with_reason
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeploymentStatus, JobStatus, WorkspaceState
from app.models import Heartbeat, Job, Workspace
from app.runtime.deployments.claim import Claimed, claim_deployment
from app.runtime.jobs import supervisor
from app.runtime.jobs.turns import _next_turns, messages_for_free_slots
from tests.factories import make_config, make_deployment, make_job, make_workspace
from tests.runtime.runs import QUICK, step, submit, supervised, tuned, wait_until
from tests.support.publisher import RecordingPublisher
from tests.support.statements import compact, counted

HERE = "here"
NEVER = Event()


@pytest.fixture
def host(context: Context, session: Session) -> Context:
    """The settings of a host with two job slots, whose worker is alive."""
    note(session, HERE, slots=2)
    return tuned(context, **QUICK, runtime_host=HERE, runtime_job_slots=2)


def note(session: Session, host: str, *, slots: int, silent_s: float = 0) -> None:
    note_alive(session, Process.RUNTIME, [host], job_slots=slots)
    session.execute(
        update(Heartbeat).where(Heartbeat.host == host).values(heartbeat_at=seconds_from_now(-silent_s))
    )
    session.commit()


def put(session: Session, workspace: Workspace, name: str, **values: Any) -> Job:
    job = make_job(session, workspace, name, **values)
    session.commit()
    return job


def running(session: Session, workspace: Workspace, name: str, *, host: str = HERE, **values: Any) -> Job:
    """A job that another supervisor runs."""
    values = {
        "status": JobStatus.ACTIVE,
        "lease_owner": "7@1:2",
        "lease_until": seconds_from_now(60),
        **values,
    }
    return put(session, workspace, name, host=host, **values)


def begins(host: Context, session: Session, job: Job) -> bool:
    """Whether a message for the job makes this host take it up. It has no steps, so it ends at once."""
    supervisor.supervise(host, job.id, stopping=NEVER)
    session.refresh(job)
    return job.status is JobStatus.COMPLETED


def reason(host: Context, session: Session, job: Job) -> str | None:
    session.rollback()
    row = session.get_one(Job, job.id, populate_existing=True)
    return with_reason(session, host.settings, row).get("waiting_for")


def has_asked_for_a_slot(statements: list[str]) -> bool:
    """Whether a supervisor has asked, and has read its row again since."""
    asked = [number for number, one in enumerate(statements) if "pg_advisory_xact_lock" in one]
    return bool(asked) and sum("jobs.fence" in one for one in statements[asked[0] :]) > 2


def offered(publisher: RecordingPublisher) -> list[tuple[str, str]]:
    return [(message.facts["job"], message.queue) for message in publisher.published]


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.CREATED}))
def test_what_runs_takes_a_slot_and_what_is_paused_or_has_ended_takes_none(
    host: Context, session: Session, status: JobStatus
) -> None:
    workspace = make_workspace(session)
    for number in range(2):
        running(session, workspace, f"taken-{number}", status=status)
    takes_none = {JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.ERROR}

    assert begins(host, session, put(session, workspace, "next")) == (status in takes_none)


def test_deployments_take_no_slot(host: Context, session: Session) -> None:
    workspace = make_workspace(session)
    for number in range(3):
        make_deployment(session, workspace, f"chat-{number}", DeploymentStatus.READY, host=HERE)

    assert begins(host, session, put(session, workspace, "next"))


def test_a_job_is_told_what_it_waits_for(host: Context, session: Session) -> None:
    workspace = make_workspace(session)
    first, second = put(session, workspace, "first"), put(session, workspace, "second")
    assert reason(host, session, first) is None, "a slot is free: it is about to be taken up"

    session.execute(update(Heartbeat).values(heartbeat_at=seconds_from_now(-60)))
    session.commit()
    assert reason(host, session, first) == "a runtime worker: none takes up jobs"

    note(session, HERE, slots=0)  # it is being stopped
    assert reason(host, session, first) == "a runtime worker: none takes up jobs"

    note(session, HERE, slots=2)
    for number in range(2):
        running(session, workspace, f"taken-{number}")
    assert reason(host, session, first) == (
        "a free job slot: all 2 of the only host are taken; its place in its workspace is 1"
    )
    assert str(reason(host, session, second)).endswith("its place in its workspace is 2")

    limited = tuned(host, jobs_per_workspace=2)
    note(session, "there", slots=1)
    assert reason(limited, session, second) == (
        "another job of its workspace to end: 2 run, and 2 may; its place is 2"
    )
    assert reason(host, session, second) is None


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_only_a_job_that_waits_is_told_so(host: Context, session: Session, status: JobStatus) -> None:
    workspace = make_workspace(session)
    for number in range(2):
        running(session, workspace, f"taken-{number}")
    nowhere = put(session, workspace, "nowhere", status=status, status_details={"epoch": 3})
    there = put(session, workspace, "there", status=status, host=HERE)

    waits = {JobStatus.CREATED, JobStatus.PENDING, JobStatus.RESUMING}
    assert (reason(host, session, nowhere) is not None) == (status in waits)
    assert (reason(host, session, there) is not None) == (status is JobStatus.RESUMING)
    assert with_reason(session, host.settings, nowhere)["epoch"] == 3


def test_a_free_slot_goes_to_the_workspace_in_which_the_fewest_jobs_run(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    many, few = make_workspace(session, "many"), make_workspace(session, "few")
    running(session, many, "taken")
    of_many, of_few = put(session, many, "next-of-many"), put(session, few, "next-of-few")

    assert not begins(host, session, of_many)
    assert offered(publisher) == [("next-of-few", f"runtime.{HERE}")]
    assert begins(host, session, of_few)
    assert begins(host, session, of_many), "nobody else waits"


def test_of_one_workspace_the_oldest_job_comes_first(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    workspace = make_workspace(session)
    running(session, workspace, "taken")
    first, second = put(session, workspace, "first"), put(session, workspace, "second")

    assert not begins(host, session, second)
    assert offered(publisher) == [("first", f"runtime.{HERE}")]
    assert begins(host, session, first)


def test_a_job_need_not_wait_for_older_ones_while_there_are_slots_for_all(
    host: Context, session: Session
) -> None:
    workspace = make_workspace(session)
    _, second = put(session, workspace, "first"), put(session, workspace, "second")

    assert begins(host, session, second)


def test_jobs_in_workspaces_that_are_being_deleted_are_passed_over(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    doomed, active = make_workspace(session, "doomed", state=WorkspaceState.DELETING), make_workspace(session)
    running(session, active, "taken")
    put(session, doomed, "doomed")

    assert begins(host, session, put(session, active, "next"))
    assert offered(publisher) == []


def test_no_more_jobs_of_a_workspace_run_than_may_on_all_hosts_together(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    limited = tuned(host, jobs_per_workspace=1)
    full, other = make_workspace(session, "full"), make_workspace(session, "other")
    busy = running(session, full, "busy", host="there")
    job = put(session, full, "next")

    assert not begins(limited, session, job)
    assert offered(publisher) == []
    assert begins(limited, session, put(session, other, "other"))
    busy.status, busy.host = JobStatus.COMPLETED, None
    session.commit()
    assert begins(limited, session, job)


def test_a_full_host_hands_a_job_on_to_one_that_has_a_slot(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    workspace = make_workspace(session)
    for number in range(2):
        running(session, workspace, f"taken-{number}")
    note(session, "silent", slots=9, silent_s=60)
    job = put(session, workspace, "next")
    assert not begins(host, session, job)
    assert offered(publisher) == [], "no host has a slot"

    note(session, "there", slots=1)
    assert not begins(host, session, job)
    assert offered(publisher) == [("next", "runtime.there")]


def test_a_job_that_ends_or_is_paused_offers_its_slot_to_the_one_whose_turn_it_is(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    workspace = make_workspace(session)
    running(session, workspace, "taken")
    job_id = submit(session, step("echo ready; sleep 60 & wait"), workspace=workspace, name="long")
    with supervised(host, job_id) as run:
        run.wait_for_line("ready")
        put(session, workspace, "next")
        assert offered(publisher) == []

        run.ask(JobStatus.PAUSING)
        wait_until(lambda: offered(publisher) == [("next", f"runtime.{HERE}")], "its slot is offered")

        run.ask(JobStatus.CANCELLING)
        run.end()
        assert offered(publisher) == [("next", f"runtime.{HERE}")] * 2


def test_a_paused_job_goes_on_once_it_has_a_slot_and_before_those_that_have_not_begun(
    host: Context, session: Session
) -> None:
    workspace = make_workspace(session)
    job_id = submit(session, step("echo ready; sleep 60 & wait"), workspace=workspace, name="long")
    with supervised(host, job_id) as run:
        run.wait_for_line("ready")
        run.ask(JobStatus.PAUSING)
        run.wait_for(JobStatus.PAUSED)
        taken = [running(session, workspace, f"taken-{number}") for number in range(2)]
        with counted(host.sessions.kw["bind"]) as sent:
            run.ask(JobStatus.RESUMING)
            wait_until(lambda: has_asked_for_a_slot([one.text for one in sent]), "it asks for a slot")
        assert reason(host, session, run.job) == "a free job slot: all 2 of its host are taken"
        other = put(session, workspace, "other")

        taken[0].status = JobStatus.PAUSED
        session.commit()
        assert not begins(host, session, other)
        run.wait_for(JobStatus.ACTIVE)
        assert not begins(host, session, other)


def test_the_sweep_sends_jobs_to_hosts_that_have_slots_and_nothing_in_their_queues(
    host: Context, session: Session, publisher: RecordingPublisher
) -> None:
    publisher.empty_queues.update({f"runtime.{HERE}", "runtime.silent", "runtime.full"})
    note(session, "silent", slots=9, silent_s=60)
    note(session, "busy", slots=5)  # it has yet to take what its queue holds
    note(session, "full", slots=1)
    for number in range(4):
        workspace = make_workspace(session, f"w-{number}")
        put(session, workspace, "first")
        put(session, workspace, "second")
    running(session, workspace, "taken", host="full")

    messages = messages_for_free_slots(session, replace(host, publisher=publisher))

    assert [(one.facts["job"], one.queue) for one in messages] == [("first", f"runtime.{HERE}")] * 2
    assert str(workspace.id) not in {one.facts["workspace_id"] for one in messages}, "one of its jobs runs"


def test_the_sweep_sends_nothing_while_nobody_waits_or_no_slot_is_free(
    host: Context, session: Session
) -> None:
    publisher = RecordingPublisher(empty_queues={f"runtime.{HERE}"})
    sweeping = replace(host, publisher=publisher)
    workspace = make_workspace(session)
    assert messages_for_free_slots(session, sweeping) == []

    for number in range(2):
        running(session, workspace, f"taken-{number}")
    put(session, workspace, "next")
    assert messages_for_free_slots(session, sweeping) == []


def test_whose_turn_it_is_is_found_without_reading_all_that_wait(
    host: Context, session: Session, engine: Engine
) -> None:
    workspace = make_workspace(session)
    for number in range(2):
        put(session, make_workspace(session, f"other-{number}"), "waits")
    rows = [
        {
            "workspace_id": workspace.id,
            "name": f"j-{n}",
            "source": "t",
            "fileset": f"f-{n}",
            "platform_spec": {},
        }
        for n in range(3000)
    ]
    session.execute(insert(Job), rows)
    session.commit()
    compact(engine, "jobs")

    before = jobs_read(session)
    assert len(_next_turns(session, host.settings, at_most=2)) == 2
    assert older_jobs(session, workspace.id, uuid7(), at_most=5) == 5

    assert jobs_read(session) - before < 300


def jobs_read(session: Session) -> int:
    """How many rows of the table and entries of its indexes this transaction has read."""
    of_table = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'jobs'"
    of_indexes = (
        "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index "
        "WHERE indrelid = 'jobs'::regclass"
    )
    return sum(session.scalar(text(one)) or 0 for one in (of_table, of_indexes))


def test_a_worker_with_too_much_to_supervise_takes_up_nothing_but_new_versions(
    host: Context, session: Session
) -> None:
    crowded = Event()
    crowded.set()
    workspace = make_workspace(session)
    make_config(session, workspace)
    job = put(session, workspace, "next")
    make_deployment(session, workspace, "old", DeploymentStatus.READY, host=HERE)
    successor = make_deployment(session, workspace, "old", entity_version=2)
    new = make_deployment(session, workspace, "new")
    session.commit()

    summary = supervisor.supervise(host, job.id, stopping=NEVER, crowded=crowded)

    assert summary == "stays created, this worker supervises as much as it can"
    assert isinstance(claim_deployment(host, successor.id, NEVER, crowded), Claimed)
    why = "waits for a place: the runtime workers supervise as much as they can"
    assert claim_deployment(host, new.id, NEVER, crowded) == f"version 1 {why}"
    session.refresh(new)
    assert (new.status, new.status_message) == (DeploymentStatus.PENDING, why)


def test_no_more_deployments_of_a_workspace_are_served_than_may_but_each_can_be_updated(
    host: Context, session: Session
) -> None:
    limited = tuned(host, deployments_per_workspace=1)
    workspace, other = make_workspace(session), make_workspace(session, "other")
    for one in (workspace, other):
        make_config(session, one)
    served = make_deployment(session, workspace, "served", DeploymentStatus.READY, host="there")
    successor = make_deployment(session, workspace, "served", entity_version=2)
    new, elsewhere = make_deployment(session, workspace, "new"), make_deployment(session, other, "new")
    session.commit()

    why = "waits for a place: 1 deployments of its workspace are served, and 1 may"
    assert claim_deployment(limited, new.id, NEVER) == f"version 1 {why}"
    assert isinstance(claim_deployment(limited, successor.id, NEVER), Claimed)
    assert isinstance(claim_deployment(limited, elsewhere.id, NEVER), Claimed)
    session.refresh(new)
    assert new.status_message == why

    for one in (served, successor):
        session.refresh(one)
        one.host = one.lease_owner = None
    session.commit()
    assert isinstance(claim_deployment(limited, new.id, NEVER), Claimed)
