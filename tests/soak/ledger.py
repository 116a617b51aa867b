"""What customers were told, which is what must be there at the end."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Run:
    """A job or a server that was accepted. Its command lines contain `word`."""

    name: str
    word: str
    is_long: bool = True
    is_cancelled: bool = False


@dataclass(eq=False)
class Tenant:
    """A workspace that was created, and what was accepted for it. Filled by one customer."""

    id: str
    name: str
    entities: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: list[Run] = field(default_factory=list)
    servers: list[Run] = field(default_factory=list)
    is_doomed: bool = False
    """Set before its DELETE is sent: from then on it may be gone."""
    deletion: str | None = None
    """Set when its DELETE was answered: from then on it must go."""


class Ledger:
    """All workspaces, and all that was wrong. Customers write to it side by side."""

    def __init__(self) -> None:
        self.tenants: list[Tenant] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Answers, and things found, for which no fault is an excuse."""
        self.free_names: list[str] = []
        """Of workspaces whose DELETE was answered."""

    def living(self) -> list[Tenant]:
        """The workspaces that nobody has asked to delete."""
        return [tenant for tenant in self.tenants if not tenant.is_doomed]

    def running(self) -> dict[str, tuple[Tenant, Run]]:
        """By word: the long jobs and the servers that nobody has asked to end."""
        return {
            run.word: (tenant, run)
            for tenant in self.living()
            for run in (*tenant.jobs, *tenant.servers)
            if run.is_long and not run.is_cancelled
        }
