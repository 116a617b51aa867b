"""All failures of a deletion, a page at a time."""

from functools import cache
from typing import Any

from flask import Response
from sqlalchemy import Select, Text, Uuid, bindparam, select, tuple_
from sqlalchemy.orm import Session

from app.access.permissions import Permission
from app.cleanup import requests
from app.cleanup.report import FailureReport
from app.console.page import Fields, PageRequest, Pages
from app.console.pages.deletion import circumstances
from app.http.field_types import ShortText
from app.models import Deletion, DeletionFailure

pages = Pages()
_FAILURES = 25


class Behind(Fields):
    """The failure behind which a page begins."""

    kind: ShortText = ""
    resource_id: ShortText = ""


@pages.add("GET", "/deletions/<deletion_id>/failures", permission=Permission.DELETIONS_READ)
def list_failures(call: PageRequest, deletion_id: str, query: Behind) -> Response:
    """All failures of a deletion by kind and id, skipped ones included."""

    def find(session: Session) -> tuple[Deletion, Any, list[FailureReport]]:
        deletion = requests.find_deletion(session, call.actor, deletion_id)
        found = session.execute(_failures_behind(), {**query.model_dump(), "deletion_id": deletion.id})
        failures = [FailureReport.of(one, deletion.workspace_name) for one in found]
        return deletion, circumstances(session, call, deletion.id), failures

    deletion, (now, *_, may_operate), found = call.read(find)
    last = found[_FAILURES - 1] if len(found) > _FAILURES else None
    return call.page(
        "failures.html", one=deletion, may_operate=may_operate, failures=found[:_FAILURES], last=last, now=now
    )


@cache
def _failures_behind() -> Select[*tuple[Any, ...]]:
    """A page of failures, and one more if there is one."""
    failure = DeletionFailure
    place = tuple_(failure.kind, failure.resource_id)
    return (
        select(*(getattr(failure, name) for name in FailureReport.model_fields if name != "path"))
        .where(
            failure.deletion_id == bindparam("deletion_id", type_=Uuid),
            place > tuple_(bindparam("kind", type_=Text), bindparam("resource_id", type_=Text)),
        )
        .order_by(failure.kind, failure.resource_id)
        .limit(_FAILURES + 1)
    )
