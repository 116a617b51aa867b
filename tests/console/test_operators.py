"""The pages of those who keep it running: overview, hosts, and the audit log."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.cleanup import control
from app.context import Context
from app.health.heartbeat import Process, note_alive
from app.lifecycle import DeletionState, JobStatus
from app.models import AuditRecord, CleanupControl, Deletion, DeletionHold, Heartbeat, Job
from tests import factories
from tests.console.test_deletion import deletion_of
from tests.support.aging import age_everything, time_of
from tests.support.browser import Browser
from tests.support.statements import counted


def test_the_overview_says_what_is_under_way_and_since_when(session: Session, operator: Browser) -> None:
    factories.make_failed_deletion(session, "stuck")
    deletion_of(session, "waiting", purge_after=time_of(session) - timedelta(hours=2))
    note_alive(session, Process.CLEANUP, ["host-1"])
    session.commit()

    text = operator.open("/console").text

    assert '<span class="big">1</span> FAILED' in text
    assert '<span class="big">1</span> waiting' in text
    assert "may do so since" in text
    assert "2 h" in text
    assert "host-1" in text


def test_a_heartbeat_that_comes_while_the_page_is_made_is_not_one_of_the_future(
    session: Session, operator: Browser
) -> None:
    note_alive(session, Process.CLEANUP, ["host-1"])
    session.execute(update(Heartbeat).values(heartbeat_at=time_of(session) + timedelta(seconds=5)))
    session.commit()

    text = operator.open("/console").text

    assert "0 s ago" in text.partition("host-1")[2].partition("</tr>")[0]


def test_the_day_is_counted_by_the_hour(session: Session, operator: Browser) -> None:
    now = time_of(session)
    for hours in (0, 0, 5, 30):
        workspace = factories.make_workspace(session, f"w-{hours}", state="DELETING")
        session.add(
            Deletion(
                workspace_id=workspace.id,
                workspace_name="w",
                requested_by="ann",
                state=DeletionState.DONE,
                finished_at=now - timedelta(hours=hours),
            )
        )
        session.flush()
        session.delete(workspace)
    session.commit()

    assert "Deletions that ended in the last 24 hours: 3" in operator.open("/console/day").text
    assert 'hx-get="/console/day"' in operator.open("/console").text


def test_destruction_is_paused_and_resumed_by_name(session: Session, operator: Browser) -> None:
    operator.open("/console")
    operator.send(operator.form("/pause"))
    assert operator.message.startswith("done: Destruction is paused")
    assert "Paused by root" in operator.page.text
    assert session.scalars(select(CleanupControl.paused)).one()

    operator.send(operator.form("/resume"))
    assert operator.message == "done: Destruction goes on."
    session.rollback()
    assert not session.scalars(select(CleanupControl.paused)).one()


def test_what_the_breaker_holds_is_released_by_requester(session: Session, operator: Browser) -> None:
    deletion_of(session, "ml-team")
    session.add(DeletionHold(requested_by="ann", held_at=time_of(session), reason="many"))
    session.commit()
    assert "holds 1 deletion of ann" in operator.open("/console").text

    operator.send(operator.form("/release"))

    assert operator.message == "done: The deletions of ann go on."
    assert control.held(session) == []


def test_what_it_depends_on_is_a_part_of_its_own(session: Session, operator: Browser) -> None:
    assert 'hx-get="/console/health" hx-trigger="load"' in operator.open("/console").text

    text = operator.open("/console/health", **{"HX-Request": "true"}).text

    assert "<strong>beat</strong> is silent" in text
    assert "Everything that it needs is ready" not in text


def test_what_does_not_do_well_in_the_background_is_said_in_words(
    session: Session, operator: Browser
) -> None:
    factories.make_failed_deletion(session, "stuck")
    session.commit()

    text = operator.open("/console/health", **{"HX-Request": "true"}).text

    assert "deletions: some are FAILED" in text
    assert "sweep: none has succeeded lately" in text
    assert "sweep: enqueue_deletions was not done lately" in text
    assert "workspace cleanup" not in text
    assert "breaker:" not in text


def test_an_overview_costs_as_many_statements_whatever_there_is(
    session: Session, console: Context, operator: Browser
) -> None:
    engine = console.sessions.kw["bind"]
    with counted(engine) as none:
        operator.open("/console")
    for number in range(20):
        factories.make_failed_deletion(session, f"stuck-{number}")
    session.commit()

    with counted(engine) as many:
        operator.open("/console")

    assert len(many) == len(none) <= 12


def test_a_host_that_is_gone_is_purged_by_its_name(session: Session, operator: Browser) -> None:
    workspace = factories.make_workspace(session)
    job = factories.make_job(session, workspace, "train", JobStatus.ACTIVE, host="gpu-1")
    note_alive(session, Process.RUNTIME, ["gpu-1", "gpu-2"])
    session.commit()
    text = operator.open("/console/hosts").text
    assert "gpu-1" in text
    assert "/purge" not in text, "it is alive"
    age_everything(session, 7200)
    session.commit()
    assert "Its 1 jobs end as error" in operator.open("/console/hosts").text

    operator.send(operator.form("/gpu-1/purge"), confirm="gpu-2")
    assert operator.message.startswith("refused: Nothing was purged")
    operator.send(operator.form("/gpu-1/purge"), confirm="gpu-1")

    assert operator.message == "done: gpu-1 is given up: 1 jobs and 0 deployments were on it."
    session.expire_all()
    assert session.get_one(Job, job.id).status is JobStatus.ERROR


def recorded(session: Session, number: int) -> None:
    now = time_of(session)
    session.add_all(
        AuditRecord(
            at=now - timedelta(minutes=one),
            event="workspace.created" if one % 2 else "deletion.requested",
            actor=f"user-{one % 3}",
            workspace_name=f"team-{one}",
            detail={"reason": "=HYPERLINK(1)"} if one == 0 else {},
        )
        for one in range(number)
    )
    session.commit()


def test_records_are_searched_and_paged(session: Session, operator: Browser) -> None:
    recorded(session, 250)

    assert operator.open("/console/audit").text.count('<td data-label="Time">') == 100
    seen, address = 0, "/console/audit?event=workspace.created&actor=user-1"
    while address:
        text = operator.open(address).text
        seen += text.count('<th scope="row">workspace.created')
        assert "deletion.requested</th>" not in text
        found = text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        address = f"/console/audit{found}" if found else ""

    assert seen == len([one for one in range(250) if one % 2 and one % 3 == 1])
    assert "team-7<" in operator.open("/console/audit?workspace=team-7").text
    early = (time_of(session) - timedelta(minutes=200)).strftime("%Y-%m-%dT%H:%M")
    assert operator.open(f"/console/audit?until={early}").text.count('<td data-label="Time">') == 49, (
        "of the 50 one is of that very minute"
    )


def test_a_time_of_any_zone_is_asked_for_and_shown_in_utc(session: Session, operator: Browser) -> None:
    session.add(
        AuditRecord(event="workspace.created", actor="ann", at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
    )
    session.commit()

    for since, number in (("2026-03-01T07:00:00-05:00", 1), ("2026-03-01T14:00%2B01:00", 0)):
        text = operator.open(f"/console/audit?since={since}&until=2026-03-02T00:00").text
        assert text.count('<td data-label="Time">') == number
        assert f'name="since" value="2026-03-01T1{3 - number}:00"' in text
    for since in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00%2B14:00", "1e9", "yesterday"):
        answer = operator.open(f"/console/audit?since={since}")
        assert (answer.status_code, "given as 2026-03-01T12:00" in answer.text) == (422, True)


def test_records_are_taken_along(session: Session, operator: Browser) -> None:
    recorded(session, 30)

    lines = [json.loads(one) for one in operator.open("/console/audit/export?format=json").text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(operator.open("/console/audit/export?format=csv").text)))

    assert len(lines) == len(rows) == 30
    assert [one["workspace_name"] for one in lines] == [one["workspace_name"] for one in rows]
    assert lines[0]["detail"] == {"reason": "=HYPERLINK(1)"}
    assert "attachment" in operator.page.headers["Content-Disposition"]


def test_no_cell_is_a_formula(session: Session, operator: Browser) -> None:
    session.add(AuditRecord(event="workspace.created", actor="=cmd|' /C calc'!A0", workspace_name="-1"))
    session.commit()

    [row] = csv.DictReader(io.StringIO(operator.open("/console/audit/export").text))

    assert row["actor"].startswith("'=")
    assert row["workspace_name"] == "'-1"
