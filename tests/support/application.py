"""What tests share of the product in one process, because making it takes longer than most of them."""

from functools import cache

from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from app.api.application import assemble, serve
from app.config import Settings
from app.context import Context
from app.db import connect, sessions_of
from app.logs import configure_logs
from tests.support.publisher import RecordingPublisher
from tests.support.store import store_of

_assembled = cache(assemble)


def answering_from(context: Context) -> Flask:
    """This process's application, which from now on answers out of `context`.

    A test that needs two at the same time makes them with `create_app`.
    """
    configure_logs(context.settings)
    app = _assembled(trusted_proxies=context.settings.trusted_proxies)
    serve(app, context)
    return app


class Engines:
    """The product's engines of this process: tests whose settings agree in what an engine is made of share one."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Engine] = {}

    def of(self, settings: Settings) -> Engine:
        """The engine that the product would make for these settings."""
        key = (settings.database_url, settings.database_pool_size, settings.statement_timeout_seconds)
        if key not in self._made:
            self._made[key] = connect(settings)
        return self._made[key]

    def context_of(self, settings: Settings, publisher: RecordingPublisher) -> Context:
        """The connections of these settings, with a store that the pristine database knows."""
        sessions = sessions_of(self.of(settings))
        return Context(
            settings=settings, sessions=sessions, store=store_of(settings, sessions), publisher=publisher
        )

    def tidy(self) -> None:
        """Give up those whose connections somebody has kept."""
        for key, engine in list(self._made.items()):
            if isinstance(engine.pool, QueuePool) and engine.pool.checkedout():
                engine.dispose()
                del self._made[key]

    def close(self) -> None:
        """End all connections."""
        for engine in self._made.values():
            engine.dispose()
