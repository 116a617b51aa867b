"""A Kubernetes API server on loopback: it stores objects as a real one does, and a test acts as the cluster."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tests.support.serving import serving

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource, namespace and name."""

GROUPS = {"deployments": "apps", "services": "", "pods": "", "namespaces": ""}
KINDS = {"deployments": ("Deployment", "apps/v1"), "services": ("Service", "v1"), "pods": ("Pod", "v1")}
_PATH = re.compile(
    r"/(?:api/v1|apis/apps/v1)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?\Z"
)
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\Z")
_NOW = "2026-01-01T00:00:00Z"
FOREGROUND = "foregroundDeletion"


class ApiError(Exception):
    """An answer with a Status of failure about the object that `details` names."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": code,
        }


class NoSuchPath(Exception):
    """The request has a path that this API does not have; the answer is plain text."""


@dataclass
class KubeApi:
    """Serves while the `with` block runs; its objects may be changed at any time."""

    namespaces: set[str] = field(default_factory=lambda: {"default"})
    objects: dict[Key, Object] = field(default_factory=dict)
    collecting: bool = True
    """Whether the garbage collector works at once; otherwise the test calls `collect`."""
    unseen: bool = False
    """Whether reading finds nothing, as right before another client creates the object."""
    unlisted: bool = False
    """Whether lists are not found, as with another API at this URL."""
    failure: ApiError | None = None
    """The answer to every request that begins with `failing`."""
    failing: str = ""
    """As in `asked`, such as `GET deployments`; empty means all."""
    raw: tuple[int, bytes] | None = None
    """Status code and body that replace every answer, as a proxy would do."""
    silent: threading.Event = field(default_factory=threading.Event)
    """While set, connections are accepted, but requests that begin with `silenced` are not carried out."""
    silenced: str = ""
    """As in `asked`, such as `POST deployments`; empty means all."""
    asked: list[str] = field(default_factory=list)
    """The requests so far, as `POST deployments`; many at once are `LIST` and `WATCH deployments`."""
    unwatchable: bool = False
    """Whether watching is forbidden."""
    oldest_version: int = 0
    """The history of changes is kept from this version on."""
    url: str = ""

    _serving: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._lock, self._version = threading.RLock(), 0
        self._changes: list[tuple[int, str, Object]] = []
        self._leaving = threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{server.server_port}"
        self._serving.enter_context(serving(server))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving: connections are refused from now on."""
        self._leaving.set()
        self._serving.close()

    def one(self, resource: str) -> Object:
        """The only object of that sort."""
        [found] = [one for (sort, _, _), one in self.objects.items() if sort == resource]
        return found

    @property
    def readings(self) -> int:
        """How often somebody has read one object; a watch lists, and does so when it likes."""
        return sum(each.startswith("GET ") for each in self.asked)

    # --- the cluster

    def report(self, *, available: int, conditions: list[Object] | None = None) -> None:
        """Act as the deployment controller: report the state of the only deployment."""
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
        """Start a pod of the only deployment with that status; it replaces the former pods."""
        with self._lock:
            deployment = self.one("deployments")
            template = deployment["spec"]["template"]
            self._drop_pods(template["metadata"]["labels"])
            namespace = deployment["metadata"]["namespace"]
            name = f"{deployment['metadata']['name']}-{uuid4().hex[:5]}"
            pod = {"metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]}
            return self._keep("pods", namespace, pod | {"status": {"phase": "Pending", **status}})

    def collect(self) -> None:
        """Act as the garbage collector: remove the pods first, then their owners."""
        with self._lock:
            for key, one in list(self.objects.items()):
                meta = one["metadata"]
                if FOREGROUND in meta.get("finalizers", ()):
                    meta["finalizers"].remove(FOREGROUND)
                    if key[0] == "deployments":
                        self._drop_pods(one["spec"]["selector"]["matchLabels"])
            self._remove_finalized()

    def remove(self, resource: str) -> None:
        """Act as another client: delete the only object of that sort, with its pods."""
        with self._lock:
            one = self.one(resource)
            self._delete(resource, one, "Background")
            if resource == "deployments":
                self._drop_pods(one["spec"]["selector"]["matchLabels"])

    def drop_namespace(self, namespace: str) -> None:
        """Act as another client: delete a namespace with everything in it."""
        with self._lock:
            self.namespaces.discard(namespace)
            for key in [key for key in self.objects if key[1] == namespace]:
                del self.objects[key]

    def release(self, finalizer: str) -> None:
        """Act as a controller: remove its finalizer from all objects."""
        with self._lock:
            for one in self.objects.values():
                present = one["metadata"].get("finalizers", [])
                one["metadata"]["finalizers"] = [each for each in present if each != finalizer]
            self._remove_finalized()

    # --- the API

    def answer(self, method: str, target: str, body: Object) -> tuple[int, Object]:
        """Status code and object. Raises ApiError, or NoSuchPath."""
        parts = urlsplit(target)
        at = _PATH.match(parts.path)
        if at is None or at["resource"] not in KINDS:
            raise NoSuchPath
        resource, namespace, name = at["resource"], at["namespace"], at["name"]
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            if method == "POST":
                return 201, self._create(resource, namespace, body)
            if name is None:
                if self.unlisted:
                    raise NoSuchPath
                return 200, self._list(resource, namespace, query.get("labelSelector", ""))
            found = self.objects.get((resource, namespace, name))
            if found is None or self.unseen:
                raise _error(404, "NotFound", resource, name, "not found")
            if method == "DELETE":
                policy = query.get("propagationPolicy") or body.get("propagationPolicy") or "Background"
                return 200, self._delete(resource, found, policy)
            return 200, found

    def watch(self, target: str) -> Iterator[Object]:
        """The changes of the selected objects after the version that the client names, as they happen.

        Raises ApiError.
        """
        if self.unwatchable:
            raise ApiError(403, "Forbidden", 'cannot watch resource "deployments"')
        return self._watch(target)

    def _watch(self, target: str) -> Iterator[Object]:
        parts = urlsplit(target)
        at, query = _PATH.match(parts.path), parse_qs(parts.query)
        assert at
        assert at["resource"] in KINDS
        since, ending = int(query["resourceVersion"][0]), time.monotonic() + int(query["timeoutSeconds"][0])
        selected = _labels(query.get("labelSelector", [""])[0])
        while time.monotonic() < ending and not self.failure and not self._leaving.wait(0.01):
            if since < self.oldest_version:
                gone = ApiError(410, "Expired", f"too old resource version: {since} ({self.oldest_version})")
                yield {"type": "ERROR", "object": gone.status}
                return
            with self._lock:
                news = [each for each in self._changes if each[0] > since]
                since = self._version
            for _, what, one in news:
                is_selected = selected.items() <= one["metadata"].get("labels", {}).items()
                if one["kind"] == KINDS[at["resource"]][0] and is_selected:
                    yield {"type": what, "object": one}

    def receive(self, method: str, target: str) -> str:
        """Record the request, and wait while silent; the request as in `asked`."""
        request = _request(method, target)
        self.asked.append(request)
        while self.silent.is_set() and request.startswith(self.silenced) and not self._leaving.wait(0.01):
            pass
        return request

    def _create(self, resource: str, namespace: str, body: Object) -> Object:
        if namespace not in self.namespaces:
            raise _error(404, "NotFound", "namespaces", namespace, "not found")
        name = body["metadata"]["name"]
        if mistake := next(_mistakes(resource, body), None):
            kind = KINDS[resource][0]
            raise ApiError(422, "Invalid", f'{kind}.{GROUPS[resource]} "{name}" is invalid: {mistake}')
        if present := self.objects.get((resource, namespace, name)):
            deleted = present["metadata"].get("deletionTimestamp")
            why = "object is being deleted: " if deleted else ""
            raise _error(409, "AlreadyExists", resource, name, "already exists", why=why)
        return self._keep(resource, namespace, {**body, "status": {}})

    def _keep(self, resource: str, namespace: str, one: Object) -> Object:
        kind, version = KINDS[resource]
        meta = {**one["metadata"], "namespace": namespace, "uid": str(uuid4()), "creationTimestamp": _NOW}
        kept = {**one, "kind": kind, "apiVersion": version, "metadata": {**meta, "generation": 1}}
        self._note("ADDED", kept)
        self.objects[resource, namespace, meta["name"]] = kept
        return kept

    def _touch(self, one: Object) -> None:
        self._note("MODIFIED", one)

    def _note(self, what: str, one: Object) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)
        self._changes.append((self._version, what, json.loads(json.dumps(one))))

    def _list(self, resource: str, namespace: str, selector: str) -> Object:
        labels = _labels(selector)
        kind, version = KINDS[resource]
        items = [
            one
            for (sort, space, _), one in self.objects.items()
            if (sort, space) == (resource, namespace)
            and labels.items() <= one["metadata"].get("labels", {}).items()
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
            return one  # the object itself, while finalizers keep it
        details = {"name": meta["name"], "group": GROUPS[resource], "kind": resource, "uid": meta["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _remove_finalized(self) -> None:
        for key, one in list(self.objects.items()):
            if one["metadata"].get("deletionTimestamp") and not one["metadata"].get("finalizers"):
                del self.objects[key]
                self._note("DELETED", one)

    def _drop_pods(self, labels: dict[str, str]) -> None:
        for key, one in list(self.objects.items()):
            if key[0] == "pods" and labels.items() <= one["metadata"]["labels"].items():
                del self.objects[key]


def _labels(selector: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in selector.split(",") if part)


def _request(method: str, target: str) -> str:
    """As in `asked`."""
    at = _PATH.match(urlsplit(target).path)
    if at is None:
        return f"{method} {target}"
    if "watch=true" in target.lower():
        method = "WATCH"
    elif method == "GET" and at["name"] is None:
        method = "LIST"
    return f"{method} {at['resource']}"


def _error(code: int, reason: str, resource: str, name: str, what: str, *, why: str = "") -> ApiError:
    message = f'{why}{_full(resource)} "{name}" {what}'
    group = {"group": GROUPS[resource]} if GROUPS[resource] else {}
    return ApiError(code, reason, message, name=name, **group, kind=resource)


def _full(resource: str) -> str:
    return f"{resource}.{GROUPS[resource]}".rstrip(".")


def _mistakes(resource: str, body: Object) -> Iterator[str]:
    """The errors that the validation of a real API server would report for our objects."""
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
        protocol_version = "HTTP/1.1"  # whose chunks carry the events of a watch as they happen

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            request = api.receive(self.command, self.path)
            try:
                if api.failure and request.startswith(api.failing):
                    raise api.failure
                if request.startswith("WATCH"):
                    self._stream(api.watch(self.path))
                    return
                code, answer = api.answer(self.command, self.path, sent or {})
                sort, body = "application/json", json.dumps(answer).encode()
            except ApiError as error:
                sort, code, body = "application/json", error.code, json.dumps(error.status).encode()
            except NoSuchPath:
                sort, code, body = "text/plain; charset=utf-8", 404, b"404 page not found\n"
            if api.raw:
                code, body = api.raw
            try:
                self.send_response(code)
                self.send_header("Content-Type", sort)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                """The client has closed the connection."""

        def _stream(self, events: Iterator[Object]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):  # The client has closed the connection.
                for event in events:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n")

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler
