"""Finds the replicas of an earlier server: those written down, and those whose containers are on the engine."""

from collections.abc import Iterable

import msgspec

from machineshop.runtime.docker.api import EngineApi
from machineshop.runtime.docker.body import INSTANCE_LABEL, PROJECT_LABEL, RECORD_LABEL, REPLICA_LABEL, RUN_LABEL
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import RECORD, Record


class Found(msgspec.Struct, frozen=True):
    """What there is of earlier."""

    records: list[Record]
    """All replicas."""
    adopted: list[Record]
    """Those of them whose container is there."""
    leftover: list[tuple[str, str | None]]
    """The ids of the containers that belong to none of them, each with its project's."""


async def find(api: EngineApi, instance: str, written_down: Iterable[Record]) -> Found:
    """Those written down and those whose containers run; and the containers that belong to none of them.

    Raises:
        EngineError: The engine cannot tell.
        EngineAway: The engine is not there.
    """
    records = {record.id: record for record in written_down}
    adopted, leftover = [], []
    for found in await api.get("/containers/json", all=True, filters={"label": [f"{INSTANCE_LABEL}={instance}"]}):
        told, names = found["Labels"], found.get("Names")
        if names and f"/{_name(told.get(REPLICA_LABEL), told.get(RUN_LABEL))}" not in names:
            continue  # somebody runs an image that was made of a container of ours, whose labels it has
        record = records.get(told.get(REPLICA_LABEL)) or _record_of(told)
        if record is None or not _is_under_way(record, told):
            leftover.append((found["Id"], told.get(PROJECT_LABEL)))
            continue
        records[record.id] = record
        adopted.append(record)
    return Found(list(records.values()), adopted, leftover)


def name_of(record: Record) -> str:
    """The container of its present or last run: what a run leaves behind is never in the way of the next."""
    return _name(record.id, str(record.runs))


def _name(replica_id: str | None, run: str | None) -> str:
    return f"machineshop-{replica_id}-{run}"


def _record_of(told: dict[str, str]) -> Record | None:
    """The record that a container's label holds."""
    try:
        record = RECORD.decode(told[RECORD_LABEL])
    except (KeyError, msgspec.DecodeError):
        return None
    return msgspec.structs.replace(record, phase=Phase.RUNNING)


def _is_under_way(record: Record, told: dict[str, str]) -> bool:
    """Whether a container is that of a run whose end nobody has seen."""
    return record.phase in (Phase.STARTING, Phase.RUNNING, Phase.EXITED) and told.get(RUN_LABEL) == str(record.runs)
