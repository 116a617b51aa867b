"""Orphans in a cluster: the orphan scan names them and deletes nothing."""

from collections.abc import Iterator
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app import clock
from app.context import Context
from app.lifecycle import DeletionState, DeploymentStatus, FailureClass
from app.maintenance import orphan_scan
from app.models import Deletion, DeletionFailure, Deployment
from tests.runtime.runs import tuned, wait_until
from tests.runtime.test_kubernetes import left_serving
from tests.support.kube_api import ApiError, KubeApi


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as api:
        yield api


def scan(context: Context, api: KubeApi, **settings: Any) -> str:
    chosen = {"deployment_runtime": "kubernetes", "kubernetes_api_url": api.url, **settings}
    return orphan_scan.scan_for_orphans(tuned(context, **chosen))


@pytest.fixture
def served(session: Session, context: Context, api: KubeApi) -> UUID:
    """A deployment that serves in the cluster."""
    deployment_id: UUID = left_serving(session, context, api)
    return deployment_id


def delete_rows(session: Session) -> None:
    session.execute(delete(Deployment))
    session.commit()


def test_objects_of_a_deployment_are_no_orphans(context: Context, api: KubeApi, served: UUID) -> None:
    assert scan(context, api).startswith("no orphans")


@pytest.mark.parametrize("is_known", [True, False])
def test_objects_without_a_deployment_are_named_and_left_alone(
    session: Session, context: Context, api: KubeApi, served: UUID, *, is_known: bool
) -> None:
    if is_known:
        released = {"host": None, "namespace": None, "status": DeploymentStatus.DELETED}
        session.execute(update(Deployment).values(**released))
        session.commit()
    else:
        delete_rows(session)
    before = dict(api.objects)

    with pytest.raises(
        orphan_scan.OrphansFound, match=f"1 servers in the cluster .*: default/ws-{served.hex}$"
    ):
        scan(context, api)

    assert api.objects == before
    api.remove("deployments")
    with pytest.raises(orphan_scan.OrphansFound, match=f"default/ws-{served.hex}$"):
        scan(context, api)  # its Service is something too
    api.remove("services")
    assert scan(context, api).startswith("no orphans")


def test_objects_of_another_installation_are_no_orphans(
    session: Session, context: Context, api: KubeApi, served: UUID
) -> None:
    delete_rows(session)
    for one in api.objects.values():
        assert one["metadata"]["labels"]["installation"]
        one["metadata"]["labels"]["installation"] = str(uuid7())

    assert scan(context, api).startswith("no orphans")


def test_a_retained_server_is_no_orphan(
    session: Session, context: Context, api: KubeApi, served: UUID
) -> None:
    delete_rows(session)
    deletion = Deletion(workspace_id=uuid7(), workspace_name="gone", state=DeletionState.DONE)
    session.add(deletion)
    session.flush()  # its id is named by the failure
    now = clock.now()
    session.add(
        DeletionFailure(
            deletion_id=deletion.id,
            kind="deployments",
            resource_id=str(served),
            name="chat",
            error_class=FailureClass.WAITING,
            message="",
            first_seen_at=now,
            last_seen_at=now,
            skipped_by="root",
        )
    )
    session.commit()

    assert scan(context, api).startswith("no orphans")


def test_the_scan_covers_every_namespace_on_record_whichever_is_set_by_now(
    session: Session, context: Context, api: KubeApi, served: UUID
) -> None:
    service = api.one("services")
    api.objects["services", "default", "ws-orphan"] = service | {
        "metadata": {**service["metadata"], "name": "ws-orphan"}
    }

    for runtime in ("kubernetes", "subprocess"):
        with pytest.raises(orphan_scan.OrphansFound, match=r"default/ws-orphan$"):
            scan(context, api, kubernetes_namespace="other", deployment_runtime=runtime)


def test_objects_made_or_removed_during_the_scan_are_no_orphans(
    session: Session, context: Context, api: KubeApi, served: UUID
) -> None:
    made = api.one("services")
    new = uuid7()
    api.objects["services", "default", f"ws-{new.hex}"] = made | {
        "metadata": {**made["metadata"], "name": f"ws-{new.hex}"}
    }
    api.asked.clear()
    api.silent.set()
    summaries: list[str] = []
    scanning = Thread(target=lambda: summaries.append(scan(context, api)))
    scanning.start()
    wait_until(lambda: "LIST deployments" in api.asked, "the scan has begun")

    session.execute(update(Deployment).values(id=new))
    session.commit()
    api.silent.clear()

    scanning.join(30)
    assert summaries[0].startswith("no orphans")


def test_a_cluster_that_cannot_be_asked_is_named_and_hides_no_other_orphan(
    context: Context, api: KubeApi, served: UUID
) -> None:
    gone = uuid7()
    context.store.publish(context.store.stage(gone, uuid7(), "secret.txt", [b"leak"]))
    api.failure = ApiError(403, "Forbidden", "may not list")

    with pytest.raises(orphan_scan.OrphansFound) as found:
        scan(context, api)

    assert str(gone) in str(found.value)
    assert "the cluster could not be looked at: PermissionError: Kubernetes refuses: may not" in str(
        found.value
    )


def test_a_cluster_that_is_not_in_use_is_not_asked(context: Context, api: KubeApi) -> None:
    assert scan(context, api, deployment_runtime="subprocess").startswith("no orphans")

    assert api.asked == []
