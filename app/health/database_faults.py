"""Why the database does not serve, in the words of logs, clients and `/status`."""

from enum import Enum

from sqlalchemy.exc import DBAPIError


class DatabaseFault(Enum):
    """What is wrong with the database, as the end of a sentence about it. It names no host, user or statement."""

    REFUSED = "refuses connections"
    WRONG = "is not the one of the settings: its address, its name or the login is wrong"
    NO_CONNECTION = "has no connection left"
    FULL = "has no space left"
    SILENT = "did not answer in time"


_BY_SQLSTATE = {
    "28": DatabaseFault.WRONG,
    "3D": DatabaseFault.WRONG,
    "57P0": DatabaseFault.REFUSED,
    "53300": DatabaseFault.NO_CONNECTION,
    "53100": DatabaseFault.FULL,
}
"""By how the code of an error of a statement begins."""

_BY_WORDS = {
    "too many clients": DatabaseFault.NO_CONNECTION,
    "too many connections": DatabaseFault.NO_CONNECTION,
    "connection slots": DatabaseFault.NO_CONNECTION,
    "does not exist": DatabaseFault.WRONG,
    "authentication failed": DatabaseFault.WRONG,
    "no password supplied": DatabaseFault.WRONG,
    "no pg_hba.conf entry": DatabaseFault.WRONG,
    "resolve host": DatabaseFault.WRONG,
    "translate host name": DatabaseFault.WRONG,
    "refused": DatabaseFault.REFUSED,
    "No such file": DatabaseFault.REFUSED,
    "starting up": DatabaseFault.REFUSED,
    "shutting down": DatabaseFault.REFUSED,
    "closed the connection": DatabaseFault.REFUSED,
}
"""By words of its text: a connection that fails has no code."""


def fault_of(error: Exception) -> DatabaseFault:
    """What an error of a connection or a statement says about the database; SILENT if it says nothing."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate:
        found = (fault for start, fault in _BY_SQLSTATE.items() if sqlstate.startswith(start))
    else:
        text = str(cause)
        found = (fault for words, fault in _BY_WORDS.items() if words in text)
    return next(found, DatabaseFault.SILENT)
