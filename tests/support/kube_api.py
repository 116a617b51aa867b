"""An API server of Kubernetes on loopback: keeps objects as the real one does, and lets a test be the cluster."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource, namespace and name."""

GROUPS = {"deployments": "apps", "services": "", "pods": ""}
KINDS = {"deployments": ("Deployment", "apps/v1"), "services": ("Service", "v1"), "pods": ("Pod", "v1")}
_PATH = re.compile(
    r"/(?:api/v1|apis/apps/v1)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?\Z"
)
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_NOW = "2026-01-01T00:00:00Z"
FOREGROUND = "foregroundDeletion"


class Refused(Exception):
    """An answer that is a Status of failure."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


@dataclass
class KubeApi:
    """Serves while the `with` block runs; what it holds can be changed at any time."""

    namespaces: set[str] = field(default_factory=lambda: {"default"})
    objects: dict[Key, Object] = field(default_factory=dict)
    collecting: bool = True
    """Whether the garbage collector does its work at once; otherwise `collect` does, when the test says so."""
    unseen: bool = False
    """Whether reading finds nothing, as right before somebody else makes it."""
    failure: Refused | None = None
    """What every request is answered with."""
    raw: bytes | None = None
    """Sent with 200 instead of any answer, as by a proxy on the way."""
    silent: threading.Event = field(default_factory=threading.Event)
    """While set, connections are accepted and nothing is answered."""
    asked: list[str] = field(default_factory=list)
    """The requests so far, as `POST deployments`."""
    url: str = ""

    def __enter__(self) -> Self:
        self._lock, self._version = threading.RLock(), 0
        self._leaving = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go away: connections are refused from now on."""
        self._leaving.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def one(self, resource: str) -> Object:
        """The only object of that sort."""
        [found] = [one for (sort, _, _), one in self.objects.items() if sort == resource]
        return found

    # --- what the cluster does

    def report(self, *, available: int, conditions: list[Object] | None = None) -> None:
        """Let the deployment controller tell how far the only deployment is."""
        with self._lock:
            deployment = self.one("deployments")
            deployment["status"] = {
                "observedGeneration": 1,
                "replicas": 1,
                "availableReplicas": available,
                "conditions": conditions or [],
            }
            self._touch(deployment)

    def start_pod(self, **status: Any) -> Object:
        """A pod of the only deployment, in the place of those it had, in that status."""
        with self._lock:
            deployment = self.one("deployments")
            template = deployment["spec"]["template"]
            self._drop_pods(template["metadata"]["labels"])
            namespace = deployment["metadata"]["namespace"]
            name = f"{deployment['metadata']['name']}-{uuid4().hex[:5]}"
            pod = {"metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]}
            return self._keep("pods", namespace, pod | {"status": {"phase": "Pending", **status}})

    def collect(self) -> None:
        """Let the garbage collector take what waits for it: the pods first, then what owned them."""
        with self._lock:
            for key, one in list(self.objects.items()):
                meta = one["metadata"]
                if FOREGROUND in meta.get("finalizers", ()):
                    meta["finalizers"].remove(FOREGROUND)
                    if key[0] == "deployments":
                        self._drop_pods(one["spec"]["selector"]["matchLabels"])
            self._remove_finalized()

    def release(self, finalizer: str) -> None:
        """Let a controller take its finalizer off all objects."""
        with self._lock:
            for one in self.objects.values():
                held = one["metadata"].get("finalizers", [])
                one["metadata"]["finalizers"] = [each for each in held if each != finalizer]
            self._remove_finalized()

    # --- what it answers

    def answer(self, method: str, target: str, body: Object) -> tuple[int, Object]:
        """Status code and object. Raises Refused."""
        parts = urlsplit(target)
        at = _PATH.match(parts.path)
        if at is None or at["resource"] not in KINDS:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        resource, namespace, name = at["resource"], at["namespace"], at["name"]
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            if method == "POST":
                return 201, self._create(resource, namespace, body)
            if name is None:
                return 200, self._list(resource, namespace, query.get("labelSelector", ""))
            found = self.objects.get((resource, namespace, name))
            if found is None or self.unseen:
                raise Refused(404, "NotFound", f'{_full(resource)} "{name}" not found')
            if method == "DELETE":
                policy = query.get("propagationPolicy") or body.get("propagationPolicy") or "Background"
                return 200, self._delete(resource, found, policy)
            return 200, found

    def hear(self, method: str, target: str) -> None:
        """Note the request, and wait while silent."""
        if at := _PATH.match(urlsplit(target).path):
            self.asked.append(f"{method} {at['resource']}")
        while self.silent.is_set() and not self._leaving.wait(0.01):
            pass

    def _create(self, resource: str, namespace: str, body: Object) -> Object:
        if namespace not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        name = body["metadata"]["name"]
        if trouble := next(_mistakes(resource, body), None):
            kind = KINDS[resource][0]
            raise Refused(422, "Invalid", f'{kind}.{GROUPS[resource]} "{name}" is invalid: {trouble}')
        if present := self.objects.get((resource, namespace, name)):
            deleted = present["metadata"].get("deletionTimestamp")
            why = "object is being deleted: " if deleted else ""
            raise Refused(409, "AlreadyExists", f'{why}{_full(resource)} "{name}" already exists')
        return self._keep(resource, namespace, {**body, "status": {}})

    def _keep(self, resource: str, namespace: str, one: Object) -> Object:
        kind, version = KINDS[resource]
        meta = {**one["metadata"], "namespace": namespace, "uid": str(uuid4()), "creationTimestamp": _NOW}
        kept = {**one, "kind": kind, "apiVersion": version, "metadata": {**meta, "generation": 1}}
        self._touch(kept)
        self.objects[resource, namespace, meta["name"]] = kept
        return kept

    def _touch(self, one: Object) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)

    def _list(self, resource: str, namespace: str, selector: str) -> Object:
        wanted = dict(part.split("=", 1) for part in selector.split(",") if part)
        kind, version = KINDS[resource]
        items = [
            one
            for (sort, space, _), one in self.objects.items()
            if (sort, space) == (resource, namespace)
            and wanted.items() <= one["metadata"].get("labels", {}).items()
        ]
        meta = {"resourceVersion": str(self._version)}
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": meta, "items": items}

    def _delete(self, resource: str, one: Object, policy: str) -> Object:
        meta = one["metadata"]
        finalizers = meta.setdefault("finalizers", [])
        if policy == "Foreground" and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        is_pending = bool(finalizers)
        meta.setdefault("deletionTimestamp", _NOW)
        meta.setdefault("deletionGracePeriodSeconds", 0)
        self._touch(one)
        if not is_pending:
            self._remove_finalized()
        elif self.collecting:
            answer = json.loads(json.dumps(one))
            self.collect()
            return dict(answer)
        if is_pending:
            return one  # the object itself, as long as something holds it
        details = {"name": meta["name"], "group": GROUPS[resource], "kind": resource, "uid": meta["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _remove_finalized(self) -> None:
        for key, one in list(self.objects.items()):
            if one["metadata"].get("deletionTimestamp") and not one["metadata"].get("finalizers"):
                del self.objects[key]

    def _drop_pods(self, labels: dict[str, str]) -> None:
        for key, one in list(self.objects.items()):
            if key[0] == "pods" and labels.items() <= one["metadata"]["labels"].items():
                del self.objects[key]


def _full(resource: str) -> str:
    return f"{resource}.{GROUPS[resource]}".rstrip(".")


def _mistakes(resource: str, body: Object) -> Iterator[str]:
    """What the validation of the real one would refuse, of what our objects could get wrong."""
    meta = body["metadata"]
    if not _NAME.match(meta["name"]):
        yield f'metadata.name: Invalid value: "{meta["name"]}"'
    labels = [meta.get("labels", {})]
    if resource == "deployments":
        template = body["spec"]["template"]
        labels.append(template["metadata"]["labels"])
        if not body["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items():
            yield "spec.template.metadata.labels: `selector` does not match template `labels`"
        for container in template["spec"]["containers"]:
            for one in container.get("env", []):
                if "=" in one["name"] or not one["name"].isprintable():
                    yield f'spec.template.spec.containers[0].env[0].name: Invalid value: "{one["name"]}"'
    for value in (value for each in labels for value in each.values()):
        if not _LABEL.match(value):
            yield f'metadata.labels: Invalid value: "{value}"'


def _handler(api: KubeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            api.hear(self.command, self.path)
            try:
                if api.failure:
                    raise api.failure
                code, answer = api.answer(self.command, self.path, sent or {})
            except Refused as refused:
                code, answer = refused.code, refused.status
            body = api.raw if api.raw is not None else json.dumps(answer).encode()
            try:
                self.send_response(200 if api.raw is not None else code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                """The client has given up."""

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler
