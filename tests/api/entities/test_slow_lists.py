"""A list that takes longer than a statement may says what no index serves."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app.config import Settings
from tests import factories

LIST = "/apis/entities/v2/workspaces/ml-team/entities/widget"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"statement_timeout_seconds": 1})


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"filter": "data.score>5"}, "no index serves data.score ($gt)"),
        ({"filter": "data.score>5", "sort": "data.score"}, "data.score ($gt), sort=data.score"),
        ({"sort": "-created_by"}, "no index serves sort=-created_by"),
        ({"count_by": "data.owner"}, "no index serves count_by=data.owner"),
        ({"filter": 'name:"a"'}, "too many rows are read for it"),
    ],
)
def test_a_list_that_takes_too_long_says_what_no_index_serves(
    session: Session, client: FlaskClient, database: Engine, query: dict[str, str], named: str
) -> None:
    factories.make_workspace(session)
    session.commit()

    # As if there were too many: whatever reads one exceeds the time limit of a statement.
    with database.begin() as other:
        other.execute(text("LOCK TABLE entities IN ACCESS EXCLUSIVE MODE"))
        answer = client.get(LIST, query_string=query)

    assert answer.status_code == 503
    assert named in answer.json["detail"]
    assert "Narrow it by a filter on name ($eq, $gt" in answer.json["detail"]
