"""A publisher that records messages instead of sending them, and refuses those inside a transaction.

A worker may receive a message at once. Sent before the commit, it would find the row as it was.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from app.dispatch import Message

_open: WeakKeyDictionary[SessionTransaction, int] = WeakKeyDictionary()
"""The open transactions of sessions that come from a `sessionmaker`, as the product's do, with their threads."""


def _note_begin(session: Session, transaction: SessionTransaction) -> None:
    if type(session) is not Session:  # A test that looks into the database makes a plain Session.
        _open[transaction] = threading.get_ident()


def _note_end(session: Session, transaction: SessionTransaction) -> None:
    _open.pop(transaction, None)


event.listen(Session, "after_transaction_create", _note_begin)
event.listen(Session, "after_transaction_end", _note_end)


@dataclass
class RecordingPublisher:
    """Takes the place of BackgroundPublisher in tests that need no broker."""

    published: list[Message] = field(default_factory=list)
    too_early: list[Message] = field(default_factory=list)
    """Messages that were published inside a transaction; the fixture fails if there are any."""
    empty_queues: set[str] = field(default_factory=set)
    """Queues that are known to be empty."""

    def publish(self, message: Message) -> None:
        if threading.get_ident() in list(_open.values()):
            self.too_early.append(message)
            raise AssertionError(f"{message} inside a transaction: use notify_after_commit")
        self.published.append(message)

    def ping(self) -> None:
        pass

    def is_empty(self, queue: str) -> bool:
        return queue in self.empty_queues

    def lengths(self) -> dict[str, int]:
        return dict(Counter(message.queue for message in self.published))


@contextmanager
def recording() -> Iterator[RecordingPublisher]:
    """A publisher that must have been given nothing inside a transaction by the end."""
    publisher = RecordingPublisher()
    yield publisher
    assert not publisher.too_early, "published inside a transaction: use notify_after_commit"
