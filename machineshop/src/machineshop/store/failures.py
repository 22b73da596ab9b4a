"""The database's failures in the platform's words."""

import sqlite3

from machineshop.errors import InvalidRequest, StoreUnavailable

_POSTGRES_DISK_FULL = "53100"


def unavailable(error: BaseException) -> StoreUnavailable:
    """The answer where the database failed and nothing was changed."""
    answer = StoreUnavailable(f"The database cannot be used now ({first_line(error)}). Nothing was changed; try again.")
    answer.is_undone = _is_full(error)
    return answer


def refused_value(error: BaseException) -> InvalidRequest:
    """The answer where the database cannot keep a value that was sent."""
    return InvalidRequest(f"A value in the request cannot be kept: {first_line(error)}.")


def _is_full(error: BaseException) -> bool:
    """Whether the database had no room for the transaction, and has taken it back as a whole."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _POSTGRES_DISK_FULL


def first_line(error: BaseException) -> str:
    """What the driver says, in one line."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].strip().rstrip(".")
