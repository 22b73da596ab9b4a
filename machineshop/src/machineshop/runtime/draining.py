"""The end of a replica of a local runtime: it gets nothing new, is asked to end, and killed when that takes too long.

Place in the flow: `local.py` says which replica is to end and when its time is over; the planner's deadlines come from
the record that is kept here.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from machineshop.runtime import replica
from machineshop.runtime.base import ReplicaWatcher
from machineshop.runtime.engine import Engine
from machineshop.runtime.ledger import Ledger
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record

LEAVE_SECONDS = 1.0
"""How long a replica gets nothing new before it is asked to end, and refuses it: what was handed to it a moment before
has arrived by then."""
LEAVE_AT_MOST_SECONDS = 5.0
"""So long where something may still be on its way to it: on a busy machine that takes its time."""
LEAVE_STEP_SECONDS = 0.1
STRANDED_GRACE_SECONDS = 5.0
"""For replicas that cannot reach the platform any more: nothing they finish would arrive, but `shutdown()` may run."""

logger = logging.getLogger(__name__)


class Draining:
    """Ends replicas.

    Args:
        engine: Runs the replicas.
        ledger: Their records.
        watcher: What the platform does around the life of a replica.
        is_wanted: Whether a deployment is to run; what is left of others need not leave in peace.
        on_change: Called when a record has changed.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        watcher: ReplicaWatcher,
        is_wanted: Callable[[str], bool],
        on_change: Callable[[], None],
    ) -> None:
        self._engine, self._ledger, self._watcher = engine, ledger, watcher
        self._is_wanted, self._on_change = is_wanted, on_change
        self._is_closed = False
        self.leave_seconds = LEAVE_SECONDS

    def close(self) -> None:
        """Ask no more replica to end: the next server goes on with those that have left."""
        self._is_closed = True

    def drain(
        self, replica_id: str, now: float, *, within_seconds: float | None = None, why: str | None = None
    ) -> None:
        """Have a replica end; one that drains already may be given less time.

        Args:
            replica_id: Of a record of the ledger.
            now: Seconds since the epoch.
            within_seconds: From now, where that is sooner than its grace period.
            why: A sentence, where no user has asked for it.
        """
        record = self._ledger[replica_id]
        first, serves = record.draining_since is None, record.ready_since is not None
        if not first and within_seconds is None:
            return
        record = replica.draining(record, now, within_seconds=within_seconds, why=why)
        self._ledger.put(record)
        if first:
            logger.info("replica draining: replica=%s", replica_id)
        if first and record.phase is Phase.RUNNING:
            if serves and within_seconds is None and self._is_wanted(record.spec.deployment_id):
                self._ledger.put(replica.leaving(record))
                self._watcher.replica_leaving(replica_id)
                asyncio.get_running_loop().call_later(self.leave_seconds, self.tell, replica_id)
            else:
                self._engine.terminate(record)
        elif record.untold:
            self._ledger.put(replica.told(record, record.draining_since or now))
            self._engine.terminate(record)
        self._on_change()

    def drain_stranded(self, record: Record) -> None:
        """End an adopted replica that looks for the platform where it no longer is; another takes its place."""
        why = replica.stranded(record, self._engine.platform_url(record.spec))
        if why is not None:
            logger.warning("replica cannot reach the platform: replica=%s %s", record.id, why)
            self.drain(record.id, time.time(), within_seconds=STRANDED_GRACE_SECONDS, why=why)

    def tell(self, replica_id: str) -> None:
        """Ask a replica to end that has left, unless it was asked meanwhile or has ended."""
        record = next((one for one in self._ledger.live() if one.id == replica_id), None)
        if record is None or not record.untold or self._is_closed:
            return
        since = record.draining_since or 0.0
        if self._watcher.replica_leaving(replica_id) and time.time() - since < LEAVE_AT_MOST_SECONDS:
            asyncio.get_running_loop().call_later(LEAVE_STEP_SECONDS, self.tell, replica_id)
        else:
            self._ledger.put(replica.told(record, time.time()))
            if record.phase is Phase.RUNNING:
                self._engine.terminate(record)

    def insist(self, record: Record, now: float) -> None:
        """Ask a draining replica to end at once: it has less time than it believes."""
        logger.info("replica told to end at once: replica=%s", record.id)
        self._ledger.put(replica.insisted(record, now))
        if record.phase is Phase.RUNNING:
            self._engine.terminate(record)
        self._on_change()

    def kill(self, record: Record) -> None:
        """End a replica whose grace period is over."""
        if not record.killed:
            logger.warning("replica killed after its grace period: replica=%s", record.id)
            self._ledger.put(msgspec.structs.replace(record, killed=True))
        self._engine.kill(record)
