"""The images that this server has pulled from its platform's registry; what nothing has used for long is removed.

Place in the flow: `images.py` notes what it pulls and uses, and asks what others may not use; the engine has the rest
removed at its start and after each pull. An image that also has another name, or that a container has, stays, and is
known for as long.
"""

import logging
from pathlib import Path

import msgspec

from machineshop.runtime.docker.api import EngineApi, EngineAway, EngineError
from machineshop.runtime.docker.names import by_digest

UNUSED_KEPT_SECONDS = 7 * 86_400.0
"""As bundles are kept: long enough for a rollback, and for what runs once a week. The registry has it still."""
NOTED_AGAIN_SECONDS = 3600.0
_TIMES = msgspec.json.Decoder(dict[str, float])

logger = logging.getLogger(__name__)


class PulledImages:
    """What was pulled, by reference, and when it was last used, in seconds since the epoch.

    Args:
        api: The engine.
        path: The file that remembers it.
    """

    def __init__(self, api: EngineApi, path: Path) -> None:
        self._api, self._path = api, path
        self._used = _load(path)

    def has(self, reference: str) -> bool:
        """Whether what a reference names by its digest was pulled by somebody's leave, and may still be there."""
        return by_digest(reference) in map(by_digest, self._used)

    def pulling(self, reference: str, now: float) -> None:
        """It is about to be pulled, and is ours to remove; noted before, so that a crash forgets nothing."""
        self._note(reference, now)

    def used(self, reference: str, now: float) -> None:
        """A replica is about to start from it."""
        if now - self._used.get(reference, now) > NOTED_AGAIN_SECONDS:
            self._note(reference, now)

    async def prune(self, now: float) -> list[str]:
        """Remove those that nothing has used for long; returns which."""
        old = {reference for reference, at in self._used.items() if now - at > UNUSED_KEPT_SECONDS}
        removed = []
        for reference in sorted(old):
            try:
                if await self._remove(reference, old):
                    removed.append(reference)
            except EngineAway as error:
                logger.warning("image not removed: reference=%s error=%s", reference, error)
                break
            except EngineError as error:  # a container of somebody's has it
                logger.info("image not removed: reference=%s error=%s", reference, error)
                self._note(reference, now)
        if removed:
            logger.info("images removed that nothing has used for long: references=%s", removed)
        return removed

    async def _remove(self, reference: str, old: set[str]) -> bool:
        try:
            about = await self._api.get(f"/images/{reference}/json")
        except EngineError as error:
            if error.status != 404:
                raise
            self._forget(reference)
            return False
        if about.get("RepoTags") or not old.issuperset(about.get("RepoDigests") or ()):
            return False
        await self._api.delete(f"/images/{reference}", force=False)
        self._forget(reference)
        return True

    def _forget(self, reference: str) -> None:
        self._used.pop(reference, None)
        self._save()

    def _note(self, reference: str, now: float) -> None:
        self._used[reference] = now
        self._save()

    def _save(self) -> None:
        try:
            written = self._path.with_suffix(".new")
            written.write_bytes(msgspec.json.encode(self._used))
            written.replace(self._path)
        except OSError as error:
            logger.warning("no note taken of the images that were pulled: file=%s error=%s", self._path, error)


def _load(path: Path) -> dict[str, float]:
    try:
        return _TIMES.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("images that were pulled earlier are not known any more: file=%s error=%s", path, error)
        return {}
