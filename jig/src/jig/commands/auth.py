"""Keys: `jig auth login`, `logout` and `status`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from getpass import getpass
from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.contexts import (
    DEFAULT_BASE_URL,
    Context,
    Target,
    context_name,
    contexts_path,
    normal_base_url,
    read_contexts,
    write_contexts,
)
from jig.errors import ContextError, UsageError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.tables import fields

API_KEY_STDIN = "Read the key from standard input instead of asking for it."


def login(
    *,
    base_url: Annotated[str | None, Parameter(help="The platform. [default: the current one]")] = None,
    api_key_stdin: Annotated[bool, Parameter(negative=(), show_default=False, help=API_KEY_STDIN)] = False,
    options: Globals = DEFAULTS,
) -> None:
    """Check an API key and remember it for a platform."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path)
    url = normal_base_url(base_url) if base_url else current_url(session)
    key = read_key(url, from_stdin=api_key_stdin)
    with Client(Target(base_url=url, api_key=key, source="login")) as client:
        identity = client.get("/v3/whoami")
    name = context_name(url)
    write_contexts(path, contexts.with_context(name, Context(base_url=url, api_key=key)))
    document = {"context": name, "base_url": url, "identity": identity}
    session.output.result(document, f"Logged in to {url} as {who(identity)}; the key is in {path}.")


def logout(*, options: Globals = DEFAULTS) -> None:
    """Forget the current context's key."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path)
    name = contexts.current
    if name is None or name not in contexts.contexts:
        raise ContextError("You are not logged in.")
    write_contexts(path, replace(contexts.without(name), current=None))
    session.output.result({"context": name, "logged_in": False}, f"The key of context {name} is forgotten.")


def status(*, options: Globals = DEFAULTS) -> None:
    """Show which platform is used, with which key."""
    session = Session(options)
    identity = session.client.get("/v3/whoami")
    target = session.target
    pairs = [
        ("Platform", target.base_url),
        ("From", target.source),
        ("Organization", named(identity, "organization")),
        ("Project", named(identity, "project")),
        ("Key", str((identity.get("api_key") or {}).get("id", ""))),
    ]
    document = {"base_url": target.base_url, "source": target.source, "identity": identity}
    session.output.result(document, fields((key, value) for key, value in pairs if value))


def current_url(session: Session) -> str:
    """The platform in force, or the one on this machine."""
    return session.target.base_url or DEFAULT_BASE_URL


def read_key(base_url: str, *, from_stdin: bool) -> str:
    """The key from a person, without echo, or from standard input.

    Raises:
        UsageError: it is empty, or nobody can be asked.
    """
    if from_stdin:
        key = sys.stdin.readline().strip()
    elif sys.stdin.isatty():
        key = getpass(f"API key for {base_url}: ").strip()
    else:
        raise UsageError("Nobody can be asked for a key here.", hint="Pipe it in: jig auth login --api-key-stdin")
    if not key:
        raise UsageError("The key is empty.")
    return key


def who(identity: Mapping[str, Any]) -> str:
    """The project and organization of a key."""
    return f"{named(identity, 'project')} of {named(identity, 'organization')}"


def named(identity: Mapping[str, Any], part: str) -> str:
    """The name of the organization or the project."""
    thing = identity.get(part) or {}
    return str(thing.get("name") or thing.get("id") or "-")
