"""Platforms that jig knows: `jig context list`, `use`, `show` and `remove`."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from jig.contexts import Context, Contexts, contexts_path, read_contexts, write_contexts
from jig.errors import ContextError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.tables import columns, fields
from jig.trust import fingerprint

NAME = "As `jig context list` shows it."
KEY_SHOWN_CHARACTERS = 10
"""The first of a key, as the platform lists it by."""


def list_contexts(*, options: Globals = DEFAULTS) -> None:
    """List the platforms that you are logged in to."""
    session = Session(options)
    contexts = read_contexts(contexts_path(os.environ))
    document = {
        "current": contexts.current,
        "contexts": {name: {"base_url": context.base_url} for name, context in contexts.contexts.items()},
    }
    rows = [("*" if name == contexts.current else "", name, item.base_url) for name, item in contexts.contexts.items()]
    text = columns(("", "NAME", "PLATFORM"), rows) if rows else "No contexts. Log in with `jig auth login`."
    session.output.result(document, text)


def use(name: Annotated[str, Parameter(help=NAME)], *, options: Globals = DEFAULTS) -> None:
    """Make a context the current one."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path).using(name)
    write_contexts(path, contexts)
    base_url = contexts.contexts[name].base_url
    session.output.result({"current": name, "base_url": base_url}, f"Now at {name}, {base_url}.")


def show(
    name: Annotated[str | None, Parameter(help=f"{NAME} [default: the current one]")] = None,
    *,
    options: Globals = DEFAULTS,
) -> None:
    """Show a context, without its key."""
    session = Session(options)
    contexts = read_contexts(contexts_path(os.environ))
    name = name or contexts.current
    context = existing(contexts, name)
    authority = fingerprint(context.ca) if context.ca else None
    key = f"{context.api_key[:KEY_SHOWN_CHARACTERS]}..."
    document = {
        "context": name,
        "current": name == contexts.current,
        "base_url": context.base_url,
        "key_prefix": context.api_key[:KEY_SHOWN_CHARACTERS],
        "ca_fingerprint": authority,
    }
    pairs = [("Context", str(name)), ("Platform", context.base_url), ("Key", key), ("Authority", authority or "")]
    session.output.result(document, fields((label, value) for label, value in pairs if value))


def remove(name: Annotated[str, Parameter(help=NAME)], *, options: Globals = DEFAULTS) -> None:
    """Forget a context with its key; the key itself stays valid."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path)
    existing(contexts, name)
    rest = contexts.without(name)
    write_contexts(path, rest)
    now = f" Now at {rest.current}." if contexts.current == name and rest.current else ""
    session.output.result({"removed": name, "current": rest.current}, f"The context {name} is forgotten.{now}")


def existing(contexts: Contexts, name: str | None) -> Context:
    """A context by its name.

    Raises:
        ContextError: there is none of this name.
    """
    if name is None or name not in contexts.contexts:
        asked = "There is no current context." if name is None else f"There is no context {name!r}."
        raise ContextError(f"{asked} Known: {', '.join(contexts.contexts) or 'none'}.")
    return contexts.contexts[name]
