"""A bell that remembers instead of sending."""

from dataclasses import dataclass, field

from app.dispatch import Message


@dataclass
class RecordingPublisher:
    """Stands in for the dispatcher where the broker is not the subject."""

    published: list[Message] = field(default_factory=list)

    def publish(self, message: Message) -> None:
        self.published.append(message)
