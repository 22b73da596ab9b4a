"""`machineshop keys`: make, list and revoke API keys."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from machineshop.commands.options import DataDirOption, JsonOption, iso, print_table, with_identity
from machineshop.errors import InvalidRequest, NotFound
from machineshop.lifetimes import parse_lifetime
from machineshop.models import DEFAULT_SLUG, ApiKey, Scope

if TYPE_CHECKING:
    from machineshop.services.identity import IdentityService

PEOPLES_SCOPES = (Scope.ADMIN, Scope.DEVELOPER, Scope.VIEWER)


def create(
    *,
    name: str,
    scope: str = Scope.DEVELOPER,
    project: str = DEFAULT_SLUG,
    expires_in: str | None = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it; it is not shown again.

    Args:
        name: What the key is for.
        scope: admin (everything, and keys), developer (everything but keys) or viewer (look, and change nothing).
        project: The slug of its project, which is made if there is none.
        expires_in: When it ends by itself, as 12h, 90d or 1y; without it, never.
    """
    if scope not in PEOPLES_SCOPES:
        raise InvalidRequest(f"--scope is '{scope}'; it must be one of {', '.join(PEOPLES_SCOPES)}.", param="scope")
    lifetime = None if expires_in is None else parse_lifetime(expires_in)

    async def made(service: IdentityService) -> tuple[bool, ApiKey, str]:
        is_new = all(project != known.slug for known, _ in await service.list_projects())
        return is_new, *await service.create_key(project, name, Scope(scope), lifetime_seconds=lifetime)

    is_new, record, key = with_identity(data_dir, made)
    if is_new:  # perhaps by a slip of the pen
        print(f"The project {project} is new: there was none.", file=sys.stderr)
    if as_json:
        print(json.dumps({**_key_view(record), "key": key}))
    else:
        print(key)


def list_keys(*, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the keys that people use, revoked ones too."""
    records = with_identity(data_dir, lambda service: service.list_keys())
    if as_json:
        print(json.dumps([_key_view(record) for record in records]))
        return
    from rich.table import Table  # noqa: PLC0415 - as `commands` says

    table = Table("KEY", "NAME", "SCOPE", "CREATED", "LAST USED", "STATE", "ID", box=None, pad_edge=False)
    for record in records:
        view = _key_view(record)
        used = view["last_used_at"] or "never"
        table.add_row(
            view["prefix"] + "…", record.name, record.scope, view["created_at"], used, view["state"], record.id
        )
    print_table(table)


def revoke(key: str, *, data_dir: DataDirOption = None) -> None:
    """Revoke a key, which ends within two seconds on a running server.

    Args:
        key: Its id, or its first ten characters as `keys list` prints them.
    """
    try:
        with_identity(data_dir, lambda service: service.revoke_key(key))
    except NotFound as error:
        where = ": say its id, or the beginning that `machineshop keys list` shows"
        raise NotFound(what="valid key", id=key, where=where) from error
    print("revoked")


def _key_view(record: ApiKey) -> dict[str, Any]:
    return {
        "id": record.id,
        "prefix": record.prefix,
        "name": record.name,
        "scope": record.scope,
        "project_id": record.project_id,
        "created_at": iso(record.created_at),
        "expires_at": iso(record.expires_at),
        "last_used_at": iso(record.last_used_at),
        "state": _key_state(record),
    }


def _key_state(record: ApiKey) -> str:
    if record.revoked_at:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= time.time() else "valid"
