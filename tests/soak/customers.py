"""Threads that use the product over HTTP, and note what they were told."""

import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any, Self

import httpx

from tests.soak.ledger import Ledger, Tenant
from tests.support.deadlines import DEADLINE_S

WORKSPACES = "/apis/entities/v2/workspaces"
FEWEST_TENANTS = 6
DELETES = 0.15
"""How often a deleter deletes."""
AGAIN = {408, 429, 502, 503, 504}
"""Statuses after which the same request is sent again."""
SUBPROCESS = {"provider": "subprocess"}


class Customer:
    """Somebody who does one thing after the other, between `begin` and `end`."""

    def __init__(self, url: str, ledger: Ledger, random: Random) -> None:
        self.ledger, self.random = ledger, random
        self._client = httpx.Client(base_url=url, timeout=30)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.end()
        self._client.close()

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop after what it is at."""
        self._is_over.set()
        self._thread.join(3 * DEADLINE_S)
        if self._thread.is_alive():
            self.ledger.wrong.append(f"a {type(self).__name__} never ended")

    def _work(self) -> None:
        while not self._is_over.wait(self.random.uniform(0.2, 0.8)):
            try:
                self.act()
            except Exception as error:  # noqa: BLE001 -- whatever it is, the soak has failed
                self.ledger.wrong.append(f"{type(self).__name__}: {error!r}")

    def act(self) -> None:
        raise NotImplementedError

    def ask(
        self, method: str, path: str, *, of: Tenant | None = None, **content: Any
    ) -> httpx.Response | None:
        """The answer, once there is one of success. None if the workspace may be gone, or if something is wrong.

        What was sent again and is there already has been done by the first request.
        """
        deadline = time.monotonic() + 2 * DEADLINE_S
        is_again = False
        while True:
            answer = self._answer(method, path, **content)
            if answer is not None and answer.status_code not in AGAIN:
                break
            is_again = True
            self.ledger.counts["requests sent again"] += 1
            if time.monotonic() > deadline:
                self.ledger.wrong.append(f"{method} {path}: never answered")
                return None
            time.sleep(self.random.uniform(0.2, 1))
        self.ledger.counts["requests answered"] += 1
        if answer.is_success or (is_again and method == "POST" and answer.status_code == 409):
            return answer
        if not (of and of.is_doomed and answer.status_code in (404, 409)):
            self.ledger.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return None

    def _answer(self, method: str, path: str, **content: Any) -> httpx.Response | None:
        try:
            return self._client.request(method, path, **content)
        except httpx.TransportError:
            return None


class Deleter(Customer):
    """Deletes workspaces of all creators, whatever they are at."""

    def act(self) -> None:
        living = self.ledger.living()
        if len(living) > FEWEST_TENANTS and self.random.random() < DELETES:
            self.delete(self.random.choice(living))

    def delete(self, tenant: Tenant) -> None:
        tenant.is_doomed = True
        path = f"{WORKSPACES}/{tenant.name}"
        if answer := self.ask("DELETE", path, params={"id": tenant.id, "reason": "soak"}):
            tenant.deletion = answer.json()["deletion_id"]
            self.ledger.free_names.append(tenant.name)
            self.ledger.counts["workspaces deleted"] += 1


class Reader(Customer):
    """Reads what was accepted: it has to be there all the time, or not to be answered."""

    def act(self) -> None:
        if living := self.ledger.living():
            self.read_one(self.random.choice(living))

    def read_one(self, tenant: Tenant) -> None:
        if tenant.files and self.random.random() < 0.6:
            path, content = self.random.choice([*tenant.files.items()])
            self.read_file(tenant, path, content)
        elif tenant.entities:
            name, data = self.random.choice([*tenant.entities.items()])
            self.read_entity(tenant, name, data)

    def read_file(self, tenant: Tenant, path: str, content: bytes) -> None:
        answer = self.ask("GET", file_url(tenant, path), of=tenant)
        if answer and not tenant.is_doomed and answer.content != content:
            self.ledger.wrong.append(f"{tenant.name}: {path} has other bytes: {len(answer.content)}")
        self.ledger.counts["files read"] += 1

    def read_entity(self, tenant: Tenant, name: str, data: Any) -> None:
        answer = self.ask("GET", f"{WORKSPACES}/{tenant.name}/entities/sample/{name}", of=tenant)
        if answer and not tenant.is_doomed and answer.json()["data"] != data:
            self.ledger.wrong.append(f"{tenant.name}: {name} is {answer.text[:300]}")
        self.ledger.counts["entities read"] += 1


class Prober(Customer):
    """Somebody whose job and whose DELETE have to end soon, whatever has failed before."""

    _number = 0

    def probe(self, wait_until: Callable[[Callable[[], bool], str], object]) -> None:
        """Run a job in a workspace of its own, and delete it; return once both have ended."""
        self._number += 1
        name, step = (
            f"probe-{self._number}",
            {"name": "main", "executor": {**SUBPROCESS, "command": ["true"]}},
        )
        jobs = f"/apis/jobs/v2/workspaces/{name}/jobs"
        body = {"name": "probe", "source": "soak", "spec": {}, "platform_spec": {"steps": [step]}}
        self.ask("POST", WORKSPACES, json={"name": name})
        self.ask("POST", jobs, json=body)
        wait_until(lambda: self._says(f"{jobs}/probe", "status", "completed"), f"the job in {name} completes")
        workspace = self.ask("GET", f"{WORKSPACES}/{name}")
        assert workspace
        if answer := self.ask("DELETE", f"{WORKSPACES}/{name}", params={"id": workspace.json()["id"]}):
            deletion = answer.headers["Location"]
            wait_until(lambda: self._says(deletion, "state", "DONE"), f"{name} is gone")

    def _says(self, path: str, key: str, value: str) -> bool:
        answer = self.ask("GET", path)
        return answer is not None and answer.json()[key] == value


def file_url(tenant: Tenant, path: str) -> str:
    return f"/apis/files/v2/workspaces/{tenant.name}/filesets/data/-/{path}"
