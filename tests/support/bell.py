"""A bell that remembers instead of sending."""

from dataclasses import dataclass, field

from app.dispatch import Message


@dataclass
class RecordingBell:
    """Stands in for the dispatcher where the broker is not the subject."""

    rung: list[Message] = field(default_factory=list)

    def ring(self, message: Message) -> None:
        self.rung.append(message)
