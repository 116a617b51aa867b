"""Finds servers in the cluster that belong to no deployment: no worker would ever stop them.

The cluster can carry out a create request after its deployment was confirmed as gone, and a restored backup lacks the
deployments that were made after it.
"""

from collections.abc import Set
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.config import Settings
from app.context import Context
from app.db import session_scope
from app.models import Deployment
from app.runtime.deployments.backends.kubernetes import NO_CLIENT, has_kubernetes
from app.runtime.deployments.backends.kubernetes.manifests import installation_labels, name_of
from app.runtime.deployments.contract import KUBERNETES
from app.services.workspaces import installation


def find_orphans(context: Context, *, retained: Set[UUID]) -> list[str]:
    """Objects of this installation that belong to no deployment, on record or retained: `namespace/name`.

    Searches the namespace in the settings and all namespaces on record; a cluster that is not in use is not asked.
    Raises OSError if the cluster cannot be asked.
    """
    # On record before or after the search: objects that are made or removed meanwhile are no orphans.
    before = _deployments_there(context)
    namespaces = {one for one in before.values() if one}
    if context.settings.deployment_runtime == KUBERNETES:
        namespaces.add(context.settings.kubernetes_namespace)
    if not namespaces:
        return []
    with session_scope(context.sessions) as session:
        labels = installation_labels(str(installation(session)))
    found = _find(context.settings, namespaces, labels)
    known = {name_of(one) for one in retained | before.keys() | _deployments_there(context).keys()}
    return sorted(f"{namespace}/{name}" for namespace, name in found if name not in known)


def _deployments_there(context: Context) -> dict[UUID, str | None]:
    """The deployments that are, or may be, in the cluster, with their namespace."""
    query = select(Deployment.id, Deployment.namespace).where(Deployment.host == KUBERNETES)
    with session_scope(context.sessions) as session:
        return {row.id: row.namespace for row in session.execute(query)}


def _find(settings: Settings, namespaces: set[str], labels: dict[str, str]) -> set[tuple[str, str]]:
    if not has_kubernetes():
        raise ConnectionError(NO_CLIENT)
    from app.runtime.deployments.backends.kubernetes.client import cluster_of  # noqa: PLC0415 -- an optional extra

    cluster = cluster_of(settings)
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = set()
    for namespace in namespaces:
        for each in (cluster.apps.list_namespaced_deployment, cluster.core.list_namespaced_service):
            page: Any = cluster.ask(each, namespace=namespace, label_selector=selector)
            found |= {(namespace, one.metadata.name) for one in page.items}
    return found
