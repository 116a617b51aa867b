"""Forgetting a principal: one pseudonym takes the place of its names wherever the product keeps who did something.

Documents and texts of users are theirs: what somebody has written into a description or a reason stays.
"""

import secrets
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    any_,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session, aliased

from app.access.principal import EVERYBODY, FORGOTTEN_PREFIX, MAX_EMAIL_CHARS, folded, is_name, is_reserved
from app.db import Base, Transact
from app.errors import WrongState
from app.models import AccessKey, AuditRecord, DeletionHold, PrincipalErasure, RoleBinding

CHUNK = 1000
"""Rows that one transaction looks at."""

_DOCUMENTS = {"deletions.force", "deletion_events.detail", "jobs.steps", "jobs.secret_access"}
"""Documents of the product, in which it names people."""


@dataclass(frozen=True)
class Erasure:
    """The names that are being forgotten, and what stands in their place."""

    pseudonym: str
    names: tuple[str, ...]

    def of(self, column: Any) -> ColumnElement[Any]:
        """SQL: the value of a column, without the names."""
        names = literal(list(self.names), ARRAY(Text))
        return type_coerce(func.pseudonymised(column, names, literal(self.pseudonym, Text)), column.type)


def names_of(session: Session, name: str) -> list[str]:
    """Under which ids and emails a principal with that id or email is on record, the given one first.

    As an erasure that was interrupted has them; else those ids that the audit log and the access keys have beside the
    name, and all emails beside these ids, in any spelling. It goes no further: an address may have had several owners.
    Raises WrongState for what is no name of a person.
    """
    _require_persons([name])
    begun = session.scalars(_begun(folded(name))).one_or_none()
    if begun:
        return begun.names
    ids = {name} | _found(
        session,
        select(AuditRecord.actor).where(_is_one_of(AuditRecord.email, {name})),
        select(AccessKey.principal).where(_is_one_of(AccessKey.email, {name})),
    )
    emails = _found(
        session,
        select(AuditRecord.email).where(_is_one_of(AuditRecord.actor, ids)),
        select(AccessKey.email).where(_is_one_of(AccessKey.principal, ids)),
    )
    others = {folded(one) for one in ids | emails if _is_person(one)}
    return [folded(name), *sorted(others - {folded(name)})]


def _found(session: Session, *queries: Select[str]) -> set[str]:
    return {one for query in queries for one in session.scalars(query.distinct())}


def _is_one_of(column: Any, names: Set[str]) -> ColumnElement[bool]:
    """SQL: whether a column is one of the names; an email is, however it is written."""
    return func.is_one_of(column, literal([*names, *map(folded, names)], ARRAY(Text)))


def _require_persons(names: Sequence[str]) -> None:
    if unfit := [name for name in names if not _is_person(name)]:
        raise WrongState(f"'{unfit[0]}' is no name of a person: it cannot be forgotten.")


def _is_person(name: str) -> bool:
    return is_name(name, MAX_EMAIL_CHARS) and name != EVERYBODY and not is_reserved(name)


def begin_erasure(session: Session, names: Sequence[str]) -> Erasure:
    """Begin to forget these names of one principal, or go on where it was interrupted. Does not commit.

    Raises WrongState while one of them has a role, an access key or an unfinished deletion, or is notified by e-mail,
    or if it is no principal's.
    """
    _require_persons(names)
    reason = session.scalar(select(func.reason_to_remember(literal(list(names), ARRAY(Text)))))
    if reason:
        raise WrongState(
            f"'{names[0]}' cannot be forgotten yet, because of {reason}: revoke its roles and access keys, delete "
            "subscriptions that send it e-mail, and wait until its deletions and those of its workspaces have ended."
        )
    begun = session.scalars(_begun(names[0])).one_or_none()
    if begun is None:
        begun = PrincipalErasure(pseudonym=f"{FORGOTTEN_PREFIX}{secrets.token_hex(8)}", names=list(names))
        session.add(begun)
        # Without a role nobody deletes anything: nothing is left that the breaker could hold.
        session.execute(delete(DeletionHold).where(DeletionHold.requested_by.in_(names)))
    return Erasure(begun.pseudonym, tuple(begun.names))


def _begun(name: str) -> Select[PrincipalErasure]:
    return select(PrincipalErasure).where(literal(name, Text) == any_(PrincipalErasure.names)).limit(1)


