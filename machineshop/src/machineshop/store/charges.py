"""Charges: what a line is charged for a job that runs longer than it was charged for at its claim."""

from sqlalchemy import Connection

from machineshop.store import lines
from machineshop.store.ends import Moved
from machineshop.store.lines import LineKey
from machineshop.store.statement import Statement

# How much longer than it was charged for a job may run before its line is charged again.
CHARGE_STEP_SECONDS = 1.0
# The same for a claim that nobody renews: the control loop looks after it, and each charge is a write of its own.
UNRENEWED_CHARGE_STEP_SECONDS = 10.0


def charge_renewed(conn: Connection, job_id: str, moved: Moved, now: float) -> None:
    """Charge for a job whose claim was just renewed, where it has run on for long enough."""
    more_seconds = now - moved.claimed_at - moved.charged_seconds
    if more_seconds > CHARGE_STEP_SECONDS:
        _charge(conn, moved.deployment_id, job_id, LineKey(moved.fair_key, moved.priority), more_seconds)


def charge_unrenewed(conn: Connection, deployment_id: str, now: float) -> None:
    """Charge for the jobs of a queue whose claims nobody renews."""
    for job_id, priority, fair_key, seconds in _UNCHARGED.all(conn, {"deployment_id": deployment_id, "now": now}):
        _charge(conn, deployment_id, job_id, LineKey(fair_key, priority), seconds)


def _charge(conn: Connection, deployment_id: str, job_id: str, line: LineKey, seconds: float) -> None:
    _CHARGE.run(conn, {"job_id": job_id, "seconds": seconds})
    lines.charge(conn, deployment_id, line, seconds)


_CHARGE = Statement("UPDATE jobs SET charged_seconds = charged_seconds + :seconds WHERE id = :job_id")
# Of a running job: nobody renews its claim, and its line is to be charged again.
IS_UNCHARGED = (
    f"claim_timeout_seconds IS NULL AND :now - claimed_at - charged_seconds > {UNRENEWED_CHARGE_STEP_SECONDS}"
)
# What runs has a claim: said so that the index of what runs is taken.
_UNCHARGED = Statement(
    "SELECT id, priority, fair_key, :now - claimed_at - charged_seconds FROM jobs "
    f"WHERE state = 'running' AND deployment_id = :deployment_id AND claim_expires_at > 0 AND {IS_UNCHARGED} LIMIT 1000"
)
