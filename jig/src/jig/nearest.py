"""What may be meant by a name that nothing has."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator

from jig.answers import NO_DEPLOYMENT, NO_JOB
from jig.client import Client
from jig.errors import NotFoundError, PlatformError

NAMES_SHOWN = 10


def meant(name: str, names: Collection[str]) -> str | None:
    """A hint for a name that is none of these: the one that it is close to, else which there are; None without any."""
    if near := difflib.get_close_matches(name, names, n=1):
        return f"Did you mean {near[0]}?"
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    return f"There are: {shown}{', ...' if len(names) > NAMES_SHOWN else ''}." if names else None


@contextlib.contextmanager
def naming(client: Client, name: str) -> Iterator[None]:
    """Within this block, an error about a deployment or a job that does not exist says which deployment may be meant.

    Of a job of a deployment that does not exist the platform says that there is no such job.
    """
    try:
        yield
    except NotFoundError as error:
        if NO_JOB in error.message and (missing := missing_deployment(client, name)):
            error.hint = f"{missing} {error.hint}"
        if NO_DEPLOYMENT in error.message and (near := close_deployment(client, name)):
            error.hint = f"Did you mean {near}? {error.hint}"
        raise


def missing_deployment(client: Client, name: str) -> str | None:
    """A hint for who asks for jobs of a deployment that does not exist, where another one's name is close to it."""
    near = close_deployment(client, name)
    return f"There is no deployment {name}. Did you mean {near}?" if near else None


def close_deployment(client: Client, name: str) -> str | None:
    """The deployment whose name is close to this one, if any that this key may see is; None for one that is there."""
    with contextlib.suppress(PlatformError):
        deployments = client.get("/v1/deployments")["data"]
        if not any(name in (each["name"], each.get("id")) for each in deployments):
            return next(iter(difflib.get_close_matches(name, [str(each["name"]) for each in deployments], n=1)), None)
    return None
