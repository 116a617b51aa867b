"""Deleting a workspace at the console: what it holds, and its name as a consent."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.context import Context
from app.lifecycle import WorkspaceState
from app.models import AuditRecord, Deletion, Workspace
from tests import factories
from tests.access.world import World
from tests.support.browser import Browser

WIZARD = "/console/workspaces/ml-team/delete"


def test_the_wizard_says_what_it_would_destroy(session: Session, world: World, operator: Browser) -> None:
    world.publish_file(operator_store(operator))

    text = operator.open(WIZARD).text

    assert "1 jobs and 1 deployments of it run now" in text
    for kind in ("filesets", "entities", "deployment configs"):
        assert f'<th scope="row">{kind}</th>' in text
    assert "5 B of files" in operator.open("/console/workspaces/ml-team/size").text


def operator_store(operator: Browser):
    return operator.client.application.extensions["service"].context.store


def test_the_typed_name_is_the_consent(session: Session, world: World, operator: Browser) -> None:
    operator.open(WIZARD)
    form = operator.form("/delete")

    for typed in ("", "ml-tea", "ML-TEAM", "ml-team "):
        operator.send(form, confirm=typed)
        assert operator.message.startswith("refused: Nothing was deleted")
    operator.send(form, confirm="ml-team", reason="over", grace_seconds="86400")

    assert operator.message.startswith("done: All access to ml-team is revoked")
    deletion = session.scalars(select(Deletion).where(Deletion.workspace_name == "ml-team")).one()
    assert (deletion.request_reason, deletion.requested_by) == ("over", "root")
    assert deletion.purge_after - deletion.requested_at == timedelta(days=1)
    assert operator.address == f"/console/deletions/{deletion.id}"
    assert "In its grace period" in operator.page.text


def test_a_successor_of_the_name_is_not_meant(session: Session, world: World, operator: Browser) -> None:
    operator.open(WIZARD)
    form = operator.form("/delete")
    world.workspace.name = "renamed"
    session.merge(world.workspace)
    session.flush()
    successor = factories.make_workspace(session, "ml-team")
    session.commit()

    operator.send(form, confirm="ml-team")

    assert operator.message.startswith("refused: ")
    session.expire_all()
    assert session.get_one(Workspace, successor.id).state is WorkspaceState.ACTIVE


@pytest.mark.parametrize("name", ["default", "system"])
def test_what_is_built_in_is_not_offered(session: Session, operator: Browser, name: str) -> None:
    assert "built in and cannot be deleted" in operator.open(f"/console/workspaces/{name}/delete").text


def test_protection_is_taken_away_first(session: Session, world: World, operator: Browser) -> None:
    operator.open(WIZARD)
    operator.send(next(one for one in operator.forms if one.action.endswith("/protection")))
    assert operator.message == "done: ml-team is protected against deletion."
    assert [one.action for one in operator.forms if "delete" in one.action or not one.action] == []

    operator.send(operator.form("/protection"))
    assert operator.message == "done: ml-team is no longer protected."
    events = session.scalars(select(AuditRecord.event).order_by(AuditRecord.at)).all()
    assert list(events) == ["workspace.protected", "workspace.unprotected"]


def test_the_least_grace_is_that_of_the_settings(
    session: Session, world: World, console: Context, operator: Browser
) -> None:
    object.__setattr__(console, "settings", console.settings.model_copy(update={"deletion_grace": 7200.0}))

    text = operator.open(WIZARD).text

    assert '<option value="7200">2 h</option>' in text
    assert "none: at once" not in text
    assert '<option value="3600">' not in text


def test_a_grace_as_long_as_that_of_the_settings_can_be_chosen(
    session: Session, world: World, console: Context, operator: Browser
) -> None:
    grace = timedelta(days=400)
    settings = console.settings.model_copy(update={"deletion_grace": grace.total_seconds()})
    object.__setattr__(console, "settings", settings)
    text = operator.open(WIZARD).text
    choice = f"{grace.total_seconds():.0f}"
    assert f'<option value="{choice}">' in text

    operator.send(operator.form("/delete"), confirm="ml-team", grace_seconds=choice)

    assert operator.message.startswith("done: ")
    deletion = session.scalars(select(Deletion).where(Deletion.workspace_name == "ml-team")).one()
    assert deletion.purge_after - deletion.requested_at == grace


def test_workspaces_are_listed_by_name_a_page_at_a_time(
    session: Session, operator: Browser, sitting: Callable[[str], Browser]
) -> None:
    for number in range(120):
        factories.make_workspace(session, f"team-{number:03}")
    factories.make_workspace(session, "ml_team")
    session.commit()

    names, address = [], "/console/workspaces?prefix=team-"
    while address:
        text = operator.open(address).text
        names += [part.partition("<")[0] for part in text.split('<th scope="row">')[1:]]
        address = (
            "/console/workspaces"
            + text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
            if 'rel="next"' in text
            else ""
        )

    assert names == [f"team-{number:03}" for number in range(120)]
    assert "ml_team" in operator.open("/console/workspaces?prefix=ml_").text
    assert "ml_team" not in operator.open("/console/workspaces?prefix=mlX").text
    assert "team-0" not in sitting("stranger").open("/console/workspaces").text


def test_a_store_that_does_not_answer_takes_no_page_away(
    session: Session, world: World, console: Context, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise TimeoutError("no answer from /srv/blobs")

    monkeypatch.setattr(type(console.store), "size_within", silent)

    assert operator.open(WIZARD).status_code == 200
    part = operator.open("/console/workspaces/ml-team/size")
    assert part.status_code == 200
    assert "is not known" in part.text
    assert "/srv" not in part.text
    assert replace(operator)
