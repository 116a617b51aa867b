"""The numbers of failures by cause that the database keeps are those that a count would find."""

import json
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from app.cleanup import failures
from app.cleanup.report import FailureReport, report
from app.context import Context
from app.http.transfers.row_stream import RowStream, each
from app.lifecycle import FailureClass
from app.models import Deletion, DeletionFailure, DeletionFailureCount
from tests import factories
from tests.support.aging import time_of
from tests.support.statements import compact, counted

KINDS = ("filesets", "jobs")
RESOURCES = [UUID(int=number) for number in range(1, 5)]
Key = tuple[UUID, str, str, bool, str]


def kept(session: Session) -> Counter[Key]:
    count = DeletionFailureCount
    rows = session.execute(
        select(count.deletion_id, count.kind, count.error_class, count.is_skipped, count.cause, count.number)
    )
    return Counter({tuple(key): number for *key, number in rows})


def there(session: Session) -> Counter[Key]:
    cause = func.coalesce(DeletionFailure.cause, DeletionFailure.message)
    rows = session.execute(
        select(
            DeletionFailure.deletion_id,
            DeletionFailure.kind,
            DeletionFailure.error_class,
            DeletionFailure.skipped_by.is_not(None),
            cause,
        )
    )
    return Counter((one, kind, error_class.value, *rest) for one, kind, error_class, *rest in rows)


def fail(session: Session, deletion_id: UUID, kind: str, resource: UUID | None, message: str) -> None:
    failures.upsert(
        session,
        deletion_id,
        kind,
        resource_id=resource,
        name="some",
        error_class=FailureClass.PERMANENT if "denied" in message else FailureClass.TRANSIENT,
        message=message,
    )


def a_deletion(session: Session) -> UUID:
    deletion = Deletion(workspace_id=uuid4(), workspace_name="ml-team")
    session.add(deletion)
    session.flush()
    return deletion.id


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            ["fail", "fail", "fail", "forget", "forget kind", "unseen", "all", "skip", "skip some"]
        ),
        st.sampled_from(KINDS),
        st.sampled_from([*RESOURCES, None]),
        st.sampled_from(["503", "denied", f"denied '{uuid4()}/a'", "x" * 5000]),
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(changes=CHANGES)
def test_they_agree_after_any_changes(
    engine: Engine, changes: list[tuple[str, str, UUID | None, str]]
) -> None:
    with Session(engine) as session:
        deletions = [a_deletion(session), a_deletion(session)]
        for number, (what, kind, resource, message) in enumerate(changes):
            one = deletions[number % 2]
            match what:
                case "fail":
                    fail(session, one, kind, resource, message)
                case "forget":
                    failures.forget(session, one, kind, resource)
                case "forget kind":
                    failures.forget_kind(session, one, kind)
                case "unseen":
                    failures.forget_unseen(session, one, kind, since=time_of(session))
                case "all":
                    failures.forget_all(session, one)
                case "skip":
                    failures.skip(session, one, kind, str(resource), actor="ann", reason="lost")
                case "skip some":
                    failures.skip_chunk(session, one, actor="ann", reason="lost", limit=2)

        assert kept(session) == there(session)
        for one in deletions:
            number = select(func.count()).where(DeletionFailure.deletion_id == one)
            assert session.scalar(failures.kept_total(one)) == session.scalar(number)


MANY = 3000


def failing(session: Session, deletion_id: UUID, number: int) -> None:
    session.execute(
        text(
            "INSERT INTO deletion_failures (deletion_id, kind, resource_id, name, error_class, message, cause, "
            "attempts, first_seen_at, last_seen_at) SELECT :deletion, 'filesets', id, 'f', 'permanent', 'denied', "
            "'denied', 1, now(), now() FROM generate_series(1, :number) AS id"
        ),
        {"deletion": deletion_id, "number": number},
    )


def read_so_far(session: Session) -> int:
    read = text(
        "SELECT sum(pg_stat_get_xact_tuples_returned(one)) FROM (SELECT 'deletion_failures'::regclass::oid AS one "
        "UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'deletion_failures'::regclass) AS every"
    )
    return int(session.scalar(read) or 0)


def test_a_report_reads_as_many_failures_as_it_shows(
    database: Engine, session: Session, delete: Callable[[str], UUID]
) -> None:
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    failing(session, deletion_id, MANY)
    session.commit()
    compact(database, "deletion_failures")
    deletion = session.get_one(Deletion, deletion_id)
    before = read_so_far(session)

    [shown] = report(session, [deletion])

    assert [(one.message, one.count) for one in shown.causes] == [("denied", MANY)]
    assert read_so_far(session) - before <= 3 * len(shown.failures)


def test_a_page_of_failures_reads_those_of_the_page(
    database: Engine, session: Session, delete: Callable[[str], UUID]
) -> None:
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    failing(session, deletion_id, MANY)
    session.commit()
    compact(database, "deletion_failures")
    order = (DeletionFailure.kind.asc(), DeletionFailure.resource_id.asc())
    every = select(DeletionFailure).where(DeletionFailure.deletion_id == deletion_id)
    rows = RowStream(every, order, each(lambda failure: FailureReport.of(failure, "ml-team")))
    before = read_so_far(session)

    shown = rows.first(session, {}, limit=20).texts

    first = session.scalars(every.order_by(*order).limit(20)).all()
    assert [json.loads(one)["resource_id"] for one in shown] == [one.resource_id for one in first]
    assert read_so_far(session) - before <= 5 * 20


def test_pages_of_failures_have_their_number_from_where_it_is_kept(
    session: Session, client: FlaskClient, context: Context, delete: Callable[[str], UUID]
) -> None:
    factories.make_workspace(session)
    session.commit()
    deletion_id = delete("ml-team")
    failing(session, deletion_id, 30)
    fail(session, deletion_id, "jobs", None, "503")
    session.commit()
    pages = f"/apis/entities/v2/deletions/{deletion_id}/failures?page_size=10"

    with counted(context.sessions.kw["bind"]) as sent:
        totals = [
            client.get(f"{pages}{chosen}").json["pagination"]["total_results"]
            for chosen in (
                "",
                "&kind=filesets",
                "&error_class=permanent",
                "&kind=filesets&error_class=permanent",
            )
        ]

    assert totals == [31, 30, 30, 30]
    assert [one.text for one in sent if "count(" in one.text] == []
