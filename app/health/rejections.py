"""Messages that a worker takes from the broker and does not carry out, because no program of ours has sent them."""

from threading import Lock

from app.logs import get_logger

log = get_logger(__name__)


class Rejections:
    """Counts them until they are noted in the database. One per process, thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._number = 0

    def reject(self, queue: str, reason: str) -> None:
        """Count a message of `queue`, and log why it was rejected."""
        log.warning("message.rejected", queue=queue, reason=reason)
        self.add(1)

    def add(self, number: int) -> None:
        """Count so many that are in the log already."""
        with self._lock:
            self._number += number

    def take(self) -> int:
        """The number since the last call."""
        with self._lock:
            number, self._number = self._number, 0
            return number


rejections = Rejections()
"""Those of this process."""
