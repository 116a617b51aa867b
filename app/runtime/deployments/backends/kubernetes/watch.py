"""Watches one Deployment in the cluster, instead of reading it again and again."""

from threading import Event, Thread

from kubernetes.client import AppsV1Api
from kubernetes.watch import Watch

from app.logs import get_logger

log = get_logger(__name__)


class DeploymentWatch(Thread):
    """A one-time signal that the Deployment may have changed since the resource version `since`; it carries no data.

    The signal comes with the first change, after `for_s` seconds at the latest, and when the API ends the watch. The
    API ends it when it goes down, no longer has that version, or does not permit to watch.
    """

    def __init__(self, api: AppsV1Api, *, namespace: str, name: str, since: str, for_s: int) -> None:
        super().__init__(name=f"watch of {name}", daemon=True)
        self._api, self._namespace, self._deployment = api, namespace, name
        self._since, self._for_s = since, for_s
        self._watch, self._is_stale = Watch(), Event()  # type: ignore[no-untyped-call]  # has no types
        self.start()

    @property
    def is_stale(self) -> bool:
        """Whether the Deployment may have changed, so that it has to be read again."""
        return self._is_stale.is_set()

    def close(self) -> None:
        """End the watch."""
        self._watch.stop()  # type: ignore[no-untyped-call]  # has no types

    def run(self) -> None:
        """Wait for the first event."""
        try:
            events = self._watch.stream(  # type: ignore[no-untyped-call]  # has no types
                self._api.list_namespaced_deployment,
                namespace=self._namespace,
                field_selector=f"metadata.name={self._deployment}",
                resource_version=self._since,
                timeout_seconds=self._for_s,
                # The server ends the watch first; this is for a server that has vanished without closing it.
                _request_timeout=(5, self._for_s + 5),
            )
            next(events, None)
            events.close()
        except Exception as error:  # noqa: BLE001 -- the boundary of the thread: the next read fails for the same reason
            log.info("kubernetes.watch_ended", deployment=self._deployment, error=type(error).__name__)
        finally:
            self._is_stale.set()
