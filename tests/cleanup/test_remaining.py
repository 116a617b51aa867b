"""What a workspace still holds."""

import pytest

from app.cleanup import remaining
from app.cleanup.kinds import ORDER
from tests import factories
from tests.support.statements import counted

MAKERS = {
    "jobs": factories.make_job,
    "deployments": factories.make_deployment,
    "filesets": factories.make_fileset,
    "entities": factories.make_entity,
    "projects": factories.make_project,
    "role_bindings": factories.make_binding,
}


@pytest.mark.parametrize("name", MAKERS)
def test_one_statement_finds_the_first_kind_that_is_left(session, database, name):
    workspace = factories.make_workspace(session)
    factories.make_binding(session, workspace, "somebody")
    MAKERS[name](session, workspace, "one")
    session.commit()

    with counted(database) as sent:
        found = remaining.first_kind(session, workspace.id)

    assert found in ORDER
    assert found.name == name
    assert len(sent) == 1


def test_an_empty_workspace_has_none(session):
    workspace = factories.make_workspace(session)
    assert remaining.first_kind(session, workspace.id) is None
