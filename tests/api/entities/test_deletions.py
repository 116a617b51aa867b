"""Deletions over HTTP."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text

from app.cleanup.engine import run_slice
from app.cleanup.outcomes import Failed, Finished
from app.models import Workspace
from tests import factories
from tests.support.application import answering_from
from tests.support.statements import counted

WORKSPACES = "/apis/entities/v2/workspaces"
DELETIONS = "/apis/entities/v2/deletions"
ANN = {"X-NMP-Principal-Id": "ann@example.com"}


@pytest.fixture
def workspace(session):
    workspace = factories.make_workspace(session)
    factories.make_project(session, workspace)
    session.commit()
    return workspace


@pytest.fixture
def failed(session, context, client, workspace):
    """A deletion that failed over a fileset which nobody may remove."""
    bad = factories.make_fileset(session, workspace, "bad")
    session.commit()

    class Store:
        def purge_fileset(self, workspace_id, fileset_id, *, within_s):
            raise PermissionError("access denied")

        def __getattr__(self, name):
            return getattr(real, name)

    real = context.store
    object.__setattr__(context, "store", Store())
    deletion_id = client.delete(f"{WORKSPACES}/ml-team", headers=ANN).json["deletion_id"]
    while not isinstance(run_slice(context, owner="w"), Failed):
        pass
    object.__setattr__(context, "store", real)
    return {"id": deletion_id, "fileset": str(bad.id)}


def test_delete_answers_with_the_address_of_the_deletion(client, workspace):
    response = client.delete(f"{WORKSPACES}/ml-team", headers=ANN)

    assert response.status_code == 200
    deletion_id = response.json["deletion_id"]
    assert response.json == {
        "message": "Workspace marked for deletion",
        "id": "ml-team",
        "deletion_id": deletion_id,
    }
    assert response.headers["Location"] == f"{DELETIONS}/{deletion_id}"
    assert client.get(f"{WORKSPACES}/ml-team").status_code == 404


def test_delete_takes_an_empty_json_body_as_the_sdk_sends_it(client, workspace):
    response = client.delete(f"{WORKSPACES}/ml-team", headers={"Content-Type": "application/json"})

    assert response.status_code == 200


def test_deleting_what_is_not_there_is_a_404(client, session):
    response = client.delete(f"{WORKSPACES}/nowhere")

    assert (response.status_code, response.json) == (404, {"detail": "Workspace 'nowhere' not found"})


@pytest.mark.parametrize("name", ["default", "system"])
def test_the_built_in_workspaces_answer_409_and_say_why(client, session, name):
    response = client.delete(f"{WORKSPACES}/{name}")

    assert response.status_code == 409
    assert "built in" in response.json["detail"]
    assert response.headers["x-should-retry"] == "false"
    assert client.get(f"{WORKSPACES}/{name}").status_code == 200


def test_a_deletion_can_be_followed_from_request_to_end(client, context, workspace):
    deletion_id = client.delete(f"{WORKSPACES}/ml-team", headers=ANN).json["deletion_id"]

    before = client.get(f"{DELETIONS}/{deletion_id}").json
    while not isinstance(run_slice(context, owner="w"), Finished):
        pass
    after = client.get(f"{DELETIONS}/{deletion_id}").json

    assert before["state"] == "DELETING"
    assert before["remaining"] == {"projects": 1}
    assert before["requested_by"] == "ann@example.com"
    assert before["started_at"] is None
    assert after["state"] == "DONE"
    assert after["deleted"] == {"projects": 1}
    assert after["remaining"] == {}
    assert after["finished_at"].endswith("Z")
    assert after["eta_seconds"] is None
    assert set(after) == {
        *(
            "id",
            "workspace_id",
            "workspace_name",
            "state",
            "phase",
            "requested_by",
            "requested_at",
            "request_reason",
        ),
        *("purge_after", "started_at", "finished_at", "attempts", "round", "next_run_at"),
        *(
            "next_reattempt_at",
            "reason",
            "deleted",
            "remaining",
            "at_least",
            "failures",
            "causes",
            "eta_seconds",
            "running_jobs",
            "running_deployments",
        ),
    }


def test_the_history_is_paged_and_in_order(client, context, workspace):
    deletion_id = client.delete(f"{WORKSPACES}/ml-team", headers=ANN).json["deletion_id"]
    while not isinstance(run_slice(context, owner="w"), Finished):
        pass

    page = client.get(f"{DELETIONS}/{deletion_id}/events?page_size=2&page=1").json

    assert [event["event"] for event in page["data"]] == ["requested", "started"]
    assert page["data"][0]["actor"] == "ann@example.com"
    assert page["pagination"]["total_pages"] == 3


def test_the_list_is_filtered_by_state_and_sorted_by_age(client, session):
    for name in ("ws-a", "ws-b"):
        factories.make_workspace(session, name)
    session.commit()
    for name in ("ws-a", "ws-b"):
        client.delete(f"{WORKSPACES}/{name}", headers=ANN)

    newest_first = client.get(f"{DELETIONS}?state=DELETING").json
    oldest_first = client.get(f"{DELETIONS}?sort=requested_at").json

    assert [one["workspace_name"] for one in newest_first["data"]] == ["ws-b", "ws-a"]
    assert [one["workspace_name"] for one in oldest_first["data"]] == ["ws-a", "ws-b"]
    assert client.get(f"{DELETIONS}?state=DONE").json["data"] == []
    assert client.get(f"{DELETIONS}?state=bogus").status_code == 422
    assert client.get(f"{DELETIONS}?sort=bogus").status_code == 400


@pytest.mark.parametrize("unknown", ["nonsense", "00000000-0000-7000-8000-000000000000"])
@pytest.mark.parametrize("suffix", ["", "/events"])
def test_an_unknown_deletion_is_a_404(client, session, unknown, suffix):
    assert client.get(f"{DELETIONS}/{unknown}{suffix}").status_code == 404


def test_a_failed_deletion_tells_what_failed_and_why(client, failed):
    shown = client.get(f"{DELETIONS}/{failed['id']}").json

    assert shown["state"] == "FAILED"
    assert shown["reason"] == (
        "filesets/bad: PermissionError: access denied (permanent); it will not go away by itself"
    )
    [failure] = shown["failures"]
    assert failure["resource_id"] == failed["fileset"]
    assert (failure["kind"], failure["name"], failure["error_class"]) == ("filesets", "bad", "permanent")
    assert shown["remaining"] == {"filesets": 1, "projects": 1}
    assert client.get(f"{WORKSPACES}/ml-team").status_code == 404, "FAILED is as invisible as DELETING"


def test_retry_finishes_once_the_cause_is_gone(client, context, failed):
    response = client.post(f"{DELETIONS}/{failed['id']}/retry", headers={"X-NMP-Principal-Id": "root"})
    while not isinstance(run_slice(context, owner="w"), Finished):
        pass

    assert response.status_code == 200
    assert response.json["state"] == "DELETING"
    assert client.get(f"{DELETIONS}/{failed['id']}").json["deleted"] == {"filesets": 1, "projects": 1}
    events = client.get(f"{DELETIONS}/{failed['id']}/events").json["data"]
    assert ("retried", "root") in [(event["event"], event["actor"]) for event in events]


def test_force_gives_up_on_everything_that_fails_and_says_who_did(client, context, failed):
    response = client.post(
        f"{DELETIONS}/{failed['id']}/force",
        json={"reason": "tenant left"},
        headers={"X-NMP-Principal-Id": "root"},
    )
    while not isinstance(run_slice(context, owner="w"), Finished):
        pass

    assert response.status_code == 200
    [failure] = client.get(f"{DELETIONS}/{failed['id']}").json["failures"]
    assert (failure["skipped_by"], failure["skip_reason"]) == ("root", "tenant left")


def test_skipping_what_does_not_fail_changes_nothing(client, failed):
    response = client.post(
        f"{DELETIONS}/{failed['id']}/skip", json={"kind": "jobs", "resource_id": "x", "reason": "oops"}
    )

    assert response.status_code == 404
    assert "no failure of 'jobs/x'" in response.json["detail"]
    assert client.get(f"{DELETIONS}/{failed['id']}").json["state"] == "FAILED"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("retry", None),
        ("skip", {"kind": "filesets", "resource_id": "x", "reason": "r"}),
        ("force", {"reason": "r"}),
    ],
)
def test_only_a_failed_deletion_can_be_operated_on(client, workspace, action, body):
    deletion_id = client.delete(f"{WORKSPACES}/ml-team").json["deletion_id"]

    response = client.post(f"{DELETIONS}/{deletion_id}/{action}", json=body)

    assert response.status_code == 409
    assert "not FAILED" in response.json["detail"]


@pytest.mark.parametrize("body", [{}, {"reason": " "}, {"reason": "x", "extra": 1}, {"reason": None}])
def test_a_reason_is_required_and_nothing_else_is_taken(client, failed, body):
    assert client.post(f"{DELETIONS}/{failed['id']}/force", json=body).status_code == 422


@pytest.mark.parametrize("body", [None, {}, {"name": None}])
def test_restore_brings_the_workspace_back(client, workspace, body):
    deletion_id = client.delete(f"{WORKSPACES}/ml-team").json["deletion_id"]

    response = client.post(f"{DELETIONS}/{deletion_id}/restore", json=body)

    assert response.status_code == 200
    assert response.json["state"] == "RESTORED"
    assert client.get(f"{WORKSPACES}/ml-team").json["id"] == str(workspace.id)


def test_restore_refuses_a_taken_name_and_takes_another(client, workspace):
    deletion_id = client.delete(f"{WORKSPACES}/ml-team").json["deletion_id"]
    assert client.post(WORKSPACES, json={"name": "ml-team"}).status_code == 201

    refused = client.post(f"{DELETIONS}/{deletion_id}/restore")
    taken = client.post(f"{DELETIONS}/{deletion_id}/restore", json={"name": "ml-team-2"})

    assert refused.status_code == 409
    assert taken.status_code == 200
    assert client.get(f"{WORKSPACES}/ml-team-2").json["id"] == str(workspace.id)


def test_a_preview_while_the_store_is_away_says_so(client, workspace, context, monkeypatch):
    def refuse(*_):
        raise ConnectionError("/srv/secret/place")

    monkeypatch.setattr(context.store, "size_within", refuse)

    response = client.get(f"{WORKSPACES}/ml-team/deletion-preview")

    assert (response.status_code, response.json) == (
        503,
        {"detail": "The storage failed (ConnectionError); try again."},
    )


def test_a_preview_looks_into_the_store_with_no_transaction_open(
    client, workspace, context, monkeypatch, database
):
    """A listing may take minutes, and PostgreSQL ends transactions that stand idle."""
    seen = []
    idle = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'idle in transaction'"
    )

    def size_within(*_):
        with database.connect() as observer:
            seen.append(observer.scalar(idle))
        return 0, True

    monkeypatch.setattr(context.store, "size_within", size_within)

    assert client.get(f"{WORKSPACES}/ml-team/deletion-preview").status_code == 200
    assert seen == [0]


def test_a_preview_counts_what_would_go(client, workspace, session, context):
    factories.make_fileset(session, workspace, "data", store=context.store, files={"a": b"bytes"})
    session.commit()

    assert client.get(f"{WORKSPACES}/ml-team/deletion-preview").json == {
        "remaining": {"filesets": 1, "projects": 1},
        "at_least": [],
        "bytes": 5,
        "running_jobs": 0,
        "running_deployments": 0,
        "protected": False,
    }
    assert client.get(f"{WORKSPACES}/default/deletion-preview").json["protected"] is True


def test_a_preview_of_more_files_than_it_has_time_for_says_at_least(client, workspace, session, context):
    factories.make_fileset(session, workspace, "data", store=context.store, files={"a": b"by", "b": b"tes"})
    session.commit()
    hasty = context.settings.model_copy(update={"item_timeout_seconds": -1})
    answering_from(replace(context, settings=hasty))

    shown = client.get(f"{WORKSPACES}/ml-team/deletion-preview").json

    assert (shown["bytes"], shown["at_least"]) == (2, ["bytes"])


def test_protection_forbids_deletion_until_it_is_taken_away(client, workspace):
    url = f"{WORKSPACES}/ml-team/deletion-protection"
    assert client.put(url, json={"protected": True}).json == {"id": "ml-team", "protected": True}

    refused = client.delete(f"{WORKSPACES}/ml-team")
    client.put(url, json={"protected": False})

    assert refused.status_code == 409
    assert "deletion-protection" in refused.json["detail"]
    assert client.delete(f"{WORKSPACES}/ml-team").status_code == 200


def test_destruction_is_paused_and_resumed_by_hand(client, context, session, workspace):
    url = "/apis/entities/v2/cleanup-control"
    paused = client.put(url, json={"paused": True}, headers={"X-NMP-Principal-Id": "root"}).json
    client.delete(f"{WORKSPACES}/ml-team")

    assert (paused["paused"], paused["paused_by"]) == (True, "root")
    assert run_slice(context, owner="w").why == "nothing is due"
    assert client.put(url, json={"paused": False}).json["paused"] is False
    while not isinstance(run_slice(context, owner="w"), Finished):
        pass
    assert session.scalar(select(Workspace.id).where(Workspace.name == "ml-team")) is None


def test_what_a_list_is_narrowed_by_is_a_parameter_of_its_statements(client, session, context):
    for number in range(3):
        factories.make_failed_deletion(session, f"stuck-{number}")
    session.commit()
    engine = context.sessions.kw["bind"]
    which = f"{DELETIONS}?scope=all&state=FAILED&page_size=2&kind=filesets&cause"
    client.get(f"{which}=denied")

    with counted(engine) as some:
        assert client.get(f"{which}=denied").json["pagination"]["total_results"] == 3
    with counted(engine) as none:
        assert client.get(f"{which}=lost").json["data"] == []

    assert len(some) == 3, "keys and their number, rows, and what is beside them"
    assert [one.text for one in none] == [one.text for one in some][: len(none)]


def test_a_deletion_is_described_by_two_statements_and_its_events_by_two(client, context, failed):
    for path in ("", "/events"):
        with counted(context.sessions.kw["bind"]) as sent:
            assert client.get(f"{DELETIONS}/{failed['id']}{path}").status_code == 200
        assert len(sent) == 2, path
