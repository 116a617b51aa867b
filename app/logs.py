"""Structured logs: a constant event, data as fields."""

import logging
import sys
import traceback
from typing import Any, cast

import psycopg
import structlog
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor

from app.config import Settings
from app.terminal import printable


def configure_logs(settings: Settings) -> None:
    """Write our events and those of all libraries to standard error in one format."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: Processor = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else _console_renderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_traceback),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # At every start it would name each plug-in that it has.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def _console_renderer() -> Processor:
    # Names, paths and messages of users are in lines, and in the errors of libraries.
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def render(logger: Any, name: str, event: EventDict) -> str:
        return printable(str(plain(logger, name, event)))

    return render


def _traceback(exc_info: ExcInfo) -> str:
    """The traceback as Python prints it, oldest cause first, without the values that users sent."""
    error: BaseException | None = exc_info[1]
    lines: list[str] = []
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        lines[:0] = [frames, f"{type(error).__qualname__}: {without_values(error)}"]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(line for line in lines if line)


def without_values(error: BaseException) -> str:
    """The message of `error` without any values that were to be stored: they may be a user's secrets."""
    if isinstance(error, ValidationError):
        places = {".".join(map(str, one["loc"])) for one in error.errors(include_input=False)}
        return f"{error.title}: {', '.join(sorted(places))}"
    refused = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(refused, psycopg.Error) and refused.sqlstate:
        # PostgreSQL puts whole rows into the detail; in class 22, data exceptions, it puts values into the message.
        message = None if refused.sqlstate.startswith("22") else refused.diag.message_primary
        return f"{refused.sqlstate} {message or type(refused).__name__}"
    return str(refused)


def explain(error: BaseException) -> str:
    """One line for people: what happened, without a stack trace, a statement or a value that was to be stored."""
    text = " ".join(without_values(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module, whose `__name__` is the argument."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))
