"""The records of a local runtime's replicas: in memory for the loop, and saved by the engine for the next server."""

import logging
from collections.abc import Iterator

from machineshop.runtime.engine import Engine
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record

logger = logging.getLogger(__name__)


class Ledger:
    """Records by replica id, in the order in which they were made.

    Args:
        engine: Saves them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: dict[str, Record] = {}
        self._of: dict[str, dict[str, Record]] = {}
        """The same by deployment: a look at one of many must not go through all."""

    def __getitem__(self, replica_id: str) -> Record:
        return self._records[replica_id]

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def of(self, deployment_id: str) -> list[Record]:
        """The records of one deployment."""
        return list(self._of.get(deployment_id, {}).values())

    def live(self, deployment_id: str | None = None) -> list[Record]:
        """Those that have not ended, of one deployment or of all."""
        records = self if deployment_id is None else self.of(deployment_id)
        return [record for record in records if record.phase is not Phase.ENDED]

    def deployments(self) -> set[str]:
        """The ids of the deployments that have records."""
        return set(self._of)

    def put(self, record: Record) -> None:
        """Take a new state of a replica, and save it."""
        self.note(record)
        try:
            self._engine.save(record)
        except OSError as error:
            # A full disk must not stop what runs; the record is written again with its next change.
            logger.warning("replica's record not saved: replica=%s error=%s", record.id, error)

    def note(self, record: Record) -> None:
        """Take a new state that the next server finds out by itself."""
        self._records[record.id] = record
        self._of.setdefault(record.spec.deployment_id, {})[record.id] = record

    def forget(self, record: Record) -> None:
        """Remove a replica that has ended, with its log."""
        del self._records[record.id]
        of = self._of[record.spec.deployment_id]
        del of[record.id]
        if not of:
            del self._of[record.spec.deployment_id]
        self._engine.forget(record)
