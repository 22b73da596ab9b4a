"""Keys: `jig auth login`, `logout`, `status` and `key`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from getpass import getpass
from itertools import chain, count
from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.config.sections import slug
from jig.contexts import (
    DEFAULT_BASE_URL,
    Context,
    Contexts,
    Target,
    context_name,
    contexts_path,
    known_authority,
    normal_base_url,
    read_contexts,
    write_contexts,
)
from jig.errors import ContextError, PlatformError, UnauthorizedError, UsageError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.tables import fields
from jig.trust import fetch_authority, fingerprint, is_same_fingerprint, is_trusted

NAME = "The context's name. [default: `local` on this machine, else the host, with the project where it is taken]"
API_KEY_STDIN = "Read the key from standard input instead of asking for it."
CA_FINGERPRINT = (
    "Trust the platform's own authority if its SHA-256 fingerprint is this one, instead of asking. The platform prints "
    "it when it starts."
)


def login(
    base_url: Annotated[str | None, Parameter(help="The platform. [default: the current one]")] = None,
    *,
    name: Annotated[str | None, Parameter(help=NAME)] = None,
    api_key_stdin: Annotated[bool, Parameter(negative=(), show_default=False, help=API_KEY_STDIN)] = False,
    ca_fingerprint: Annotated[str | None, Parameter(help=CA_FINGERPRINT)] = None,
    options: Globals = DEFAULTS,
) -> None:
    """Check an API key and remember it for a platform."""
    session = Session(options)
    path = contexts_path(os.environ)
    contexts = read_contexts(path)
    url = normal_base_url(base_url) if base_url else current_url(session)
    ca = authority_of(session, url, known_authority(contexts, url), ca_fingerprint)
    key = read_key(url, from_stdin=api_key_stdin)
    context = Context(base_url=url, api_key=key, ca=ca)
    identity = checked_identity(context)
    is_chosen = name is not None
    name = name or free_name(contexts, context, identity)
    before = contexts.contexts.get(name)
    write_contexts(path, contexts.with_context(name, context))
    document = {"context": name, "base_url": url, "identity": identity}
    session.output.result(document, f"Logged in to {url}, {place_of(identity)}. It is the context {name} of {path}.")
    if before and before != context:
        session.output.note(f"Its key for {before.base_url} is replaced.")
    elif not (is_chosen or before or name == context_name(url)):
        session.output.note("The contexts that there were stay as they are: `jig context list`.")


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
    target, api_key = session.target, identity.get("api_key") or {}
    pairs = [
        ("Platform", target.base_url),
        ("From", target.source),
        ("Organization", named(identity, "organization")),
        ("Project", named(identity, "project")),
        ("Key", str(api_key.get("id", ""))),
        ("Key from", target.key_source or ""),
        ("Scope", str(api_key.get("scope", ""))),
    ]
    places = {"source": target.source, "key_source": target.key_source}
    document = {"base_url": target.base_url, **places, "identity": identity}
    session.output.result(document, fields((key, value) for key, value in pairs if value))


def key(*, options: Globals = DEFAULTS) -> None:
    """Print the API key in use, for other programs."""
    session = Session(options)
    target = session.client.target
    session.output.result({"base_url": target.base_url, "api_key": target.api_key}, str(target.api_key))


def authority_of(session: Session, url: str, known: str | None, expected: str | None) -> str | None:
    """The authority of its own that a platform's certificate is to be verified with; None where it needs none.

    Args:
        session: who is asked.
        url: the platform.
        known: what was trusted for it before.
        expected: the fingerprint of the only one to trust, or None to ask.

    Raises:
        PlatformError: what the platform offers is another one, or does not verify its certificate.
        UsageError: nobody can be asked, or the answer was no.
    """
    if not url.startswith("https:"):
        return None
    if expected is None and is_trusted(url, known):
        return known
    ca = fetch_authority(url)
    found = fingerprint(ca)
    if expected is None:
        ask_about(session, url, found, is_other=known is not None)
    elif not is_same_fingerprint(expected, found):
        message = f"The authority of {url} has another fingerprint: {found}."
        raise PlatformError(message, hint="Compare it with what the platform prints when it starts. No key was sent.")
    if not is_trusted(url, ca):
        message = f"The certificate of {url} is not signed by the authority that it offers, or is for another name."
        raise PlatformError(message, hint="Reach it by a name or an address that its certificate is for.")
    return ca


def ask_about(session: Session, url: str, found: str, *, is_other: bool) -> None:
    """Let a person compare the fingerprint.

    Raises:
        UsageError: nobody can be asked, or the answer was no.
    """
    said = "has another authority than before" if is_other else "has an authority of its own, which nobody knows yet"
    session.output.note(f"{url} {said}. SHA-256 fingerprint:\n  {found}\nThe platform prints it when it starts.")
    if session.output.json or not sys.stdin.isatty():
        raise UsageError(
            "Nobody can be asked whether to trust it here.", hint=f"Compare it, then --ca-fingerprint {found}"
        )
    session.confirm("Trust it?", yes=False)


def checked_identity(context: Context) -> Mapping[str, Any]:
    """Whose key it is.

    Raises:
        UnauthorizedError: nobody's.
    """
    try:
        return whoami(context)
    except UnauthorizedError as error:
        message = f"This key is not valid at {context.base_url}: it is unknown there, or revoked."
        hint = "See that it is whole, and of this platform. Where it runs, `machineshop keys create` makes one."
        raise UnauthorizedError(message if error.status else error.message, status=error.status, hint=hint) from error


def whoami(context: Context) -> Mapping[str, Any]:
    """The organization and the project of a context's key."""
    with Client(Target(context.base_url, context.api_key, "login", context.ca)) as client:
        identity: Mapping[str, Any] = client.get("/v3/whoami")
    return identity


def free_name(contexts: Contexts, context: Context, identity: Mapping[str, Any]) -> str:
    """A name under which nothing else is forgotten: the host's, else with the project, else with a number too."""
    for name, known in contexts.contexts.items():
        if known == context:
            return name
    host = context_name(context.base_url)
    longer = f"{host}-{slug(named(identity, 'project'))}".rstrip("-")
    names = chain([host, longer], (f"{longer}-{number}" for number in count(2)))
    return next(name for name in names if may_replace(contexts.contexts.get(name), identity))


def may_replace(known: Context | None, identity: Mapping[str, Any]) -> bool:
    """True where a context's place is free: there is none, its key is dead, or it is of the same project."""
    if known is None:
        return True
    try:
        theirs = whoami(known)
    except UnauthorizedError:
        return True
    except PlatformError:
        return False  # a platform that does not run now may run again
    return (theirs.get("project") or {}).get("id") == (identity.get("project") or {}).get("id")


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


def place_of(identity: Mapping[str, Any]) -> str:
    """The project and organization of a key."""
    return f"to the project {named(identity, 'project')} of the organization {named(identity, 'organization')}"


def named(identity: Mapping[str, Any], part: str) -> str:
    """The name of the organization or the project."""
    thing = identity.get(part) or {}
    return str(thing.get("name") or thing.get("id") or "-")
