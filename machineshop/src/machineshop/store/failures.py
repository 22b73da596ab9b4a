"""The database's failures in the platform's words."""

from machineshop.errors import InvalidRequest, StoreUnavailable


def unavailable(error: BaseException) -> StoreUnavailable:
    """The answer where the database failed and nothing was changed."""
    return StoreUnavailable(f"The database cannot be used now ({first_line(error)}). Nothing was changed; try again.")


def refused_value(error: BaseException) -> InvalidRequest:
    """The answer where the database cannot keep a value that was sent."""
    return InvalidRequest(f"A value in the request cannot be kept: {first_line(error)}.")


def first_line(error: BaseException) -> str:
    """What the driver says, in one line."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].strip().rstrip(".")
