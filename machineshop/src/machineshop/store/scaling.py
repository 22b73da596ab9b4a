"""How many replicas there should be: what the autoscaler has decided, and by what."""

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select

from machineshop.models import QueueCounts, ScalingDecision
from machineshop.store.announcements import announce
from machineshop.store.deployment_rows import DEPLOYMENTS
from machineshop.store.tables import deployments, queues, scaling_decisions

KEPT_DECISIONS = 200
_INPUTS = msgspec.json.Decoder()


class QueueState(msgspec.Struct, frozen=True):
    """A queue at a moment."""

    counts: QueueCounts
    changes: int
    """How often a job of it has changed."""


def decide(conn: Connection, deployment_id: str, decision: ScalingDecision) -> None:
    """Have another number of replicas from now on; one that is deleted is let be."""
    live = (deployments.c.id == deployment_id) & deployments.c.deleted_at.is_(None)
    if conn.execute(deployments.update().where(live).values(desired_replicas=decision.replicas)).rowcount == 0:
        return
    mine = scaling_decisions.c.deployment_id == deployment_id
    last = conn.execute(select(func.coalesce(func.max(scaling_decisions.c.number), 0)).where(mine)).scalar_one()
    values = {**msgspec.structs.asdict(decision), "inputs": msgspec.json.encode(decision.inputs).decode()}
    conn.execute(scaling_decisions.insert().values(deployment_id=deployment_id, number=last + 1, **values))
    conn.execute(delete(scaling_decisions).where(mine, scaling_decisions.c.number <= last + 1 - KEPT_DECISIONS))
    announce(conn, DEPLOYMENTS)


def list_decisions(conn: Connection, deployment_id: str, limit: int) -> list[ScalingDecision]:
    """What was decided, the newest first."""
    query = (
        select(scaling_decisions)
        .where(scaling_decisions.c.deployment_id == deployment_id)
        .order_by(scaling_decisions.c.number.desc())
        .limit(limit)
    )
    return [_decision(dict(row)) for row in conn.execute(query).mappings()]


def queue_states(conn: Connection) -> dict[str, QueueState]:
    """The queues of all live deployments, by their ids."""
    query = (
        select(queues.c.deployment_id, queues.c.pending, queues.c.running, queues.c.changes)
        .join(deployments, deployments.c.id == queues.c.deployment_id)
        .where(deployments.c.deleted_at.is_(None))
    )
    return {
        deployment_id: QueueState(QueueCounts(pending=pending, running=running), changes)
        for deployment_id, pending, running, changes in conn.execute(query)
    }


def _decision(row: dict[str, Any]) -> ScalingDecision:
    del row["deployment_id"], row["number"]
    return ScalingDecision(**{**row, "inputs": _INPUTS.decode(row["inputs"])})
