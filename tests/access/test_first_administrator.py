"""The first administrator behind a gateway, and questions that only administrators may ask."""

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cli import main
from app.context import Context
from app.models import AuditRecord
from tests.support.people import announced

CONTROL = "/apis/entities/v2/cleanup-control"
DELETIONS = "/apis/entities/v2/deletions"
W = "/apis/entities/v2/workspaces"
ANN = announced("ann")


def grant(context: Context, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["principal", "grant", *arguments], obj=context)


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("ann", ANN),
        ("ann@example.com", announced("ann@example.com")),
        ("Ann@Example.com", announced("17", email="ann@example.com")),
        ("ops", announced("ann", groups=["ops"])),
    ],
)
def test_one_is_made_by_whatever_name_the_gateway_passes_on(
    client: FlaskClient, context: Context, session: Session, name: str, caller: dict[str, str]
) -> None:
    assert client.get(CONTROL, headers=caller).status_code == 403

    result = grant(context, name)

    assert (result.exit_code, result.output) == (0, f"{name} in 'system': PlatformAdmin\n")
    assert client.get(CONTROL, headers=caller).status_code == 200
    [actor] = session.scalars(select(AuditRecord.actor).where(AuditRecord.subject == name))
    assert actor.startswith("service:cli@")


def test_one_has_another_name_in_helix(client: FlaskClient, context: Context) -> None:
    assert grant(context, "ann", "--role", "HelixAdmin").output == "ann in 'system': PlatformAdmin\n"

    assert client.get(CONTROL, headers=ANN).status_code == 200


def test_any_role_can_be_granted_where_it_exists(client: FlaskClient, context: Context) -> None:
    client.post(W, json={"name": "anns"}, headers=ANN)

    assert grant(context, "bob", "--role", "Viewer", "--workspace", "anns").exit_code == 0
    assert client.get(f"{W}/anns", headers=announced("bob")).status_code == 200
    assert grant(context, "bob", "--role", "Viewer", "--workspace", "anns").exit_code == 0  # again


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("ann", "--workspace", "default"),
            "Error: Role 'PlatformAdmin' can only be granted in workspace 'system'",
        ),
        (("ann", "--role", "Editor"), "Error: Role 'Editor' cannot be granted in workspace 'system'"),
        (("ann", "--workspace", "nowhere", "--role", "Editor"), "Error: Workspace 'nowhere' not found"),
        ((" ",), "printable"),
    ],
)
def test_what_cannot_be_granted_is_one_line(
    context: Context, arguments: tuple[str, ...], complaint: str
) -> None:
    result = grant(context, *arguments)

    assert result.exit_code in {1, 2}
    assert complaint in result.output


def test_who_may_not_see_all_deletions_is_told_so(client: FlaskClient, context: Context) -> None:
    """An empty list would read as "nothing has failed"."""
    client.post(W, json={"name": "anns"}, headers=ANN)
    client.delete(f"{W}/anns", headers=ANN)

    def asked(scope: str, headers: dict[str, str]) -> tuple[int, int | None]:
        answer = client.get(DELETIONS, query_string={"scope": scope} if scope else {}, headers=headers)
        return answer.status_code, len(answer.json["data"]) if answer.status_code == 200 else None

    bob = announced("bob")
    assert asked("all", ANN) == asked("all", bob) == (403, None)
    assert asked("own", ANN) == asked("", ANN) == (200, 1)
    assert asked("own", bob) == asked("", bob) == (200, 0)

    grant(context, "bob")
    assert asked("all", bob) == asked("", bob) == (200, 1)
    assert asked("own", bob) == (200, 0)
    assert asked("everything", bob) == (422, None)
