"""Carries updates to the platform, many in one request, and brings claims back on the same way.

What comes in while a request is under way goes with the next one, so batches grow with the load by themselves and a
lone update never waits. Under load the next request leaves before the claims that the last one brought are taken up:
so the platform is at work on one batch while the worker is at work on another. A request without updates, which waits
for jobs, is not for the courier: see `Consumer`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from .errors import OlderPlatformError, PlatformAwayError, PlatformError, PlatformRefusedError
from .logs import log
from .messages import Claim, Update, Verdict
from .platform import Platform

BATCH_LIMIT = 250
"""Updates, and claims, in one request: more would not be cheaper, but slower to begin with."""

BATCH_LIMIT_CHARS = 8 * 1024**2
"""What goes together; an update that is larger goes alone."""

OLDER_BATCH_LIMIT = 4
"""Updates on their way at a time to a platform that takes them one by one."""

OLDER_SECONDS = 600.0
"""After this time an older platform may have become a newer one."""


class _Parcel(NamedTuple):
    """An update on its way."""

    update: Update
    verdict: asyncio.Future[bool]


class Desk(Protocol):
    """Whom the courier brings claims to."""

    def room_beside(self, ending: int) -> int:
        """Say how many jobs to claim with a request that ends so many."""

    def take_up(self, claims: list[Claim]) -> None:
        """Take the claims; called as soon as they are there."""

    def claimed(self) -> None:
        """Take note that a request that claims jobs is over, whatever came of it."""


class Courier:
    """One worker's way of reporting. Use inside a running event loop."""

    def __init__(self, platform: Platform, desk: Desk) -> None:
        self.claiming = False
        """A request that claims jobs is under way."""
        self._platform = platform
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._parcels: list[_Parcel] = []
        self._arrived: list[Claim] = []
        self._run: asyncio.Task[None] | None = None
        self._limit = BATCH_LIMIT
        self._older_until = 0.0

    async def send(self, update: Update) -> bool:
        """Report on a job, with whatever else is to be reported by now.

        Returns:
            Whether somebody has asked for the job to be cancelled.

        Raises:
            StaleAttemptError, PlatformAwayError, PlatformRefusedError: as for `Platform.update`.
        """
        verdict: asyncio.Future[bool] = self._loop.create_future()
        self._parcels.append(_Parcel(update, verdict))
        if self._run is None:
            self._run = self._loop.create_task(self._carry())
        return await verdict

    @property
    def arrived(self) -> int:
        """How many claims have come that have not been taken up yet."""
        return len(self._arrived)

    def under_way(self) -> list[asyncio.Task[None]]:
        """Give what to wait for until all has been carried."""
        return [] if self._run is None else [self._run]

    async def _carry(self) -> None:
        leaving = 0
        try:
            while self._parcels:
                if self._arrived:
                    self._loop.call_soon(self._take_up)  # By then the next request is on its way.
                older = self._loop.time() < self._older_until
                batch = self._next_batch(OLDER_BATCH_LIMIT if older else self._limit)
                if older:
                    await asyncio.gather(*(self._carry_alone(parcel) for parcel in batch))
                    leaving = 0
                elif batch:
                    leaving = await self._carry_together(batch, leaving)
        finally:
            self._run = None

    def _next_batch(self, limit: int) -> list[_Parcel]:
        """Take what goes next; leave out what nobody waits for any more."""
        batch: list[_Parcel] = []
        size_chars = taken = 0
        for parcel in self._parcels:
            size_chars += parcel.update.size_chars
            if len(batch) == limit or (batch and size_chars > BATCH_LIMIT_CHARS):
                break
            taken += 1
            if not parcel.verdict.done():
                batch.append(parcel)
        del self._parcels[:taken]
        return batch

    async def _carry_together(self, batch: list[_Parcel], leaving: int) -> int:
        """Report a batch.

        Args:
            batch: the updates.
            leaving: how many jobs of the batch before have ended, and are out of hand as soon as they are told so.

        Returns:
            The same of this one.
        """
        ending = sum(parcel.update.ends for parcel in batch)
        max_jobs = max(0, min(self._desk.room_beside(ending + leaving), BATCH_LIMIT)) if ending else 0
        self.claiming = max_jobs > 0
        verdicts: list[Verdict]
        try:
            updates = [parcel.update for parcel in batch]
            verdicts = await self._platform.exchange(updates, max_jobs, self._take)
            self._limit = min(self._limit * 2, BATCH_LIMIT)
        except OlderPlatformError as error:
            log.info("the platform takes results one by one: %s", error)
            self._older_until = self._loop.time() + OLDER_SECONDS
            self._parcels[:0] = batch
            return 0
        except PlatformError as error:
            verdicts = self._suspect(batch, error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave results lying
            log.exception("updates could not be carried")
            verdicts = [PlatformAwayError(f"{type(error).__name__}: {error}")] * len(batch)
        finally:
            if self.claiming:
                self.claiming = False
                self._desk.claimed()
        for parcel, verdict in zip(batch, verdicts, strict=True):
            _settle(parcel, verdict)
        taken = [parcel for parcel, verdict in zip(batch, verdicts, strict=True) if isinstance(verdict, bool)]
        return sum(parcel.update.ends for parcel in taken)

    def _take(self, claims: list[Claim]) -> None:
        """Have claims taken up: at once, or, where there is more to report, with that on its way."""
        if self._parcels:
            self._arrived += claims
        else:
            self._desk.take_up(claims)

    def _take_up(self) -> None:
        claims, self._arrived = self._arrived, []
        if claims:
            self._desk.take_up(claims)

    def _suspect(self, batch: list[_Parcel], error: PlatformError) -> list[Verdict]:
        """Decide on updates that were turned down together; smaller batches show whether one of them is to blame."""
        self._limit = max(1, min(self._limit, len(batch)) // 2)
        if len(batch) > 1 and isinstance(error, PlatformRefusedError):
            error = PlatformAwayError(str(error))
        return [error] * len(batch)

    async def _carry_alone(self, parcel: _Parcel) -> None:
        verdict: Verdict
        try:
            verdict = await self._platform.update(parcel.update)
        except PlatformError as error:
            verdict = error
        except Exception as error:  # noqa: BLE001 - as above
            log.exception("an update could not be carried")
            verdict = PlatformAwayError(f"{type(error).__name__}: {error}")
        _settle(parcel, verdict)


def _settle(parcel: _Parcel, verdict: Verdict) -> None:
    if parcel.verdict.done():
        return
    if isinstance(verdict, bool):
        parcel.verdict.set_result(verdict)
    else:
        parcel.verdict.set_exception(verdict)
