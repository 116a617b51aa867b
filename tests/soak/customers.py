"""Threads that use the product over HTTP, and note what they were told."""

import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Self

import httpx

from tests.soak.ledger import Ledger, Run, Tenant
from tests.support.deadlines import DEADLINE_S
from tests.support.processes import NewWord, stubborn_server

WORKSPACES = "/apis/entities/v2/workspaces"
MOST_TENANTS, MOST_LONG_JOBS, MOST_SERVERS = 16, 8, 4
FEWEST_TENANTS = 6
CREATES, DELETES = 0.1, 0.15
"""How often creators and deleters do so, of all that they do."""
AGAIN = {408, 429, 502, 503, 504}
"""Statuses after which the same request is sent again."""
_SUBPROCESS = {"provider": "subprocess"}
SIZES = (0, 1, 500, 20_000, 300_000)


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


class Creator(Customer):
    """Creates workspaces and fills them; never the same as another creator."""

    def __init__(
        self, url: str, ledger: Ledger, random: Random, *, name: str, new_word: NewWord, marks: Path
    ) -> None:
        super().__init__(url, ledger, random)
        self._name, self._new_word, self._marks = name, new_word, marks
        self._own: list[Tenant] = []
        self._numbers = count(1)

    def act(self) -> None:
        self._own = [tenant for tenant in self._own if not tenant.is_doomed]
        if not self._own or (len(self.ledger.living()) < MOST_TENANTS and self.random.random() < CREATES):
            self.create()
            return
        do: list[Callable[[Tenant], None]] = [
            self.add_entity,
            self.add_file,
            self.submit,
            self.deploy,
            self.cancel,
        ]
        [chosen] = self.random.choices(do, weights=(4, 4, 3, 1, 1))
        chosen(self.random.choice(self._own))

    def create(self) -> None:
        free = self.ledger.free_names
        name = free.pop() if free and self.random.random() < 0.5 else f"{self._name}-{next(self._numbers)}"
        if not self.ask("POST", WORKSPACES, json={"name": name}):
            return
        # The answer may be that it is there already.
        if not (answer := self.ask("GET", f"{WORKSPACES}/{name}")):
            return
        tenant = Tenant(answer.json()["id"], name)
        filesets = f"/apis/files/v2/workspaces/{name}/filesets"
        if self.ask("POST", filesets, json={"name": "data"}):
            self.ledger.tenants.append(tenant)
            self._own.append(tenant)
            self.ledger.counts["workspaces created"] += 1

    def add_entity(self, tenant: Tenant) -> None:
        name, data = f"entity-{next(self._numbers)}", {"value": self.random.random()}
        path = f"{WORKSPACES}/{tenant.name}/entities/sample"
        if self.ask("POST", path, of=tenant, json={"name": name, "data": data}):
            tenant.entities[name] = data
            self.ledger.counts["entities created"] += 1

    def add_file(self, tenant: Tenant) -> None:
        path, content = f"d/{next(self._numbers)}", self.random.randbytes(self.random.choice(SIZES))
        if self.ask("PUT", file_url(tenant, path), of=tenant, content=content):
            tenant.files[path] = content
            self.ledger.counts["files stored"] += 1

    def submit(self, tenant: Tenant) -> None:
        """Submit a job. Each attempt leaves a line in a file outside the product: none may be made twice."""
        is_long = self.random.random() < 0.3
        long_jobs = sum(run in one.jobs for one, run in self.ledger.running().values())
        if is_long and long_jobs >= MOST_LONG_JOBS:
            return
        run = Run(f"job-{next(self._numbers)}", self._new_word(), is_long)
        leave = f"echo {run.word} >> '{self._marks / run.word}'"
        seconds = self.random.uniform(0, 4)
        short = f'sleep {seconds:.1f}; echo {run.word} > "$WORKSPACES_RESULTS_DIR/word"'
        script = f"{leave}; " + (f"exec sleep {run.word}" if is_long else short)
        step = {"name": "main", "executor": {**_SUBPROCESS, "command": ["sh", "-c", script]}}
        body = {"name": run.name, "source": "soak", "spec": {}, "platform_spec": {"steps": [step]}}
        if self.ask("POST", f"/apis/jobs/v2/workspaces/{tenant.name}/jobs", of=tenant, json=body):
            tenant.jobs.append(run)
            self.ledger.counts["long jobs submitted" if is_long else "short jobs submitted"] += 1

    def cancel(self, tenant: Tenant) -> None:
        running = [run for run in tenant.jobs if run.is_long and not run.is_cancelled]
        if not running:
            return
        run = self.random.choice(running)
        run.is_cancelled = True
        path = f"/apis/jobs/v2/workspaces/{tenant.name}/jobs/{run.name}/cancel"
        if self.ask("POST", path, of=tenant):
            self.ledger.counts["jobs cancelled"] += 1

    def deploy(self, tenant: Tenant) -> None:
        if sum(run in one.servers for one, run in self.ledger.running().values()) >= MOST_SERVERS:
            return
        run = Run(f"server-{next(self._numbers)}", self._new_word())
        base = f"/apis/models/v2/workspaces/{tenant.name}"
        override = {"command": stubborn_server(run.word)}
        executor = {"gpu": 0, "health_check_path": "/", "override_config": override}
        config = {"name": run.name, "engine": "generic", "model_spec": {}, "executor_config": executor}
        wanted = {"name": run.name, "config": run.name}
        if self.ask("POST", f"{base}/deployment-configs", of=tenant, json=config) and self.ask(
            "POST", f"{base}/deployments", of=tenant, json=wanted
        ):
            tenant.servers.append(run)
            self.ledger.counts["servers deployed"] += 1


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
        if answer and answer.content != content:
            self.ledger.wrong.append(f"{tenant.name}: {path} has other bytes: {len(answer.content)}")
        self.ledger.counts["files read"] += 1

    def read_entity(self, tenant: Tenant, name: str, data: Any) -> None:
        answer = self.ask("GET", f"{WORKSPACES}/{tenant.name}/entities/sample/{name}", of=tenant)
        if answer and answer.json()["data"] != data:
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
            {"name": "main", "executor": {**_SUBPROCESS, "command": ["true"]}},
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
