"""The slice: what it removes, in which order, and how it ends."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text, update

from app.cleanup import lease, ledger
from app.cleanup.engine import run_slice
from app.cleanup.kinds import ORDER
from app.cleanup.outcomes import Advanced, Failed, Finished, Idle, Postponed
from app.lifecycle import DeletionState, DeploymentStatus, FailureClass, JobStatus, WorkspaceState
from app.models import Deletion, DeletionEvent, DeletionFailure, Deployment, Job, Workspace
from tests import factories
from tests.cleanup.conftest import the
from tests.support.hasty_store import HastyStore
from tests.support.statements import counted


def exists(session, workspace_id):
    """Whether the workspace row is still there."""
    found = session.scalar(select(Workspace.id).where(Workspace.id == workspace_id))
    session.rollback()  # an open transaction would keep others from changing the schema
    return found is not None


def settle_runtime(session):
    """Play the runtime worker: confirm everything that was asked to stop."""
    session.rollback()
    session.execute(
        update(Job).where(Job.status == JobStatus.CANCELLING).values(status=JobStatus.CANCELLED, host=None)
    )
    session.execute(
        update(Deployment)
        .where(Deployment.status == DeploymentStatus.DELETING)
        .values(status=DeploymentStatus.DELETED)
    )
    session.commit()


def test_everything_of_a_workspace_goes_and_its_neighbours_keep_everything(session, context, delete, clock):
    doomed, neighbour = factories.make_workspace(session), factories.make_workspace(session, "neighbour")
    held = factories.fill(session, context.store, doomed)
    doomed_id = doomed.id
    kept = factories.fill(session, context.store, neighbour)
    deletion_id = delete("ml-team")
    successor = factories.make_workspace(session, "ml-team")
    factories.fill(session, context.store, successor)

    outcome = None
    while not isinstance(outcome, Finished):
        outcome = run_slice(context, deletion_id, owner="w")
        settle_runtime(session)
        clock.pass_(3)

    deletion = the(session, deletion_id)
    assert deletion.state is DeletionState.DONE
    assert deletion.deleted_counts == deletion.created_counts == held
    assert factories.rows_of(session, doomed_id) == {}
    assert not exists(session, doomed_id)
    assert set(context.store.workspace_ids()) == {neighbour.id, successor.id}
    assert factories.rows_of(session, neighbour.id) == kept
    assert factories.rows_of(session, successor.id) == kept


def test_the_history_is_complete_and_in_the_order_of_the_kinds(session, context, delete, drive):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace)
    factories.make_project(session, workspace)
    factories.make_fileset(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")

    drive(deletion_id)

    events = session.scalars(
        select(DeletionEvent).where(DeletionEvent.deletion_id == deletion_id).order_by(DeletionEvent.id)
    ).all()
    assert [(event.event, event.detail.get("kind")) for event in events] == [
        ("requested", None),
        ("started", None),
        ("phase_started", "jobs"),
        ("phase_finished", "jobs"),
        ("phase_started", "filesets"),
        ("phase_finished", "filesets"),
        ("phase_started", "projects"),
        ("phase_finished", "projects"),
        ("finished", None),
    ]
    assert events[-1].detail["deleted"] == {"jobs": 1, "filesets": 1, "projects": 1}


def test_a_worker_lost_before_it_could_begin_leaves_the_beginning_to_the_next(
    session, context, delete, clock, drive
):
    workspace = factories.make_workspace(session)
    factories.make_project(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")
    assert lease.claim(session, owner="lost", lease_s=60, deletion_id=deletion_id)
    session.commit()
    clock.pass_(61)

    assert isinstance(drive(deletion_id)[-1], Finished)

    assert the(session, deletion_id).created_counts == {"projects": 1}
    assert session.scalars(select(DeletionEvent.event)).all().count("started") == 1


def slow_down(monkeypatch, clock, *kinds):
    """Let two seconds pass whenever something of these kinds has gone."""
    count_deleted = ledger.count_deleted

    def count(session, claim, kind, **values):
        clock.passed_s += 2 if kind in kinds else 0
        return count_deleted(session, claim, kind, **values)

    monkeypatch.setattr(ledger, "count_deleted", count)


def tasks(publisher):
    names = [message.task for message in publisher.published]
    return [name for name in names if name.startswith("workspace.cleanup.")]


def fill_with_what_runs_no_more(session, context):
    factories.fill(session, context.store, factories.make_workspace(session), number=1)
    session.execute(update(Deployment).values(status=DeploymentStatus.DELETED))
    session.commit()


def test_a_small_workspace_goes_in_one_slice(session, context, delete, clock, publisher):
    fill_with_what_runs_no_more(session, context)

    outcome = run_slice(context, delete("ml-team"), owner="w")

    assert outcome == Finished(
        "ml-team is gone: jobs 1, deployments 1, secrets 1, deployment_configs 1, job_logs 1, filesets 1, "
        "entities 2, projects 1, role_bindings 1"
    )
    assert tasks(publisher) == ["workspace.cleanup.jobs"]


def test_a_workspace_that_holds_nothing_costs_few_statements(session, context, delete, clock, engine):
    workspace = factories.make_workspace(session)
    factories.make_binding(session, workspace, "ann@example.com")
    session.commit()
    deletion_id = delete("ml-team")

    with counted(engine) as sent:
        assert isinstance(run_slice(context, deletion_id, owner="w"), Finished)

    assert len(sent) <= 18, "\n".join(one.text for one in sent)


def test_what_takes_time_gets_a_task_of_its_own_name(
    session, context, delete, drive, clock, publisher, monkeypatch
):
    fill_with_what_runs_no_more(session, context)
    slow_down(monkeypatch, clock, *(kind.name for kind in ORDER))

    drive(delete("ml-team"))

    expected = [f"workspace.cleanup.{kind.name}" for kind in ORDER]
    assert tasks(publisher) == [*expected, "workspace.cleanup.finalize"]


def test_a_slice_that_came_to_several_kinds_says_each_and_hands_over_the_last(
    session, context, delete, clock, publisher, settings, monkeypatch
):
    workspace = factories.make_workspace(session)
    for number in range(3):
        factories.make_fileset(session, workspace, f"fs-{number}")
        factories.make_entity(session, workspace, f"entity-{number}")
    session.commit()
    slow_down(monkeypatch, clock, "entities")
    one_by_one = replace(context, settings=settings.model_copy(update={"chunk_size": 1}))

    outcome = run_slice(one_by_one, delete("ml-team"), owner="w")

    assert outcome == Advanced("ml-team filesets: 3 deleted, 0 left; entities: 1 deleted, 2 left")
    assert tasks(publisher) == ["workspace.cleanup.filesets", "workspace.cleanup.entities"]


def test_a_kind_that_comes_to_nothing_in_what_is_left_of_a_second_has_failed_nothing(
    session, context, delete, clock, faulty
):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.COMPLETED)
    for name in ("first", "second"):
        factories.make_fileset(session, workspace, name)
    session.commit()

    def be_slow_and_fail(*_, **__):
        clock.passed_s += 2
        raise TimeoutError("slow")

    faulty.purge_fileset = be_slow_and_fail
    deletion_id = delete("ml-team")

    outcome = run_slice(context, deletion_id, owner="w")

    assert isinstance(outcome, Advanced), outcome
    assert outcome.summary.startswith("ml-team jobs: 1 deleted, 0 left; filesets: 0 deleted")
    assert the(session, deletion_id).attempts == 0


def test_a_slice_that_meets_a_failure_says_what_it_did_before(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.COMPLETED)
    bad = factories.make_fileset(session, workspace, "bad")
    session.commit()
    faulty.faults[bad.id] = PermissionError("no")
    deletion_id = delete("ml-team")

    outcome = run_slice(context, deletion_id, owner="w")

    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("filesets/bad: PermissionError: no")
    assert outcome.before == "jobs: 1 deleted, 0 left"


def test_filesets_wait_until_the_last_job_has_ended(session, context, delete, clock):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.ACTIVE, host="somewhere")
    factories.make_fileset(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")

    first = run_slice(context, deletion_id, owner="w")
    clock.pass_(60)
    second = run_slice(context, deletion_id, owner="w")

    assert isinstance(first, Postponed)
    assert isinstance(second, Postponed)
    assert factories.rows_of(session, workspace.id) == {"jobs": 1, "filesets": 1}
    assert the(session, deletion_id).attempts == 0, "waiting costs no attempt"


def test_waiting_polls_more_and_more_slowly(session, context, delete, clock):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, status=JobStatus.ACTIVE, host="somewhere")
    session.commit()
    deletion_id = delete("ml-team")

    waits = []
    for _ in range(5):
        outcome = run_slice(context, deletion_id, owner="w")
        assert isinstance(outcome, Postponed)
        waits.append(outcome.retry_in_s)
        clock.pass_(outcome.retry_in_s)

    assert waits == [2, 4, 8, 15, 15]


@pytest.fixture
def impatient(context):
    """A worker that waits two minutes for what is to stop, and not fifteen."""
    return replace(context, settings=context.settings.model_copy(update={"waiting_limit_seconds": 120}))


def test_what_never_stops_becomes_an_error_after_the_waiting_limit(session, delete, drive, impatient):
    workspace = factories.make_workspace(session)
    factories.make_job(session, workspace, "stubborn", status=JobStatus.ACTIVE, host="somewhere")
    session.commit()

    last = drive(delete("ml-team"), context=impatient)[-1]

    assert isinstance(last, Failed)
    assert "jobs/stubborn" in last.reason
    assert "more than 120 s" in last.reason


def test_a_deployment_whose_host_never_answers_fails_with_that_reason_and_can_be_skipped(
    session, delete, drive, client, impatient
):
    workspace = factories.make_workspace(session)
    deployment = factories.make_deployment(session, workspace, status=DeploymentStatus.READY)
    deployment.host, deployment.lease_owner = "gpu-1", "7@boot:1"
    workspace_id, deployment_id = workspace.id, deployment.id
    session.commit()
    deletion_id = delete("ml-team")

    failed = drive(deletion_id, context=impatient)[-1]

    assert isinstance(failed, Failed)
    assert "deployments/chat: DELETING" in failed.reason
    assert (
        "waiting for host 'gpu-1' to confirm that nothing of it runs; no answer for more than 120 s"
        in failed.reason
    )
    assert session.get(Deployment, deployment_id) is not None
    response = client.post(
        f"/apis/entities/v2/deletions/{deletion_id}/skip",
        json={"kind": "deployments", "resource_id": str(deployment_id), "reason": "that machine burned down"},
        headers={"X-NMP-Principal-Id": "root@example.com"},
    )
    assert response.status_code == 200
    assert isinstance(drive(deletion_id)[-1], Finished)
    [failure] = session.scalars(select(DeletionFailure))
    assert (failure.kind, failure.skipped_by) == ("deployments", "root@example.com")
    assert the(session, deletion_id).deleted_counts == {}
    assert not exists(session, workspace_id)


def test_one_bad_fileset_keeps_nothing_else_of_its_kind(session, context, delete, drive, faulty):
    workspace = factories.make_workspace(session)
    filesets = [factories.make_fileset(session, workspace, f"fs-{i:02}") for i in range(12)]
    factories.make_project(session, workspace)
    session.commit()
    faulty.faults[filesets[3].id] = OSError("503 Service Unavailable")
    deletion_id = delete("ml-team")

    last = drive(deletion_id)[-1]

    assert isinstance(last, Failed)
    assert factories.rows_of(session, workspace.id) == {"filesets": 1, "projects": 1}
    deletion = the(session, deletion_id)
    assert deletion.state is DeletionState.FAILED
    assert deletion.attempts == 8
    assert "filesets/fs-03: OSError: 503 Service Unavailable (transient)" in (deletion.reason or "")
    assert deletion.next_reattempt_at is not None
    assert deletion.lease_owner is None
    assert session.get_one(Workspace, workspace.id).state is WorkspaceState.FAILED
    [failure] = session.scalars(select(DeletionFailure))
    assert (failure.kind, failure.name, failure.error_class) == ("filesets", "fs-03", FailureClass.TRANSIENT)
    assert failure.attempts >= 8


def test_only_permanent_failures_left_fail_at_once_and_wait_for_a_person(
    session, context, delete, drive, faulty
):
    workspace = factories.make_workspace(session)
    bad, _good = [factories.make_fileset(session, workspace, f"fs-{i}") for i in range(2)]
    session.commit()
    faulty.faults[bad.id] = PermissionError("access denied")
    deletion_id = delete("ml-team")

    outcomes = drive(deletion_id)

    assert isinstance(outcomes[-1], Failed)
    assert not any(isinstance(outcome, Postponed) for outcome in outcomes), "there is nothing to wait for"
    assert the(session, deletion_id).next_reattempt_at is None
    assert factories.rows_of(session, workspace.id) == {"filesets": 1}


def test_five_transient_failures_in_a_row_end_the_pass(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    filesets = [factories.make_fileset(session, workspace, f"fs-{i:02}") for i in range(20)]
    session.commit()
    faulty.faults = {fileset.id: ConnectionError("refused") for fileset in filesets}
    deletion_id = delete("ml-team")

    outcome = run_slice(context, deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    assert len(faulty.purged) == 5


def test_bad_resources_at_the_front_do_not_hide_the_good_ones_behind(session, context, delete, drive, faulty):
    workspace = factories.make_workspace(session)
    filesets = [factories.make_fileset(session, workspace, f"fs-{i:02}") for i in range(20)]
    session.commit()
    faulty.faults = {fileset.id: ConnectionError("refused") for fileset in filesets[:12]}

    last = drive(delete("ml-team"))[-1]

    assert isinstance(last, Failed)
    assert factories.rows_of(session, workspace.id) == {"filesets": 12}


def test_progress_resets_the_budget_of_attempts(session, context, delete, drive, faulty):
    workspace = factories.make_workspace(session)
    bad = factories.make_fileset(session, workspace, "bad")
    session.commit()
    faulty.faults[bad.id] = TimeoutError("slow")
    deletion_id = delete("ml-team")
    assert isinstance(drive(deletion_id)[-1], Failed)
    faulty.faults.clear()
    session.execute(update(Deletion).values(state=DeletionState.DELETING, attempts=7, reason=None))
    session.execute(
        update(Workspace).where(Workspace.id == workspace.id).values(state=WorkspaceState.DELETING)
    )
    session.commit()

    last = drive(deletion_id)[-1]

    assert isinstance(last, Finished)
    assert session.scalar(select(DeletionFailure.name)) is None, "what went has no failure any more"


def test_back_off_is_drawn_from_below_a_ceiling_that_doubles(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    bad = factories.make_fileset(session, workspace, "bad")
    session.commit()
    faulty.faults[bad.id] = TimeoutError("slow")
    deletion_id = delete("ml-team")

    for attempt in range(1, 8):
        outcome = run_slice(context, deletion_id, owner="w")
        assert isinstance(outcome, Postponed)
        assert outcome.attempt == attempt
        assert 0 <= outcome.retry_in_s <= min(120, 2 * 2**attempt)
        clock.pass_(outcome.retry_in_s + 0.001)


def test_a_slice_yields_when_its_time_is_over(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    for i in range(5):
        factories.make_fileset(session, workspace, f"fs-{i}")
    session.commit()
    faulty.real, real = _Slow(faulty.real, clock, seconds=8), faulty.real
    deletion_id = delete("ml-team")

    outcome = run_slice(context, deletion_id, owner="w")

    assert outcome == Advanced("ml-team filesets: 3 deleted, 2 left")
    assert the(session, deletion_id).lease_owner is None
    faulty.real = real


class _Slow:
    def __init__(self, real, clock, *, seconds):
        self.real, self.clock, self.seconds = real, clock, seconds

    def purge_fileset(self, workspace_id, fileset_id, *, within_s):
        self.clock.pass_(self.seconds)
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_rows_go_in_chunks_children_before_their_parents(session, context, delete, drive, settings):
    workspace = factories.make_workspace(session)
    parent = None
    for i in range(30):
        parent = factories.make_entity(session, workspace, f"deep-{i}", parent=parent)
    session.commit()
    small = replace(context, settings=settings.model_copy(update={"chunk_size": 7}))

    outcomes = drive(delete("ml-team"), context=small)

    assert outcomes == [Finished("ml-team is gone: entities 30")]


def test_a_table_nobody_knows_of_keeps_the_workspace_and_is_named(session, context, delete, drive, engine):
    workspace = factories.make_workspace(session)
    session.commit()
    workspace_id = workspace.id
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE forgotten (workspace_id uuid CONSTRAINT fk_forgotten "
                "REFERENCES workspaces (id) ON DELETE RESTRICT)"
            )
        )
        connection.execute(text("INSERT INTO forgotten VALUES (:id)"), {"id": workspace_id})
    session.rollback()
    try:
        last = drive(delete("ml-team"))[-1]

        assert isinstance(last, Failed)
        assert "fk_forgotten" in last.reason
        assert "DELETE FROM" not in last.reason, "no statement reaches the operator"
        assert exists(session, workspace_id)
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE forgotten"))


def test_a_skipped_resource_is_left_behind_and_the_rest_finishes(
    session, context, delete, drive, faulty, client
):
    workspace = factories.make_workspace(session)
    bad = factories.make_fileset(session, workspace, "bad", store=faulty.real, files={"x": b"kept"})
    workspace_id, bad_id = workspace.id, bad.id
    factories.make_project(session, workspace)
    session.commit()
    faulty.faults[bad.id] = PermissionError("access denied")
    deletion_id = delete("ml-team")
    drive(deletion_id)

    response = client.post(
        f"/apis/entities/v2/deletions/{deletion_id}/skip",
        json={"kind": "filesets", "resource_id": str(bad.id), "reason": "ticket 7"},
        headers={"X-NMP-Principal-Id": "root@example.com"},
    )
    assert response.status_code == 200
    last = drive(deletion_id)[-1]

    assert isinstance(last, Finished)
    deletion = the(session, deletion_id)
    assert deletion.deleted_counts == {"projects": 1}
    assert deletion.created_counts == {"filesets": 1, "projects": 1}
    [failure] = session.scalars(select(DeletionFailure))
    assert (failure.skipped_by, failure.skip_reason) == ("root@example.com", "ticket 7")
    assert faulty.real.files(workspace_id, bad_id), "retained means that nobody touched it"
    assert not exists(session, workspace_id)


def test_a_hanging_resource_costs_its_time_limit_and_no_more(
    session, context, delete, drive, faulty, settings
):
    workspace = factories.make_workspace(session)
    stuck = factories.make_fileset(session, workspace, "stuck")
    factories.make_fileset(session, workspace, "free")
    session.commit()
    impatient = type(context)(
        settings=settings.model_copy(update={"item_timeout_seconds": 1, "max_attempts": 2}),
        sessions=context.sessions,
        store=_Hanging(faulty.real, stuck.id),
        publisher=context.publisher,
    )

    last = drive(delete("ml-team"), context=impatient)[-1]

    assert isinstance(last, Failed)
    assert "TimeoutError: no answer yet to the last attempt" in last.reason
    assert factories.rows_of(session, workspace.id) == {"filesets": 1}
    impatient.store.released.set()


class _Hanging:
    def __init__(self, real, stuck):
        from threading import Event

        self.real, self.stuck, self.released = real, stuck, Event()

    def purge_fileset(self, workspace_id, fileset_id, *, within_s):
        if fileset_id == self.stuck:
            self.released.wait(30)
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_a_fileset_that_takes_many_attempts_is_progress_and_no_failure(
    session, context, delete, clock, settings
):
    workspace = factories.make_workspace(session)
    bulky, small = (factories.make_fileset(session, workspace, name) for name in ("bulky", "small"))
    session.commit()
    for number in range(20):
        put(context.store, bulky, f"{number}/a")
    put(context.store, small, "a")
    strict = type(context)(
        settings=settings.model_copy(update={"max_attempts": 1, "slice_seconds": 3, "filesets_at_once": 1}),
        sessions=context.sessions,
        store=_Slow(HastyStore(context.store), clock, seconds=1),
        publisher=context.publisher,
    )
    deletion_id = delete("ml-team")

    first = run_slice(strict, deletion_id, owner="w")
    assert first == Advanced("ml-team filesets: 0 deleted, 2 left (1 files of bulky went)")
    assert the(session, deletion_id).has_progressed
    outcomes = [first]
    while not isinstance(outcomes[-1], Finished):
        outcomes.append(run_slice(strict, deletion_id, owner="w"))

    assert {type(outcome) for outcome in outcomes} == {Advanced, Finished}
    assert context.store.workspace_ids() == set()
    assert the(session, deletion_id).deleted_counts == {"filesets": 2}
    assert session.scalar(select(DeletionFailure.name)) is None


def put(store, fileset, path):
    store.publish(store.stage(fileset.workspace_id, fileset.id, path, [b"x"]))


def test_a_message_for_a_finished_deletion_does_nothing(session, context, delete, drive, clock):
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    drive(deletion_id)

    assert run_slice(context, deletion_id, owner="late") == Idle("it is DONE")


def test_two_messages_for_one_deletion_work_on_it_once(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    factories.make_fileset(session, workspace)
    session.commit()
    deletion_id = delete("ml-team")
    second = []
    faulty.real = _During(faulty.real, lambda: second.append(run_slice(context, deletion_id, owner="second")))

    first = run_slice(context, deletion_id, owner="first")

    assert first == Finished("ml-team is gone: filesets 1")
    assert second == [Idle("first works on it")]


class _During:
    def __init__(self, real, action):
        self.real, self.action = real, action

    def purge_fileset(self, workspace_id, fileset_id, *, within_s):
        self.action()
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_a_worker_paused_past_its_lease_cannot_write(session, context, delete, clock, faulty):
    workspace = factories.make_workspace(session)
    factories.make_fileset(session, workspace, "fs-0")
    factories.make_fileset(session, workspace, "fs-1")
    session.commit()
    deletion_id = delete("ml-team")
    takeover = []

    def sleep_past_the_lease():
        if not takeover:
            takeover.append("started")
            clock.pass_(context.settings.lease_seconds + 1)
            takeover.append(run_slice(context, deletion_id, owner="second"))

    faulty.real = _During(faulty.real, sleep_past_the_lease)

    first = run_slice(context, deletion_id, owner="first")

    assert isinstance(first, Idle)
    assert "outdated" in first.why
    assert the(session, deletion_id).fence == 2
    assert the(session, deletion_id).deleted_counts.get("filesets", 0) <= 2


@pytest.mark.parametrize("kills", [1, 9])
def test_a_resource_that_kills_its_worker_is_passed_over_and_named(
    session, context, delete, clock, faulty, kills
):
    workspace = factories.make_workspace(session)
    deadly = factories.make_fileset(session, workspace, "deadly")
    factories.make_fileset(session, workspace, "harmless")
    session.commit()
    deletion_id = delete("ml-team")
    deaths = 0

    def die(fileset_id):
        nonlocal deaths
        if fileset_id == deadly.id and deaths < kills:
            deaths += 1
            raise _KilledError

    faulty.real = _Deadly(faulty.real, die)

    outcome = None
    for _ in range(60):
        try:
            outcome = run_slice(context, deletion_id, owner="w")
        except _KilledError:
            outcome = None
        if isinstance(outcome, Finished | Failed):
            break
        clock.pass_(61 if outcome is None else getattr(outcome, "retry_in_s", 0) + 0.001)

    if kills == 1:
        assert isinstance(outcome, Finished)
    else:
        assert isinstance(outcome, Failed)
        assert "filesets/deadly" in outcome.reason
        assert factories.rows_of(session, workspace.id) == {"filesets": 1}
    assert session.scalar(select(DeletionEvent.event).where(DeletionEvent.event == "worker_lost").limit(1))


class _KilledError(BaseException):
    """As sudden as SIGKILL: no handler of ours sees it."""


class _Deadly:
    def __init__(self, real, die):
        self.real, self.die = real, die

    def purge_fileset(self, workspace_id, fileset_id, *, within_s):
        self.die(fileset_id)
        return self.real.purge_fileset(workspace_id, fileset_id, within_s=within_s)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_nothing_is_destroyed_during_the_grace_period(session, context, delete, clock, settings):
    workspace = factories.make_workspace(session)
    factories.make_project(session, workspace)
    session.commit()
    object.__setattr__(context, "settings", settings.model_copy(update={"deletion_grace": 3600}))
    deletion_id = delete("ml-team")

    early = run_slice(context, deletion_id, owner="w")
    clock.pass_(3601)
    late = run_slice(context, deletion_id, owner="w")

    assert isinstance(early, Idle)
    assert early.why.startswith("not due for")
    assert late == Finished("ml-team is gone: projects 1")


def test_what_has_gone_is_no_longer_reported_beside_what_has_not(
    session, context, delete, drive, faulty, client
):
    workspace = factories.make_workspace(session)
    bad, worse = [factories.make_fileset(session, workspace, name) for name in ("bad", "worse")]
    session.commit()
    faulty.faults = {bad.id: PermissionError("no"), worse.id: PermissionError("no")}
    deletion_id = delete("ml-team")
    drive(deletion_id)
    del faulty.faults[bad.id]

    client.post(f"/apis/entities/v2/deletions/{deletion_id}/retry")
    drive(deletion_id)

    assert session.scalars(select(DeletionFailure.name)).all() == ["worse"]


def test_a_pass_in_which_something_went_is_not_counted_although_the_rest_is_down(
    session, context, delete, clock, faulty
):
    workspace = factories.make_workspace(session)
    filesets = [factories.make_fileset(session, workspace, f"fs-{i}") for i in range(6)]
    session.commit()
    faulty.faults = {fileset.id: ConnectionError("refused") for fileset in filesets[1:]}
    deletion_id = delete("ml-team")

    outcome = run_slice(context, deletion_id, owner="w")

    assert isinstance(outcome, Postponed)
    assert the(session, deletion_id).attempts == 0


def test_a_child_that_is_older_than_its_parent_goes_before_it_all_the_same(
    session, context, delete, drive, settings
):
    """Two API processes with clocks apart can make such a pair."""
    workspace = factories.make_workspace(session)
    child, parent = [factories.make_entity(session, workspace, name) for name in ("child", "parent")]
    child.parent_id = parent.id
    session.commit()
    object.__setattr__(context, "settings", settings.model_copy(update={"chunk_size": 2}))
    factories.make_entity(session, workspace, "youngest")
    session.commit()

    assert child.id < parent.id
    assert isinstance(drive(delete("ml-team"))[-1], Finished)
