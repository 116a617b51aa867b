"""Watches the Deployments of a namespace in the cluster, instead of reading each again and again."""

import time
from functools import cache
from threading import Event, Lock, Thread
from typing import Any
from weakref import WeakSet

from kubernetes.watch import Watch

from app.logs import get_logger
from app.runtime.deployments.backends.kubernetes.client import Cluster
from app.runtime.deployments.backends.kubernetes.manifests import OURS

log = get_logger(__name__)

_FOR_S = 60
"""How long one request to watch takes. Everything is read again after it: a server can vanish without closing it, and
Services are not watched."""
_TRY_AGAIN_S = 5.0


class Subscription:
    """Whether one Deployment may have changed since the last `reset`."""

    def __init__(self, watch: "NamespaceWatch", name: str) -> None:
        self._watch, self.name, self.changed = watch, name, Event()
        self.changed.set()

    @property
    def has_changed(self) -> bool:
        """Whether it may have changed, as far as the watch has seen."""
        return self.changed.is_set()

    @property
    def is_live(self) -> bool:
        """Whether the watch sees changes now: not while the API is down, or does not permit to watch."""
        return self._watch.is_live

    def reset(self) -> None:
        """Start anew; to be called before the Deployment is read."""
        self.changed.clear()

    def close(self) -> None:
        """End the subscription; the watch ends soon after the last one."""
        self._watch.unsubscribe(self)


class NamespaceWatch:
    """One thread and one connection for all our Deployments of a namespace, as long as anybody subscribes."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        # Weak: one that nobody holds any more is not waited for, closed or not.
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._lock, self._is_running = Lock(), False
        self.is_live = False

    def subscribe(self, name: str) -> Subscription:
        """A subscription to one Deployment, which counts as changed until its first `reset`."""
        subscription = Subscription(self, name)
        with self._lock:
            self._subscriptions.add(subscription)
            if not self._is_running:
                self._is_running = True
                Thread(target=self._run, name=f"watch of {self._namespace}", daemon=True).start()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """As `Subscription.close`."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._watch_once()
            except Exception as error:  # noqa: BLE001 -- the boundary of the thread: meanwhile the supervisors read
                log.info("kubernetes.watch_ended", namespace=self._namespace, error=type(error).__name__)
                time.sleep(_TRY_AGAIN_S)

    def _is_wanted(self) -> bool:
        with self._lock:
            self._is_running = bool(self._subscriptions)
            return self._is_running

    def _watch_once(self) -> None:
        ours: dict[str, Any] = {"namespace": self._namespace, "label_selector": OURS}
        listed: Any = self._cluster.ask(self._cluster.apps.list_namespaced_deployment, limit=1, **ours)
        # Whoever reads from here on learns of all that happened before, and the watch tells what happens later.
        self.is_live = True
        self._note(None)
        try:
            self._follow(ours, since=listed.metadata.resource_version)
        finally:
            self.is_live = False

    def _follow(self, ours: dict[str, Any], *, since: str) -> None:
        events = Watch().stream(  # type: ignore[no-untyped-call]  # has no types
            self._cluster.apps.list_namespaced_deployment,
            **ours,
            resource_version=since,
            timeout_seconds=_FOR_S,
            # The server ends the watch first; this is for a server that has vanished without closing it.
            _request_timeout=(5, _FOR_S + 5),
        )
        for event in events:
            self._note(event["object"].metadata.name)
            if not self._subscriptions:
                break
        events.close()

    def _note(self, name: str | None) -> None:
        """Tell those who subscribe to `name`, or all of them."""
        with self._lock:
            for subscription in self._subscriptions:
                if name in (None, subscription.name):
                    subscription.changed.set()


@cache
def watch_of(cluster: Cluster, namespace: str) -> NamespaceWatch:
    """The only watch of a namespace in this process."""
    return NamespaceWatch(cluster, namespace)
