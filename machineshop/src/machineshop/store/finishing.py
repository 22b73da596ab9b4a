"""Results that come together: those without anything special about them are stored by one statement."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.states import JobVerb, source, target
from machineshop.store import files
from machineshop.store.ends import Ends, Moved
from machineshop.store.job_rows import NEXT_CHANGE, encode
from machineshop.store.moves import Holder
from machineshop.store.statement import Statement


class Result(msgspec.Struct, frozen=True):
    """What an attempt delivers."""

    job_id: str
    token: str
    outputs: msgspec.Raw
    info: dict[str, Any]


def finish_together(
    conn: Connection, project_id: str, holder: Holder, results: list[Result], now: float, ends: Ends
) -> set[str]:
    """Store the results of jobs that are held with these tokens; returns which those are.

    The same guard as for a single one, in one statement for all: a result that is left out was refused, or has info to
    merge with what was said before, and `attempts.finish` says why or does that.
    """
    values: dict[str, Any] = {
        "project_id": project_id,
        "deployment_id": holder.deployment_id,
        "replica_id": holder.replica_id,
        "now": now,
    }
    texts = [(one.job_id, one.token, bytes(one.outputs).decode(), encode(one.info)) for one in results]
    if conn.dialect.name == "sqlite":
        values["results"] = msgspec.json.encode(texts).decode()
    else:
        columns = ("ids", "tokens", "outputs", "infos")
        values |= {name: list(column) for name, column in zip(columns, zip(*texts, strict=True), strict=True)}
    finished = set()
    for job_id, *row in _FINISH.all(conn, values):
        moved = Moved(*row)
        finished.add(job_id)
        ends.add(JobVerb.FINISH, job_id, moved, now)
        if moved.has_files:
            files.publish_attempt(conn, job_id, moved.attempt)
    return finished


_SET = (
    f"UPDATE jobs SET state = '{target(JobVerb.FINISH)}', outputs = b.outputs, done_at = :now, attempt_token = NULL, "
    f"info = CASE WHEN b.info = '{{}}' THEN jobs.info ELSE b.info END, claim_expires_at = NULL, change = {NEXT_CHANGE} "
    "FROM"
)
_NOTHING_TO_MERGE = "(b.info = '{}' OR jobs.info = '{}')"
_RETURNING = f"RETURNING jobs.id, {', '.join(Moved._fields)}"
_STATE = source(JobVerb.FINISH)
_FINISH = Statement(
    f"{_SET} (SELECT value ->> 0 AS id, value ->> 1 AS token, value ->> 2 AS outputs, value ->> 3 AS info "
    "FROM json_each(:results)) AS b "
    # The plus signs keep every index but that of the id out of this.
    f"WHERE jobs.id = b.id AND +project_id = :project_id AND +deployment_id = :deployment_id AND +state = '{_STATE}' "
    f"AND +attempt_token = b.token AND (:replica_id IS NULL OR +replica_id = :replica_id) AND {_NOTHING_TO_MERGE} "
    f"{_RETURNING}",
    postgres=f"{_SET} unnest(:ids ::text[], :tokens ::text[], :outputs ::text[], :infos ::text[]) "
    "AS b(id, token, outputs, info) "
    f"WHERE jobs.id = b.id AND project_id = :project_id AND deployment_id = :deployment_id AND state = '{_STATE}' "
    "AND attempt_token = b.token AND (:replica_id ::text IS NULL OR replica_id = :replica_id ::text) "
    f"AND {_NOTHING_TO_MERGE} {_RETURNING}",
)
