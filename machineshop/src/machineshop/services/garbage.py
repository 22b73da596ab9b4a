"""Garbage collection in the registry: mark what nobody needs, and sweep what nobody has needed for a grace period.

A push is a row of requests over minutes or hours, and each leans on those before: the layers come first, then the
manifest, and the index and the tag last; what a client was told to be there it does not send. So nothing goes as soon
as it is not needed. It is marked, and whoever asks for it meanwhile takes the mark back; it goes when the mark is as
old as the grace period. What only it needed is marked then, and has a grace period of its own.

Rows go before bytes: bytes without a row are found again by the sweep, whatever breaks in between.
"""

import logging
import time
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from machineshop.blobs.base import BlobStore
from machineshop.blobs.layout import REGISTRY
from machineshop.config import COLLECT_GRACE_SECONDS
from machineshop.store import registry_garbage as store
from machineshop.store.database import Database
from machineshop.store.registry import REGISTRY_LOCK
from machineshop.store.registry_garbage import Unneeded

log = logging.getLogger(__name__)

GRACE_SECONDS = COLLECT_GRACE_SECONDS
# Longer than it takes from the moment in which bytes are stored to that in which a row says so.
LEFTOVER_SECONDS = 24 * 3600.0
# Looking at every blob costs more with each of them, and finds only what a crash left.
SWEEP_SECONDS = 3600.0
_BATCH = 500


class Decision(msgspec.Struct, frozen=True):
    """What to do about digests."""

    mark: frozenset[str]
    unmark: frozenset[str]
    remove: frozenset[str]


class Collected(msgspec.Struct, frozen=True):
    """How much garbage went: manifests, blobs of repositories, and bytes that were stored (as a number of files)."""

    manifests: int = 0
    blobs: int = 0
    files: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.manifests + other.manifests, self.blobs + other.blobs, self.files + other.files)


def decide(unneeded: Unneeded, pinned: frozenset[str], now: float, grace_seconds: float) -> Decision:
    """What to mark, what to unmark and what to remove. Pure.

    Arguments:
        unneeded: What was found.
        pinned: Digests that somebody outside of the registry needs.
        now: Seconds since the epoch.
        grace_seconds: How long something must have been unneeded.
    """
    garbage = unneeded.now - pinned
    remove = {digest for digest in garbage if unneeded.marked.get(digest, now) <= now - grace_seconds}
    return Decision(
        mark=frozenset(garbage - unneeded.marked.keys() - remove),
        unmark=frozenset(unneeded.marked.keys() - garbage),
        remove=frozenset(remove),
    )


class GarbageCollector:
    """Collects in all repositories of all organizations."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._swept_at = float("-inf")

    async def run_once(self, now: float) -> Collected:
        """One pass, with a look for what crashes left where that is due."""
        collected = await self.collect(now)
        if now >= self._swept_at + SWEEP_SECONDS:
            collected += Collected(files=await self._sweep(now))
            self._swept_at = now
        return collected

    async def collect_all(self, grace_seconds: float) -> Collected:
        """Passes until none finds anything to remove: what only garbage needed is garbage too.

        It removes no bytes that the store does not know of, lest it is used with another platform's storage.

        Arguments:
            grace_seconds: With 0, everything goes that nobody needs at this moment: a push under way may fail for it.
        """
        now, total = self._clock(), Collected()
        while (collected := await self.collect(now, grace_seconds)) != Collected():
            total += collected
        return total

    async def collect(self, now: float, grace_seconds: float = GRACE_SECONDS) -> Collected:
        """One pass: mark, and remove what was marked long enough ago."""
        pinned = await self._database.read(store.pinned_manifests)
        collected = Collected()
        for repository_id in await self._database.read(store.repository_ids):
            needed = frozenset(pinned.get(repository_id, ()))
            collected += await self._database.write_alone(
                REGISTRY_LOCK, _collect, repository_id, needed, now, grace_seconds
            )
        collected += Collected(files=await self._remove_unserved())
        if collected != Collected():
            log.info(
                "registry.collected manifests=%d blobs=%d files=%d",
                collected.manifests,
                collected.blobs,
                collected.files,
            )
        return collected

    async def _remove_unserved(self) -> int:
        removed = 0
        while keys := await self._database.write_alone(REGISTRY_LOCK, store.forget_unserved_bytes, _BATCH):
            for key in keys:
                await self._blobs.delete(key)
            removed += len(keys)
        return removed

    async def _sweep(self, now: float) -> int:
        """Remove bytes that no row knows, and that are too old to get one: a key is used once."""
        entries = await self._blobs.entries(REGISTRY)
        old = [entry.key for entry in entries if entry.modified_at < now - LEFTOVER_SECONDS]
        removed = 0
        for at in range(0, len(old), _BATCH):
            batch = old[at : at + _BATCH]
            for key in set(batch) - await self._database.read(store.known_keys, batch):
                await self._blobs.delete(key)
                removed += 1
        return removed


def _collect(
    conn: Connection, repository_id: str, pinned: frozenset[str], now: float, grace_seconds: float
) -> Collected:
    """In one repository and one transaction: manifests first, since blobs are needed by them."""
    decision = decide(store.unneeded_manifests(conn, repository_id), pinned, now, grace_seconds)
    store.mark_manifests(conn, repository_id, decision.mark, now)
    store.mark_manifests(conn, repository_id, decision.unmark, None)
    removed_manifests = store.drop_manifests(conn, repository_id, decision.remove)
    decision = decide(store.unneeded_blobs(conn, repository_id), frozenset(), now, grace_seconds)
    store.mark_blobs(conn, repository_id, decision.mark, now)
    store.mark_blobs(conn, repository_id, decision.unmark, None)
    return Collected(removed_manifests, store.drop_blobs(conn, repository_id, decision.remove))