def erase(transact: Transact, erasure: Erasure, *, actor: str) -> dict[str, int]:
    """Put the pseudonym in the place of the names in all tables, chunk by chunk; how many rows of each were changed.

    Each chunk is committed, so that it can be ended and begun again. The audit log is the last, with a line that says
    who was forgotten by the pseudonym alone.
    """
    changed = {}
    for table, columns in _columns_of_people().items():
        number, after = 0, None
        while True:
            more, after = transact(partial(_erase_chunk, erasure=erasure, columns=columns, after=after))
            number += more
            if after is None:
                break
        changed[table.name] = number
    changed[AuditRecord.__tablename__] = _erase_audit_records(transact, erasure, actor=actor)
    return {name: number for name, number in changed.items() if number}


def _columns_of_people() -> dict[Table, list[Column[Any]]]:
    """The columns that may have a name of a principal, by table, without the audit log."""
    left_out = {AuditRecord.__tablename__, PrincipalErasure.__tablename__}
    found = {
        table: [column for column in table.columns if _is_of_people(column)]
        for table in Base.metadata.sorted_tables
        if table.name not in left_out
    }
    return {table: columns for table, columns in found.items() if columns}


def _is_of_people(column: Column[Any]) -> bool:
    if isinstance(column.type, JSONB):
        return f"{column.table.name}.{column.name}" in _DOCUMENTS
    return column.name.endswith("_by") or column.name in {"actor", "principal", "email"}


def _erase_chunk(
    session: Session, *, erasure: Erasure, columns: list[Column[Any]], after: Sequence[Any] | None
) -> tuple[int, Sequence[Any] | None]:
    """Change the next rows by primary key; how many, and the last one that was looked at, or None at the end."""
    table = columns[0].table
    key = list(table.primary_key.columns)
    page = select(*key).order_by(*key).limit(CHUNK)
    rows = session.execute(page.where(tuple_(*key) > _at(key, after)) if after else page).all()
    if not rows:
        return 0, None
    in_page = [tuple_(*key) >= _at(key, rows[0]), tuple_(*key) <= _at(key, rows[-1])]
    if table is RoleBinding.__table__:
        _remove_doubles(session, erasure, in_page)
    values: dict[Any, Any] = {column: erasure.of(column) for column in columns}
    if table is RoleBinding.__table__:
        values[RoleBinding.name] = _binding_name(erasure)
    is_named = or_(*(column.is_distinct_from(erasure.of(column)) for column in columns))
    changed = session.execute(update(table).where(*in_page, is_named).values(values))
    return changed.rowcount, rows[-1]  # type: ignore[attr-defined]


def _at(key: list[Column[Any]], row: Sequence[Any]) -> Any:
    return tuple_(*(literal(value, column.type) for column, value in zip(key, row, strict=True)))


def _remove_doubles(session: Session, erasure: Erasure, in_page: list[ColumnElement[bool]]) -> None:
    """Of the same revoked role under two names keep the first: under one name there can be only one."""
    other = aliased(RoleBinding)
    is_double = (
        select(other.id)
        .where(
            other.workspace_id == RoleBinding.workspace_id,
            other.role == RoleBinding.role,
            other.id < RoleBinding.id,
            erasure.of(other.principal) == erasure.pseudonym,
        )
        .exists()
    )
    is_of_it = erasure.of(RoleBinding.principal) == erasure.pseudonym
    session.execute(
        delete(RoleBinding).where(*in_page, is_of_it, is_double),
        execution_options={"synchronize_session": False},
    )


def _binding_name(erasure: Erasure) -> ColumnElement[str]:
    """SQL: as `binding_name` makes it of the principal as it is from now on; a hash of a name can be guessed."""
    text = func.concat_ws(":", erasure.of(RoleBinding.principal), RoleBinding.workspace_id, RoleBinding.role)
    digest = func.encode(func.sha256(func.convert_to(text, "UTF8")), "hex")
    return func.concat("rb-", func.left(digest, 24))


def _erase_audit_records(transact: Transact, erasure: Erasure, *, actor: str) -> int:
    number, after = 0, UUID(int=0)
    while True:
        more, last = transact(partial(_erase_lines, erasure=erasure, actor=actor, after=after))
        number += more
        if last is None:
            return number
        after = last


def _erase_lines(session: Session, *, erasure: Erasure, actor: str, after: UUID) -> tuple[int, UUID | None]:
    """The same of the audit log, by the function of its owner; after the last line the erasure has ended."""
    names = literal(list(erasure.names), ARRAY(Text))
    forgotten = func.forget_in_audit_log(erasure.pseudonym, names, actor, after, CHUNK)
    number, last = session.execute(select(forgotten.table_valued("number", "last"))).one()
    if last is None:
        session.execute(delete(PrincipalErasure).where(PrincipalErasure.pseudonym == erasure.pseudonym))
    return number, last
