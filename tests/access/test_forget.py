"""Forgetting a principal: no name of it is left, the chain of events is, and nobody else is touched."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.access import forget
from app.cli.principal import principal
from app.clock import database_now
from app.context import Context
from app.db import Base, transact
from app.lifecycle import DeletionState
from app.models import (
    AccessKey,
    AuditRecord,
    Deletion,
    DeletionEvent,
    DeletionHold,
    Job,
    PrincipalErasure,
    RoleBinding,
)
from tests.factories import (
    make_access_key,
    make_binding,
    make_entity,
    make_failed_deletion,
    make_job,
    make_subscription,
    make_workspace,
)
from tests.support.statements import nodes, noted

BOB, EMAIL = "bob-4711", "Bob@Example.com"


@pytest.fixture
def traces(session: Session) -> None:
    """Bob has left traces wherever there are some, and so have people with similar names."""
    workspace = make_workspace(session, "ml-team", created_by=BOB, updated_by=EMAIL)
    for who in (BOB, "bob-47110"):
        make_entity(session, workspace, f"of-{who}").created_by = who
    for name in (BOB, EMAIL, "bob@example.com"):
        binding = make_binding(session, workspace, name)
        binding.revoked_at, binding.granted_by = database_now(), name
    make_binding(session, workspace, "ann@example.com").granted_by = BOB
    make_access_key(session, "ak_1", BOB, email=EMAIL, revoked_at=database_now())
    make_access_key(session, "ak_2", "bob", email="bob@example.org")
    access = {"identities": [BOB, EMAIL.lower(), "*"], "email": EMAIL.lower()}
    steps = [{"name": "main", "created_by": BOB, "tasks": [{"updated_by": BOB, "note": f'"{BOB}"'}]}]
    make_job(session, workspace, secret_access=access, steps=steps, custom_fields={"of": BOB})
    deletion = make_failed_deletion(session, "gone")
    deletion.state, deletion.requested_by, deletion.force = DeletionState.DONE, BOB, {"by": BOB}
    session.add(DeletionEvent(deletion_id=deletion.id, actor=BOB, event="forced", detail={BOB: BOB}))
    session.add(DeletionHold(requested_by=BOB, held_at=database_now(), reason="many"))
    session.add(
        AuditRecord(event="member.granted", actor=BOB, email=EMAIL, subject="ann", address="192.0.2.7")
    )
    session.add(AuditRecord(event="member.revoked", actor="ann", subject=EMAIL, address="192.0.2.8"))
    session.add(AuditRecord(event="access_key.revoked", actor="ann", detail={"principal": BOB}))
    session.commit()


def run(context: Context, name: str = BOB) -> Result:
    return CliRunner().invoke(principal, ["forget", name, "--yes"], obj=context)


def rows_with(connection: Connection, name: str) -> dict[str, int]:
    """In how many rows of each table the name is, as a whole value anywhere."""
    found = {}
    for table in Base.metadata.sorted_tables:
        query = text(f"SELECT count(*) FROM {table.name} AS t WHERE lower(row_to_json(t)::text) LIKE :name")
        found[table.name] = connection.execute(query, {"name": f'%"{name.lower()}"%'}).scalar_one()
    return {table: number for table, number in found.items() if number}


@pytest.mark.usefixtures("traces")
@pytest.mark.parametrize("name", [BOB, EMAIL, EMAIL.lower(), EMAIL.upper()])
def test_no_name_of_it_is_left_and_one_pseudonym_stands_everywhere(
    session: Session, context: Context, engine: Engine, name: str
) -> None:
    done = run(context, name)

    assert done.exit_code == 0, done.output
    session.rollback()
    pseudonym = session.scalars(select(Deletion.requested_by).where(Deletion.workspace_name == "gone")).one()
    assert pseudonym.startswith("forgotten:")
    assert f"{pseudonym}: " in done.output
    with engine.connect() as connection:
        # What is in documents of users is theirs; a key is no name.
        assert rows_with(connection, BOB) == {"deletion_events": 1, "jobs": 1}
        assert rows_with(connection, EMAIL) == {}
        assert set(rows_with(connection, pseudonym)) == {
            "access_keys",
            "audit_records",
            "deletion_events",
            "deletions",
            "entities",
            "jobs",
            "role_bindings",
            "workspaces",
        }
    assert session.get_one(AccessKey, "ak_2").email == "bob@example.org"
    event = session.scalars(select(DeletionEvent).where(DeletionEvent.event == "forced")).one()
    assert (event.actor, event.detail) == (pseudonym, {BOB: pseudonym})
    job = session.scalars(select(Job)).one()
    assert job.secret_access == {"identities": [pseudonym, pseudonym, "*"], "email": pseudonym}
    assert job.steps[0]["tasks"] == [{"updated_by": pseudonym, "note": f'"{BOB}"'}]
    bindings = session.scalars(select(RoleBinding.principal).where(RoleBinding.revoked_at.is_not(None)))
    assert bindings.all() == [pseudonym]
    assert session.scalars(select(DeletionHold)).all() == []
    lines = session.execute(
        select(AuditRecord.event, AuditRecord.actor, AuditRecord.subject, AuditRecord.address).order_by(
            AuditRecord.id
        )
    )
    assert {tuple(line) for line in lines if line.event.startswith("member")} == {
        ("member.granted", pseudonym, "ann", ""),
        ("member.revoked", "ann", pseudonym, "192.0.2.8"),
    }


@pytest.mark.usefixtures("traces")
def test_what_was_interrupted_goes_on_under_the_same_pseudonym(
    session: Session, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forget, "CHUNK", 1)
    names = forget.names_of(session, BOB)
    erasure = forget.begin_erasure(session, names)
    session.commit()
    left = 12

    def interrupted(work: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return transact(context.sessions, work)

    with pytest.raises(KeyboardInterrupt):
        forget.erase(interrupted, erasure, actor="cli")
    assert run(context).exit_code == 0

    session.rollback()
    forgotten = select(AuditRecord.subject).where(AuditRecord.event == "principal.forgotten")
    assert set(session.scalars(forgotten)) == {erasure.pseudonym}
    assert session.scalars(select(PrincipalErasure)).all() == []
    assert session.scalars(select(Deletion.requested_by)).one() == erasure.pseudonym


def test_all_emails_of_an_id_go_with_it_and_no_other_owner_of_one(session: Session) -> None:
    session.add_all(
        AuditRecord(event="member.granted", actor=actor, email=email)
        for actor, email in (
            (BOB, "Old@example.com"),
            (BOB, "new@example.com"),
            ("successor", "old@example.com"),
        )
    )
    make_access_key(session, "ak_1", "bob-4712", email="NEW@example.com")
    session.commit()

    both = [BOB, "new@example.com", "old@example.com"]
    assert forget.names_of(session, BOB) == both
    assert forget.names_of(session, "New@example.com") == [
        "new@example.com",
        BOB,
        "bob-4712",
        "old@example.com",
    ]
    assert forget.names_of(session, "successor") == ["successor", "old@example.com"]


def test_names_are_found_by_an_index(session: Session, context: Context) -> None:
    session.add_all(
        AuditRecord(event="member.granted", actor=f"a-{n}", email=f"a-{n}@b.c") for n in range(3000)
    )
    session.commit()
    session.execute(text("ANALYZE audit_records"))
    session.commit()

    with noted(context.sessions.kw["bind"]) as sent, Session(context.sessions.kw["bind"]) as asking:
        assert forget.names_of(asking, "a-7@B.c") == ["a-7@b.c", "a-7"]

    about = [(statement, values) for statement, values in sent if "FROM audit_records" in statement]
    assert len(about) == 2
    for statement, values in about:
        plan = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar()
        assert not any(node["Node Type"] == "Seq Scan" for node in nodes(plan[0]["Plan"]))


def test_whoever_is_known_by_an_email_is_somebody_in_any_spelling(session: Session, context: Context) -> None:
    make_access_key(session, "ak_1", EMAIL)
    session.commit()
    assert "the access key ak_1" in run(context, EMAIL.lower()).output
    session.execute(update(AccessKey).values(revoked_at=database_now()))
    make_failed_deletion(session, "gone").requested_by = EMAIL
    session.commit()
    assert "the unfinished deletion" in run(context, EMAIL.lower()).output


@pytest.mark.usefixtures("traces")
def test_nobody_is_forgotten_to_whom_e_mail_is_sent(session: Session, context: Context) -> None:
    subscription = make_subscription(session, f"mailto:{EMAIL}")
    make_subscription(session, "mailto:bob@example.org")
    session.commit()

    refused = run(context)

    assert refused.exit_code == 1
    assert f"because of the subscription {subscription.id}, which sends it e-mail" in refused.output
    assert session.scalars(select(PrincipalErasure)).all() == []
    session.delete(subscription)
    session.commit()
    assert run(context).exit_code == 0


@pytest.mark.usefixtures("traces")
def test_nobody_is_forgotten_who_still_has_something(session: Session, context: Context) -> None:
    for change, undone, reason in (
        (update(RoleBinding).where(RoleBinding.principal == EMAIL).values(revoked_at=None),
         update(RoleBinding).where(RoleBinding.principal == EMAIL).values(revoked_at=database_now()),
         "the role Viewer in the workspace 'ml-team'"),
        (update(AccessKey).where(AccessKey.jti == "ak_1").values(revoked_at=None, suspended_at=database_now()),
         update(AccessKey).where(AccessKey.jti == "ak_1").values(revoked_at=database_now()),
         "the access key ak_1"),
        (update(Deletion).values(state=DeletionState.FAILED),
         update(Deletion).values(state=DeletionState.DONE),
         "the unfinished deletion"),
    ):  # fmt: skip
        session.execute(change)
        session.commit()
        refused = run(context)
        assert refused.exit_code == 1
        assert reason in refused.output
        with pytest.raises(DBAPIError, match="cannot be forgotten"):
            transact(
                context.sessions,
                partial(_at_once, erasure=forget.Erasure("forgotten:x", (BOB, EMAIL.lower()))),
            )
        session.execute(undone)
        session.commit()

    assert session.scalars(select(AuditRecord).where(AuditRecord.event == "principal.forgotten")).all() == []
    assert run(context).exit_code == 0


def _at_once(session: Session, *, erasure: forget.Erasure) -> Any:
    return forget._erase_lines(session, erasure=erasure, actor="cli", after=forget.UUID(int=0))


@pytest.mark.parametrize("name", ["*", "service:jobs", "service-account:ci", "forgotten:1", "", " ", "bob\n"])
def test_what_is_no_name_of_a_person_is_refused(context: Context, name: str) -> None:
    assert "is no name of a person" in run(context, name).output


def test_every_column_that_can_name_a_principal_is_looked_at() -> None:
    """New ones are found by their name; a document in which the product names people belongs into `_DOCUMENTS`."""
    looked_at = {
        f"{column.table.name}.{column.name}"
        for columns in forget._columns_of_people().values()
        for column in columns
    }

    assert looked_at >= forget._DOCUMENTS
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column.name.endswith("_by") and table.name != "audit_records":
                assert f"{table.name}.{column.name}" in looked_at


def test_no_audit_record_is_changed_unseen(session: Session) -> None:
    """Whoever calls the function of its owner, and from wherever in the log."""
    session.add(AuditRecord(event="member.granted", actor="mallory"))
    session.commit()

    session.execute(
        text("SELECT forget_in_audit_log('forgotten:x', :names, 'somebody', :after, 1000)"),
        {"names": ["mallory"], "after": UUID(int=1)},
    )

    lines = select(AuditRecord.actor).where(AuditRecord.event == "principal.forgotten")
    assert session.scalars(lines).all() == ["somebody"]
