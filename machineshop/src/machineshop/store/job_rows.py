"""How a job lies in its row, for all modules that read or move jobs."""

from collections.abc import Sequence
from typing import Any

import msgspec

from machineshop.models import Job
from machineshop.states import JobState

FIELDS = Job.__struct_fields__
_STATES = {str(state): state for state in JobState}
_OBJECT = msgspec.json.Decoder()
COLUMNS = ", ".join(FIELDS)

# The number of the change that a statement makes to a job; `queues.tally` counts it in the same transaction.
NEXT_CHANGE = "(SELECT q.changes + 1 FROM queues q WHERE q.deployment_id = jobs.deployment_id)"


def job_of(row: Sequence[Any]) -> Job:
    """A job from `COLUMNS`."""
    fields = dict(zip(FIELDS, row, strict=True))
    outputs = fields["outputs"]
    fields["state"] = _STATES[fields["state"]]
    fields["payload"] = msgspec.Raw(fields["payload"].encode())
    fields["outputs"] = None if outputs is None else msgspec.Raw(outputs.encode())
    fields["info"] = decode(fields["info"])
    fields["cancel_requested"] = bool(fields["cancel_requested"])
    return Job(**fields)


def encode(value: object) -> str:
    """JSON text for a column."""
    return msgspec.json.encode(value).decode()


def decode(value: str) -> dict[str, Any]:
    """The object in a column."""
    if value == "{}":
        return {}
    decoded: dict[str, Any] = _OBJECT.decode(value)
    return decoded
