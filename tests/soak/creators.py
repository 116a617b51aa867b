"""Customers that create: workspaces, and everything in them."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

from tests.soak.customers import SUBPROCESS, WORKSPACES, Customer, file_url
from tests.soak.ledger import Ledger, Run, Tenant
from tests.support.processes import NewWord, stubborn_server

MOST_TENANTS, MOST_LONG_JOBS, MOST_SERVERS = 16, 8, 4
CREATES, SUCCESSORS = 0.1, 0.5
"""How often a creator creates a workspace, and gives it the name of one that is being deleted."""
SIZES = (0, 1, 500, 20_000, 300_000)


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

    def _new_name(self, of: str) -> str:
        """A name that nobody else gives: what is sent to a workspace may reach the next one of its name."""
        return f"{of}-{self._name}-{next(self._numbers)}"

    def create(self) -> None:
        name = self._new_name("workspace")
        if self.random.random() < SUCCESSORS:
            with suppress(IndexError):  # no name is free
                name = self.ledger.free_names.pop()
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
        name, data = self._new_name("entity"), {"value": self.random.random()}
        path = f"{WORKSPACES}/{tenant.name}/entities/sample"
        if self.ask("POST", path, of=tenant, json={"name": name, "data": data}):
            tenant.entities[name] = data
            self.ledger.counts["entities created"] += 1

    def add_file(self, tenant: Tenant) -> None:
        path, content = f"d/{self._new_name('file')}", self.random.randbytes(self.random.choice(SIZES))
        if self.ask("PUT", file_url(tenant, path), of=tenant, content=content):
            tenant.files[path] = content
            self.ledger.counts["files stored"] += 1

    def submit(self, tenant: Tenant) -> None:
        """Submit a job. Each attempt leaves a line in a file outside the product: none may be made twice."""
        is_long = self.random.random() < 0.3
        long_jobs = sum(run in one.jobs for one, run in self.ledger.running().values())
        if is_long and long_jobs >= MOST_LONG_JOBS:
            return
        run = Run(self._new_name("job"), self._new_word(), is_long)
        leave = f"echo {run.word} >> '{self._marks / run.word}'"
        seconds = self.random.uniform(0, 4)
        short = f'sleep {seconds:.1f}; echo {run.word} > "$WORKSPACES_RESULTS_DIR/word"'
        script = f"{leave}; " + (f"exec sleep {run.word}" if is_long else short)
        step = {"name": "main", "executor": {**SUBPROCESS, "command": ["sh", "-c", script]}}
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
        run = Run(self._new_name("server"), self._new_word())
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
