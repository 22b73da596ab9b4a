"""The lease on the control loops: of several servers on one database, one at a time runs them, and the replicas.

Place in the flow: the holder renews its lease again and again. When it dies, the lease runs out and another server
takes it within seconds; when it stops, it gives the lease back. A holder that cannot renew stops before its lease could
have run out by the database's clock, and whatever it still had in hand is refused (`fence`). A database that is one
server's alone, a file, needs none of this: its lease is held from beginning to end.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec
from sqlalchemy import Connection

from machineshop.errors import LeaseLost, Unavailable
from machineshop.store import leases
from machineshop.store.database import Database
from machineshop.store.leases import Tenure
from machineshop.store.write import Fence

log = logging.getLogger(__name__)

CONTROL = "control"


class LeaseTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How quickly another server takes over, in seconds."""

    lease: float = 4.0
    """How long a holder that is silent keeps the lease: with the others' looks in between, another has it after 5 s."""
    renew: float = 1.2
    """Several renewals fit in before it runs out."""
    answer: float = 1.0
    """How long the database may take for one."""
    retry: float = 0.25
    margin: float = 0.5
    """The holder takes its lease to end this much earlier than the database does: it needs a moment to stop."""
    look: float = 1.0
    """How often a server that waits for the lease looks, at least."""
    head_start: float = 2.5
    """After the database was away, the last holder alone may take the lease for this long: its replicas still run."""


class Tenant(Protocol):
    """What the lease is for."""

    async def take_up(self) -> None:
        """The lease is ours: begin."""

    async def pause(self) -> None:
        """The lease may have run out, and nobody knows whether another has it: do nothing for now."""

    async def stand_down(self) -> None:
        """Another server has the lease: end."""


class Standing(StrEnum):
    """What a server is to the lease."""

    UNKNOWN = "unknown"
    """It does not know who has it: it has just started, or the database is away."""
    HOLDER = "holder"
    FOLLOWER = "follower"
    """Another server has it."""


class Lease:
    """This server's part in the lease.

    Args:
        database: Where the lease is kept.
        base_url: Asked at each renewal for the address at which other servers reach this one.
        former: The id of this server in its life before, where that is over for certain.
        clock: Seconds that go on also while the machine sleeps.
        times: How quickly another server takes over.
    """

    def __init__(
        self,
        database: Database,
        base_url: Callable[[], str],
        former: str | None = None,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        times: LeaseTimes | None = None,
    ) -> None:
        self._database = database
        self._base_url = base_url
        self._former = former
        self._clock = clock
        self._times = times or LeaseTimes()
        self._tenant: Tenant | None = None
        self._standing = Standing.UNKNOWN
        self._failing = False
        self._until = float("-inf")
        self._held_since = float("-inf")
        self._head_start_until = float("-inf")
        self._tenure: Tenure | None = None
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether the lease is ours for certain, at this moment."""
        return self._clock() < self._until

    @property
    def held_seconds(self) -> float:
        """For how long it has been ours without a break; 0 where it is not."""
        return self._clock() - self._held_since if self.held else 0.0

    @property
    def holder_url(self) -> str | None:
        """Where the server that has the lease is reached; None where it is this one, or where nobody is known."""
        if self._standing is not Standing.FOLLOWER or self._tenure is None:
            return None
        return self._tenure.base_url or None

    @property
    def fence(self) -> Fence | None:
        """What a control loop's writes have to pass in their own transactions."""
        return self._check if self._database.is_shared else None

    def require(self) -> None:
        """Refuse what only the holder may do.

        Raises:
            LeaseLost: The lease is not ours for certain.
        """
        if not self.held:
            raise LeaseLost

    async def start(self, tenant: Tenant) -> None:
        """Begin to hold or to wait for the lease; once this returns, the first attempt has been made."""
        self._tenant = tenant
        if not self._database.is_shared:
            self._until, self._held_since = float("inf"), self._clock()
            await self._become(Standing.HOLDER)
            return
        self._database.on_announced(leases.LEASES, self.wake)
        await self._renew()
        self._task = asyncio.create_task(self._run(), name="lease")

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    async def changed(self) -> None:
        """Return once the lease has another holder than now, as far as this server knows."""
        await self._changed.wait()

    async def give_back(self) -> None:
        """End, and let another server take over at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        was_held, self._until = self.held, float("-inf")
        if self._database.is_shared and was_held:
            with contextlib.suppress(Unavailable):  # it runs out by itself
                await self._database.write(leases.give_back, CONTROL, self._database.server_id)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._renew()
            except Exception:
                log.exception("lease.defect")

    def _pause_seconds(self) -> float:
        if self._failing or self._standing is Standing.UNKNOWN:
            return self._times.retry
        if self._standing is Standing.FOLLOWER and self._tenure is not None:
            return min(max(self._tenure.seconds_left, 0.0) + 0.05, self._times.look)
        return self._times.renew

    async def _renew(self) -> None:
        """Take or renew the lease, and act on what came of it."""
        await self._pause_when_over()
        asked_at = self._clock()
        try:
            tenure = await self._take()
        except Unavailable as error:
            if not self._failing:
                log.warning("lease.not_renewed error=%s", error)
            self._failing = True
            await self._pause_when_over()
            return
        if self._failing and tenure.holder != self._database.server_id:
            self._head_start_until = self._clock() + self._times.head_start
        self._failing, self._former = False, None
        moved = self._tenure is None or self._tenure.holder != tenure.holder
        self._tenure = tenure
        if tenure.holder == self._database.server_id:
            if not self.held:
                self._held_since = asked_at
            # From before the question on: the database counts from when it heard it.
            self._until = asked_at + self._times.lease - self._times.margin
            await self._become(Standing.HOLDER)
        else:
            self._until = float("-inf")
            await self._become(Standing.FOLLOWER)
        if moved:
            self._changed.set()
            self._changed = asyncio.Event()

    async def _pause_when_over(self) -> None:
        if self._standing is Standing.HOLDER and not self.held:
            log.warning("lease.unknown the control loops pause until it is known again who has the lease")
            await self._become(Standing.UNKNOWN)

    async def _take(self) -> Tenure:
        # An answer that comes when the lease is over is no use; the loops must be stopped then.
        now = self._clock()
        seconds = min(self._times.answer, self._until - now) if now < self._until else self._times.answer
        others = self._tenure is not None and self._tenure.holder != self._database.server_id
        if others and (self._failing or now < self._head_start_until):
            return await self._database.aside(seconds, leases.find, CONTROL)
        return await self._database.aside(
            seconds,
            leases.take,
            CONTROL,
            self._database.server_id,
            self._base_url(),
            self._times.lease,
            self._former,
        )

    async def _become(self, standing: Standing) -> None:
        if standing is self._standing or self._tenant is None:
            return
        self._standing = standing
        if standing is Standing.HOLDER:
            log.info("lease.taken server=%s", self._database.server_id)
            await self._tenant.take_up()
        elif standing is Standing.FOLLOWER:
            log.info("lease.elsewhere holder=%s", self._tenure.holder if self._tenure else None)
            await self._tenant.stand_down()
        else:
            await self._tenant.pause()

    def _check(self, conn: Connection) -> None:
        self.require()
        leases.check(conn, CONTROL, self._database.server_id)
