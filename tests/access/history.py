"""A history of requests and answers, and the check that it is consistent.

A role takes effect at some time during the request that grants it and ends at some time during the request that
revokes it. So a request may succeed only if it overlaps a time in which its sender may have had a role, and it must
succeed if the sender had one from before it began until it ended.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from uuid import UUID

BEYOND_GUESTS = frozenset({"steal", "destroy"})
"""Actions that guests try although none of their roles permits them."""


@dataclass
class Request:
    """One request, in seconds of one clock. `life` is the id of the workspace it reached, once that is known."""

    who: str
    name: str
    what: str
    start: float
    end: float = inf
    status: int = 0
    life: UUID | None = None

    @property
    def has_succeeded(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        return f"[{self.start:.4f}, {self.end:.4f}] {self.who} {self.what} {self.name} -> {self.status} ({self.life})"


@dataclass
class Hold:
    """A role of a principal in one life of a name: the begin and end of the grant and of the revocation."""

    asked: float
    granted: float = inf
    leaving: float = inf
    gone: float = inf


@dataclass
class History:
    """Everything that happened; threads append to it."""

    requests: list[Request] = field(default_factory=list)
    holds: dict[tuple[UUID, str], list[Hold]] = field(default_factory=lambda: defaultdict(list))
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def asking(self, who: str, name: str, what: str) -> Iterator[Request]:
        """Time a request, and log it with its answer."""
        request = Request(who, name, what, time.monotonic())
        yield request
        request.end = time.monotonic()
        with self._guard:
            self.requests.append(request)

    def granted(self, life: UUID, who: str, request: Request) -> None:
        with self._guard:
            self.holds[life, who].append(Hold(request.start, request.end))

    def taken(self, life: UUID, who: str, request: Request) -> None:
        with self._guard:
            for hold in self.holds[life, who][-1:]:
                hold.leaving, hold.gone = min(hold.leaving, request.start), min(hold.gone, request.end)

    def ended(self, life: UUID, request: Request) -> None:
        """DELETE was answered: every role in that life has ended."""
        for holder, who in list(self.holds):
            if holder == life:
                self.taken(life, who, request)

    def unlawful(self) -> list[str]:
        """Requests that succeeded although their sender had no role in the workspace that they reached."""
        return [
            str(one)
            for one in self.requests
            if one.has_succeeded
            and one.life is not None
            and not any(
                hold.asked <= one.end and one.start <= hold.gone for hold in self.holds[one.life, one.who]
            )
        ]

    def refused_wrongly(self) -> list[str]:
        """Requests that were refused although their sender had a role from before they began until they ended."""
        by_name: dict[tuple[str, str], list[Hold]] = defaultdict(list)
        lives = {one.life: one.name for one in self.requests if one.what == "create" and one.has_succeeded}
        for (life, who), holds in self.holds.items():
            by_name[lives[life], who] += holds
        return [
            str(one)
            for one in self.requests
            if one.status in {401, 403, 404}
            and one.what not in BEYOND_GUESTS
            and any(
                hold.granted < one.start and one.end < hold.leaving for hold in by_name[one.name, one.who]
            )
        ]
