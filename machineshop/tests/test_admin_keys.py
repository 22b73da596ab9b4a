"""Admin keys of servers that share a database."""

import asyncio

import pytest

from machineshop.errors import InvalidRequest, NotAuthenticated
from machineshop.services.identity import IdentityService
from machineshop.store.database import Database

FIRST, SECOND, GIVEN = "the-first-servers-own-key", "the-second-servers-own-key", "the-key-given-to-all-of-them"


async def test_keys_that_servers_have_made_stand_side_by_side(identity: IdentityService) -> None:
    await identity.ensure_admin(FIRST, alone=False)
    await identity.ensure_admin(SECOND, alone=False)
    await identity.authenticate(FIRST)
    await identity.authenticate(SECOND)


async def test_one_that_was_given_takes_the_place_of_all(identity: IdentityService, database: Database) -> None:
    await identity.ensure_admin(FIRST, alone=False)
    await identity.ensure_admin(GIVEN)
    with pytest.raises(NotAuthenticated):
        await IdentityService(database).authenticate(FIRST)
    await identity.ensure_admin(GIVEN)


async def test_one_that_was_revoked_is_not_made_valid_again(identity: IdentityService) -> None:
    await identity.ensure_admin(FIRST)
    await identity.revoke_key(FIRST[:10])
    with pytest.raises(InvalidRequest, match="was revoked"):
        await identity.ensure_admin(FIRST)
    await identity.ensure_admin(SECOND)


async def test_servers_that_start_at_once_make_one_default_project(database_url: str, database: Database) -> None:
    others = [Database(database_url) for _ in range(4)]
    for other in others:
        other.start()
    made = await asyncio.gather(*(IdentityService(other).ensure_admin(GIVEN) for other in others))
    assert len({identity.project.id for identity in made}) == 1
    for other in others:
        await asyncio.to_thread(other.close)
