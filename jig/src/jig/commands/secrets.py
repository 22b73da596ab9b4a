"""Values that only replicas see: `jig secrets set`, `redeploy`, `unset`, `delete` and `list`."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from jig.bundle.packed import leave_out_hint, packed_path
from jig.config.model import Config
from jig.errors import NotFoundError, UsageError
from jig.options import PROJECT_DEFAULTS, Duration, ProjectGlobals, Yes
from jig.secrets import SECRETS, full_name, kept_secrets, shown_time
from jig.session import Session
from jig.state import State
from jig.tables import columns
from jig.units import SECONDS_PER_DAY, duration_text, moment

STDIN = Path("-")
OPEN_STDIN = Path("/proc/self/fd/0")
MIN_TTL_DAYS, MAX_TTL_DAYS = 1, 14  # what the platform takes
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VALUE = "The value. Others on this machine can read it here."
FILE = "Read the value from this file; - is standard input."
NEXT_DEPLOY = "Replicas have it from the next `jig deploy` on."
Variable = Annotated[str, Parameter(name="--name", help="The variable that holds it.")]


def set_secret(
    name: Variable,
    *,
    value: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=VALUE)] = None,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True, help=FILE)] = None,
    description: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="One line for people.")] = None,
    ttl: Annotated[Duration | None, Parameter(help="Delete it after so long, 1d to 14d.")] = None,
    redeploy: Annotated[
        bool, Parameter(negative=(), show_default=False, help="Replace the replicas that use it.")
    ] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Set a secret of this project. The value is asked for, or read from standard input."""
    session = Session(options)
    config = session.config
    if not VARIABLE_NAME.fullmatch(name):
        raise UsageError(f"{name} cannot be a variable's name.", hint="Use letters, digits and _, no digit first.")
    body = {
        "name": full_name(config.name, name),
        "value": read_value(name, value, file),
        "description": description,
        "ttl_seconds": None if ttl is None else check_ttl(ttl),
        "redeploy": redeploy,
    }
    secret, verb = put(session, {key: given for key, given in body.items() if given is not None})
    keep(session, config, {**known(session, config), name: full_name(config.name, name)})
    session.output.result(secret, f"{name} is {verb}.")
    if expires_at := moment(secret.get("expires_at")):
        session.output.note(f"It expires at {shown_time(expires_at)} and is deleted then.")
    session.output.note(what_next(name, secret, is_used=verb == "changed" and not redeploy))
    source = None if value is not None else source_file(file)
    if source is not None and (path := packed_path(config, source)):
        session.output.warn(leave_out_hint(path))


