"""Platforms that jig knows: `jig context list` and `use`."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from jig.contexts import contexts_path, read_contexts, write_contexts
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.tables import columns


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


def use(
    name: Annotated[str, Parameter(help="As `jig context list` shows it.")], *, options: Globals = DEFAULTS
) -> None:
    """Make a context the current one."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path).using(name)
    write_contexts(path, contexts)
    base_url = contexts.contexts[name].base_url
    session.output.result({"current": name, "base_url": base_url}, f"Now at {name}, {base_url}.")
