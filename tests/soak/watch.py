"""How long maintenance is silent, by the database's clock and past all proxies."""

import threading
import time
from contextlib import suppress
from typing import Self

from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from app.clock import seconds_since
from app.models import MaintenanceStep


class SilenceWatch:
    """Looks twice a second how long ago the step of the sweep was that is silent for longest, for a `with` block."""

    def __init__(self, database_url: str) -> None:
        self.longest_s = 0.0
        """Without the times that were excused."""
        self._engine = create_engine(database_url, pool_pre_ping=True)
        self._excused_until = time.monotonic()
        self._is_excused = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="SilenceWatch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._engine.dispose()

    def excuse(self, *, is_excused: bool) -> None:
        """Silence cannot be helped from now on; or, if it can be again, it counts from now on."""
        self._is_excused, self._excused_until = is_excused, time.monotonic()

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            with suppress(SQLAlchemyError):  # the database is killed
                self._look()

    def _look(self) -> None:
        looked_at = time.monotonic()
        with self._engine.connect() as connection:
            silent_s = connection.scalar(select(func.max(seconds_since(MaintenanceStep.last_success_at))))
        counts_s = looked_at - self._excused_until
        if silent_s is not None and not self._is_excused:
            self.longest_s = max(self.longest_s, min(silent_s, counts_s))
