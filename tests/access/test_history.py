"""Many clients at once, while workspaces are deleted and created again under the same names by others."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.config import Settings
from app.models import Entity, Fileset, Project
from tests.access.history import BEYOND_GUESTS, History, Request
from tests.support.people import announced
from tests.support.search import examples

NAMES = ("north", "south")
GUESTS = ("ann", "bob", "cyd", "dee")
LIVES = examples(short=8, long=15)
"""How often each name is given up and taken again."""
BREATHS = 12
"""Requests of guests that an owner lets pass before it changes something again."""
W = "/apis/entities/v2/workspaces"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"database_pool_size": 12, "burst_deletions": 0})


class Play:
    """Owners that come and go, guests that try everything all the time, and the log of it."""

    def __init__(self, app: Flask, seed: int) -> None:
        self.app, self.seed = app, seed
        self.history = History()
        self.is_over = threading.Event()
        self.numbers = count()
        self.requests_of_guests = 0
        self.moved = threading.Condition()

    def own(self, name: str) -> None:
        """Make a workspace, let guests in and out, delete it; again and again, as somebody else each time."""
        client, dice = self.app.test_client(), random.Random(f"{self.seed} {name}")
        for life_number in range(LIVES):
            owner = f"owner-{life_number}-of-{name}"
            with self.history.asking(owner, name, "create") as made:
                answer = client.post(W, json={"name": name}, headers=announced(owner))
                assert answer.status_code == 201, answer.text
                made.status, made.life = 201, UUID(answer.json["id"])
            self.history.granted(made.life, owner, made)
            guests = dice.sample(GUESTS, k=3)
            for guest in guests:
                self._grant(client, owner, name, made.life, guest)
            self._let_pass(BREATHS)
            for guest in dice.sample(guests, k=2):
                with self.history.asking(owner, name, f"revoke {guest}") as revoked:
                    revoked.status = client.delete(
                        f"{W}/{name}/members/{guest}", headers=announced(owner)
                    ).status_code
                assert revoked.status == 200
                self.history.taken(made.life, guest, revoked)
            self._let_pass(BREATHS)
            with self.history.asking(owner, name, "delete") as deleted:
                deleted.status = client.delete(f"{W}/{name}", headers=announced(owner)).status_code
            assert deleted.status == 200
            self.history.ended(made.life, deleted)

    def _grant(self, client, owner: str, name: str, life: UUID, guest: str) -> None:
        with self.history.asking(owner, name, f"grant {guest}") as granted:
            answer = client.post(
                f"{W}/{name}/members",
                json={"principal": guest, "roles": ["Editor"]},
                headers=announced(owner),
            )
            granted.status = answer.status_code
        assert granted.status == 201, answer.text
        self.history.granted(life, guest, granted)

    def _let_pass(self, requests: int) -> None:
        with self.moved:
            expected = self.requests_of_guests + requests
            assert self.moved.wait_for(lambda: self.requests_of_guests >= expected, timeout=60)

    def visit(self, guest: str) -> None:
        """Read and write wherever it comes, until the play is over."""
        client, dice = self.app.test_client(), random.Random(f"{self.seed} {guest}")
        while not self.is_over.is_set():
            name, new = dice.choice(NAMES), f"m{next(self.numbers)}"
            what, method, path, body = dice.choice(
                [
                    ("read", "GET", f"{W}/{name}", None),
                    (f"project {new}", "POST", f"{W}/{name}/projects", {"name": new}),
                    (f"entity {new}", "POST", f"{W}/{name}/entities/t", {"name": new, "data": {}}),
                    (f"fileset {new}", "POST", f"/apis/files/v2/workspaces/{name}/filesets", {"name": new}),
                    ("steal", "POST", f"{W}/{name}/members", {"principal": guest, "roles": ["Admin"]}),
                    ("destroy", "DELETE", f"{W}/{name}", None),
                ]
            )
            with self.history.asking(guest, name, what) as request:
                answer = client.open(path, method=method, json=body, headers=announced(guest))
                request.status = answer.status_code
            if what == "read" and request.has_succeeded:
                request.life = UUID(answer.json["id"])
            with self.moved:
                self.requests_of_guests += 1
                self.moved.notify_all()


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.long)])
def play(app: Flask, session: Session, request: pytest.FixtureRequest) -> Play:
    play = Play(app, seed=request.param)
    with ThreadPoolExecutor(max_workers=len(NAMES) + len(GUESTS)) as pool:
        owners = [pool.submit(play.own, name) for name in NAMES]
        guests = [pool.submit(play.visit, guest) for guest in GUESTS]
        wait(owners)
        play.is_over.set()
        for one in owners + guests:
            one.result()
    _find_lives(session, play.history)
    return play


def _find_lives(session: Session, history: History) -> None:
    """Set the life of each write from the workspace id of the row that it created."""
    session.rollback()
    for model, kind in ((Project, "project"), (Entity, "entity"), (Fileset, "fileset")):
        workspace_ids = dict(session.execute(select(model.name, model.workspace_id)).all())
        for request in history.requests:
            if request.what.startswith(f"{kind} "):
                request.life = workspace_ids.pop(request.what.split()[1], None)
                assert (request.life is not None) == request.has_succeeded, request
        assert not workspace_ids, "these rows come from no request that succeeded"


def test_no_answer_contradicts_what_was_granted_revoked_and_deleted(play: Play) -> None:
    history = play.history

    assert history.unlawful() == []
    assert history.refused_wrongly() == []
    assert [str(one) for one in history.requests if one.status >= 500] == []
    assert [str(one) for one in history.requests if one.what in BEYOND_GUESTS and one.has_succeeded] == []
    _has_seen_enough(history.requests)


def _has_seen_enough(requests: list[Request]) -> None:
    """A history in which nothing happened would prove nothing."""
    seen = Counter((one.what.split()[0], one.has_succeeded) for one in requests)
    for what in ("read", "project", "entity", "fileset"):
        assert seen[what, True] >= LIVES, seen
        assert seen[what, False] >= LIVES, seen