def redeploy(name: Variable, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Replace the replicas that use a secret, so that they have its present value."""
    session = Session(options)
    config = session.config
    named = {each.name: each.secret for each in config.deploy.environment_variables if each.secret}
    full = {**named, **known(session, config)}.get(name) or full_name(config.name, name)
    secret = session.client.patch(one(full), {"redeploy": True})
    users = ", ".join(secret.get("redeployed") or [])
    session.output.result(
        secret, f"Replicas of {users} are being replaced." if users else f"No deployment uses {name}."
    )
    session.output.note(f"The new ones have {name} as it is now." if users else NEXT_DEPLOY)


def unset(name: Variable, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Leave a secret out of the next deploy; the platform keeps it."""
    session = Session(options)
    config = session.config
    secrets = known(session, config)
    if name not in secrets:
        raise UsageError(f"{name} is no secret of this project.", hint="See which are: jig secrets list")
    keep(session, config, {other: secret for other, secret in secrets.items() if other != name})
    session.output.result(
        {"name": name, "unset": True}, f"{name} is left out from the next `jig deploy` on; the platform keeps it."
    )


def delete(name: Variable, *, yes: Yes = False, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Delete a secret on the platform, and leave it out of the next deploy."""
    session = Session(options)
    config = session.config
    secrets = known(session, config)
    full = secrets.get(name) or full_name(config.name, name)
    answer = delete_there(session, name, full, is_known=name in secrets, yes=yes)
    keep(session, config, {other: secret for other, secret in secrets.items() if other != name})
    session.output.result(answer, f"{name} is deleted." if answer["deleted"] else f"{name} was deleted already.")
    if users := answer.get("used_by"):
        session.output.warn(f"Replicas of {', '.join(users)} can not be started any more before the next `jig deploy`.")


def delete_there(session: Session, name: str, full: str, *, is_known: bool, yes: bool) -> dict[str, Any]:
    """Delete a secret on the platform, after asking; what the platform answers.

    Raises:
        NotFoundError: it is not there, and no secret of this project either.
    """
    try:
        session.client.get(one(full))
        users = [] if yes else users_of(session, full)
        session.confirm(f"Delete {name}, used by {', '.join(users)}?" if users else f"Delete {name}?", yes=yes)
        answer: dict[str, Any] = session.client.delete(one(full))
    except NotFoundError:
        if not is_known:
            raise
        answer = {"name": full, "deleted": False}
    return answer


def users_of(session: Session, full: str) -> list[str]:
    """The names of the deployments that use a secret."""
    return [
        str(deployment["name"])
        for deployment in session.client.get("/v1/deployments")["data"]
        if any(each.get("value_from_secret") == full for each in deployment.get("environment_variables") or [])
    ]


def list_secrets(*, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """List this project's secrets, and whether the next deploy has them."""
    session = Session(options)
    name = session.config.name
    answer = session.client.get(SECRETS)
    kept = known(session, session.config)
    prefix = full_name(name, "")
    there = {each["name"]: each for each in answer["data"]}
    names = {**{each.removeprefix(prefix): each for each in there if each.startswith(prefix)}, **kept}
    rows = [row(variable, secret, there, kept) for variable, secret in sorted(names.items())]
    document = {
        "object": "list",
        "data": [{**there.get(full, {"name": full}), "variable": v} for v, full in names.items()],
    }
    text = (
        columns(("NAME", "STATE", "EXPIRES", "DESCRIPTION"), rows)
        if rows
        else "No secrets. Set one: jig secrets set NAME"
    )
    session.output.result(document, text)


def row(variable: str, full: str, there: Mapping[str, Any], kept: Mapping[str, str]) -> tuple[str, ...]:
    """One line of the list."""
    secret = there.get(full, {})
    expires_at = moment(secret.get("expires_at"))
    state = "missing on the platform" if not secret else "set" if variable in kept else "not in this project"
    return (
        variable,
        state,
        shown_time(expires_at) if expires_at else "never" if secret else "-",
        secret.get("description") or "",
    )


def read_value(name: str, value: str | None, file: Path | None) -> str:
    """The value: from the command line, a file, standard input, or a person without echo.

    Raises:
        UsageError: it is given twice, or not at all, or cannot be read.
    """
    if value is not None and file is not None:
        raise UsageError("--value and --file exclude each other.")
    if value:
        return value
    if value is not None:
        raise empty(name)
    try:
        if file is not None and file != STDIN:
            content = file.read_bytes()
        elif file is None and sys.stdin.isatty():
            if typed := getpass(f"Value of {name}: "):
                return typed
            raise empty(name)
        else:
            content = sys.stdin.buffer.read()
        text = content.decode()  # as it is, ends of lines included
    except (OSError, UnicodeDecodeError) as error:
        source = "standard input" if file in (None, STDIN) else file
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageError(f"The value cannot be read from {source}: {why}.") from error
    text = text.removesuffix("\n").removesuffix("\r")  # `echo` and editors end with a line's end that nobody means
    if not text:
        raise empty(name)
    return text


def source_file(file: Path | None) -> Path | None:
    """Where a value lies that is read from a file, or from a standard input that is one; None of any other."""
    if file is not None and file != STDIN:
        return file
    with contextlib.suppress(OSError):  # there is no /proc everywhere
        source = OPEN_STDIN.readlink()
        return source if source.is_file() else None
    return None


def empty(name: str) -> UsageError:
    """The error for a value without a character."""
    return UsageError("The value is empty.", hint=f'Pipe it in: printf %s "$VALUE" | jig secrets set {name}')


def check_ttl(seconds: float) -> int:
    """The seconds of `--ttl`, whole.

    Raises:
        UsageError: the platform takes none so short or so long.
    """
    if not MIN_TTL_DAYS <= seconds / SECONDS_PER_DAY <= MAX_TTL_DAYS:
        raise UsageError(f"--ttl {duration_text(int(seconds))}: it must be {MIN_TTL_DAYS}d to {MAX_TTL_DAYS}d.")
    return int(seconds)


def put(session: Session, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Change a secret, or make it; and which of the two."""
    try:
        return session.client.patch(one(body["name"]), body), "changed"
    except NotFoundError:
        return session.client.post(SECRETS, body), "set"


def what_next(name: str, secret: Mapping[str, Any], *, is_used: bool) -> str:
    """When replicas get the value; `is_used` where some may run with an earlier one."""
    if users := secret.get("redeployed"):
        return f"Replicas of {', '.join(users)} are being replaced; the new ones have it."
    if not is_used:
        return NEXT_DEPLOY
    return (
        "Replicas that start from now on have it; those that run keep what they have. "
        f"To replace those: jig secrets redeploy {name}"
    )


def known(session: Session, config: Config) -> dict[str, str]:
    """The project's secrets, by variable."""
    return kept_secrets(session.client, State(config.directory, config.name), config.name)


def keep(session: Session, config: Config, secrets: Mapping[str, str]) -> None:
    """Remember them; a folder that cannot be written is a matter for a warning, as the platform has done its part."""
    try:
        State(config.directory, config.name).keep_secrets(secrets)
    except OSError as error:
        session.output.warn(f"The project's secrets could not be remembered in {config.directory}: {error.strerror}.")


def one(name: str) -> str:
    """The path of a secret."""
    return f"{SECRETS}/{quote(name, safe='')}"
