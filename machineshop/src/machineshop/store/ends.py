"""Attempts that are over: written down and counted together, however many end in one turn of a worker."""

from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import Connection

from machineshop.states import JobState, JobVerb, target
from machineshop.store import lines, queues, webhooks
from machineshop.store.counts import Count
from machineshop.store.lines import LineKey
from machineshop.store.statement import Statement


class Moved(NamedTuple):
    """A job whose attempt was moved, as far as others have to know."""

    project_id: str
    deployment_id: str
    priority: int
    fair_key: str
    attempt: int
    replica_id: str | None
    hostname: str
    claimed_at: float
    charged_seconds: float
    cancel_requested: bool
    has_files: bool
    webhook_url: str | None


class Ends:
    """Gathers the ends of one transaction; `write` brings them to the store, and must follow."""

    def __init__(self) -> None:
        self._attempts: list[dict[str, Any]] = []
        self._counts: defaultdict[tuple[str, LineKey], Count] = defaultdict(Count)
        self._told: list[tuple[str, Moved, float]] = []

    def add(self, verb: JobVerb, job_id: str, moved: Moved, now: float) -> None:
        """One more."""
        self._attempts.append(
            {
                "job_id": job_id,
                "number": moved.attempt,
                "replica_id": moved.replica_id,
                "hostname": moved.hostname,
                "claimed_at": moved.claimed_at,
                "now": now,
                "outcome": str(verb),
            }
        )
        count = self._counts[moved.deployment_id, LineKey(moved.fair_key, moved.priority)]
        ran_seconds = max(0.0, now - moved.claimed_at)
        charge_seconds = ran_seconds - moved.charged_seconds
        count.ended += 1
        count.charge_seconds += charge_seconds
        count.surcharge_seconds += max(0.0, charge_seconds)
        if verb is JobVerb.FINISH or verb is JobVerb.FAIL:
            count.ran_seconds.append(ran_seconds)
        if target(verb) is JobState.PENDING:
            count.back += 1
        elif moved.webhook_url is not None:
            self._told.append((job_id, moved, now))

    def write(self, conn: Connection) -> bool:
        """Write down and count what was gathered; whether there may be something to claim now that was not before."""
        if not self._attempts:
            return False
        _INSERT_ATTEMPT.run_each(conn, self._attempts)
        opens = False
        for (deployment_id, key), count in self._counts.items():
            capped = lines.settle(conn, deployment_id, key, count)
            queues.tally_ends(conn, deployment_id, count)
            opens = opens or capped or count.back > 0
        for job_id, moved, now in self._told:
            webhooks.enqueue(conn, moved.project_id, job_id, moved.attempt, str(moved.webhook_url), now)
        return opens


_INSERT_ATTEMPT = Statement(
    "INSERT INTO attempts (job_id, number, replica_id, hostname, claimed_at, ended_at, outcome) "
    "VALUES (:job_id, :number, :replica_id, :hostname, :claimed_at, :now, :outcome)"
)
