"""Jobs and their attempts. Each transition is one guarded statement: no row changed means that somebody else was first.

The guards are built from `states.JOB_MOVES`, so the table there is the only place that says what may follow what.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection, TextClause, text

from machineshop.errors import NotFound, StaleAttempt
from machineshop.models import Claim, Job, Worker
from machineshop.states import JobState, JobVerb, source, target

# A job whose worker was lost this often is taken for the cause of it.
MAX_RETRIES = 3

_COLUMNS = (
    "id, project_id, deployment_id, model, state, priority, payload, outputs, info, retries, attempt, "
    "cancel_requested, created_at, claimed_at, claim_expires_at, done_at"
)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who says that it holds a job: what must match for its word to count."""

    deployment_id: str | None = None
    """Known from a worker key."""
    replica_id: str | None = None
    """Known from a worker key."""
    token: str | None = None
    """Sent by workers that know of attempts."""


def insert(conn: Connection, job: Job) -> None:
    """Add a pending job.

    Raises:
        NotFound: Its deployment has just been deleted.
    """
    added = conn.execute(
        _INSERT,
        {
            "id": job.id,
            "project_id": job.project_id,
            "deployment_id": job.deployment_id,
            "model": job.model,
            "priority": job.priority,
            "payload": bytes(job.payload).decode(),
            "info": _encode(job.info),
            "created_at": job.created_at,
        },
    )
    if added.rowcount == 0:
        raise NotFound(what="deployment", id=job.model)


def claim(
    conn: Connection, deployment_id: str, worker: Worker, token: str, now: float, expires_at: float
) -> Claim | None:
    """Hand the next job to a worker: a new attempt, fenced by `token`."""
    row = (
        conn.execute(
            _CLAIM,
            {
                "deployment_id": deployment_id,
                "token": token,
                "replica_id": worker.replica_id,
                "hostname": worker.hostname,
                "claim_timeout_seconds": worker.claim_timeout_seconds,
                "now": now,
                "expires_at": expires_at,
            },
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    job = _job(row)
    conn.execute(
        _INSERT_ATTEMPT,
        {
            "job_id": job.id,
            "number": job.attempt,
            "replica_id": worker.replica_id,
            "hostname": worker.hostname,
            "now": now,
        },
    )
    return Claim(job, token)


def renew(conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float) -> bool:
    """Extend the claim by its own length and merge `info`; True when a cancel was asked for.

    Raises:
        NotFound: No such job.
        StaleAttempt: The holder does not hold it.
    """
    changed = {"info": _merged_info(conn, project_id, job_id, info)} if info else {}
    row = _move(conn, JobVerb.RENEW, project_id, job_id, holder, now, changed)
    return bool(row["cancel_requested"])


def finish(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    outputs: msgspec.Raw,
    info: dict[str, Any],
    now: float,
) -> None:
    """Store the result. Raises as `renew`."""
    changed = {"outputs": bytes(outputs).decode(), "info": _merged_info(conn, project_id, job_id, info)}
    _move(conn, JobVerb.FINISH, project_id, job_id, holder, now, changed)


def fail(conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float) -> None:
    """Store the model's failure, whose text is in `info["error"]`. Raises as `renew`."""
    _move(conn, JobVerb.FAIL, project_id, job_id, holder, now, {"info": _merged_info(conn, project_id, job_id, info)})


def abandon(conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float) -> None:
    """The worker took up the user's cancel. Raises as `renew`."""
    _move(
        conn, JobVerb.ABANDON, project_id, job_id, holder, now, {"info": _merged_info(conn, project_id, job_id, info)}
    )


def release(conn: Connection, project_id: str, job_id: str, holder: Holder, now: float) -> str:
    """Put the job back unharmed, and return its deployment's id. Raises as `renew`."""
    return str(_move(conn, JobVerb.RELEASE, project_id, job_id, holder, now, {})["deployment_id"])


def cancel(conn: Connection, project_id: str, model: str, job_id: str, now: float) -> Job:
    """Cancel a pending job, or ask the worker of a running one to stop; returns the job as it is then.

    Raises:
        NotFound: No such job.
    """
    where = {"project_id": project_id, "model": model, "job_id": job_id, "now": now}
    if conn.execute(_CANCEL, where).rowcount == 0:
        conn.execute(_REQUEST_CANCEL, where)
    job = get(conn, project_id, model, job_id)
    if job is None:
        raise NotFound(what="job", id=job_id)
    return job


def clear(conn: Connection, project_id: str, deployment_id: str, now: float) -> int:
    """Cancel all pending jobs of a deployment; returns how many."""
    return conn.execute(_CLEAR, {"project_id": project_id, "deployment_id": deployment_id, "now": now}).rowcount


def get(conn: Connection, project_id: str, model: str, job_id: str) -> Job | None:
    """One job of a deployment, by the deployment's name or id."""
    row = conn.execute(_GET, {"project_id": project_id, "model": model, "job_id": job_id}).mappings().first()
    return None if row is None else _job(row)


def count(conn: Connection, project_id: str, deployment_id: str) -> dict[JobState, int]:
    """How many jobs of a deployment wait and run."""
    rows = conn.execute(_COUNT, {"project_id": project_id, "deployment_id": deployment_id})
    return {JobState(state): number for state, number in rows}


def busy_replicas(conn: Connection) -> frozenset[str]:
    """The replicas that hold a job, of all projects."""
    return frozenset(replica_id for (replica_id,) in conn.execute(_BUSY_REPLICAS))


def deleted_deployments_with_jobs(conn: Connection) -> frozenset[str]:
    """The deployments that are deleted and still have a running job."""
    return frozenset(deployment_id for (deployment_id,) in conn.execute(_RUNNING_IN_DELETED))


def expire(conn: Connection, now: float) -> set[str]:
    """End the claims that have run out; returns the deployments whose queues got jobs back."""
    return _lose(conn, _EXPIRED, {"now": now}, "its claim expired: the worker stopped renewing it", now)


def lose_replica(conn: Connection, replica_id: str, now: float) -> set[str]:
    """End the claims of a replica that is gone; returns the deployments whose queues got jobs back."""
    return _lose(conn, _HELD_BY, {"replica_id": replica_id}, "its replica ended in the middle of it", now)


def lose_deployment(conn: Connection, deployment_id: str, now: float) -> None:
    """End the jobs of a deployment that is gone with all its replicas."""
    for row in list(conn.execute(_HELD_IN, {"deployment_id": deployment_id}).mappings()):
        _end_lost(conn, row, "its deployment was deleted", now, may_retry=False)


def _lose(conn: Connection, query: TextClause, where: dict[str, Any], cause: str, now: float) -> set[str]:
    woken = set()
    for row in list(conn.execute(query, where).mappings()):
        if _end_lost(conn, row, cause, now, may_retry=row["retries"] < MAX_RETRIES) is JobVerb.LOSE:
            woken.add(str(row["deployment_id"]))
    return woken


def _end_lost(conn: Connection, row: Any, cause: str, now: float, *, may_retry: bool) -> JobVerb:
    """One lost attempt: again, or canceled where that was asked for, or failed."""
    changed: dict[str, Any] = {}
    if row["cancel_requested"]:
        verb = JobVerb.ABANDON
    elif may_retry:
        verb = JobVerb.LOSE
    else:
        verb = JobVerb.GIVE_UP
        error = f"The job was lost in attempt {row['attempt']}: {cause}."
        changed = {"info": _encode(_decode(row["info"]) | {"error": error})}
    holder = Holder(token=row["attempt_token"])
    _move(conn, verb, row["project_id"], row["id"], holder, now, changed)
    return verb


def _move(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
) -> Any:
    """A transition of a running job by whoever holds it, as one guarded statement."""
    values = {"project_id": project_id, "job_id": job_id, "now": now, **changed}
    conditions = []
    for column, value in (
        ("attempt_token", holder.token),
        ("replica_id", holder.replica_id),
        ("deployment_id", holder.deployment_id),
    ):
        if value is not None:
            conditions.append(column)
            values[f"held_{column}"] = value
    row = conn.execute(_move_statement(verb, tuple(conditions), tuple(changed)), values).mappings().first()
    if row is None:
        raise _refusal(conn, project_id, job_id)
    if target(verb) is not JobState.RUNNING:
        conn.execute(_END_ATTEMPT, {"job_id": job_id, "number": row["attempt"], "now": now, "outcome": verb})
    return row


def _refusal(conn: Connection, project_id: str, job_id: str) -> NotFound | StaleAttempt:
    state = conn.execute(_STATE, {"project_id": project_id, "job_id": job_id}).scalar()
    return NotFound(what="job", id=job_id) if state is None else StaleAttempt(state=state)


_statements: dict[tuple[JobVerb, tuple[str, ...], tuple[str, ...]], TextClause] = {}


def _move_statement(verb: JobVerb, conditions: tuple[str, ...], changed: tuple[str, ...]) -> TextClause:
    """The guarded UPDATE of a verb, made once for each shape."""
    key = (verb, conditions, changed)
    if key not in _statements:
        sets = [f"{column} = :{column}" for column in changed] + _SETS[verb]
        guards = "".join(f" AND {column} = :held_{column}" for column in conditions)
        _statements[key] = text(
            f"UPDATE jobs SET {', '.join(sets)} "
            f"WHERE id = :job_id AND project_id = :project_id AND state = '{source(verb)}'{guards} "
            "RETURNING attempt, deployment_id, cancel_requested"
        )
    return _statements[key]


_UNCLAIMED = ["attempt_token = NULL", "claim_expires_at = NULL"]
_BACK = ["state = 'pending'", "replica_id = NULL", "hostname = NULL", "claimed_at = NULL", *_UNCLAIMED]


def _ended(verb: JobVerb) -> list[str]:
    return [f"state = '{target(verb)}'", "done_at = :now", *_UNCLAIMED]


_SETS: dict[JobVerb, list[str]] = {
    # A claim without a length of its own holds as long as its worker lives: nothing to extend.
    JobVerb.RENEW: [
        "claim_expires_at = CASE WHEN claim_timeout_seconds IS NULL "
        "THEN claim_expires_at ELSE :now + claim_timeout_seconds END"
    ],
    JobVerb.FINISH: _ended(JobVerb.FINISH),
    JobVerb.FAIL: _ended(JobVerb.FAIL),
    JobVerb.ABANDON: _ended(JobVerb.ABANDON),
    JobVerb.GIVE_UP: _ended(JobVerb.GIVE_UP),
    JobVerb.RELEASE: _BACK,
    JobVerb.LOSE: ["retries = retries + 1", *_BACK],
}


def _merged_info(conn: Connection, project_id: str, job_id: str, info: dict[str, Any]) -> str:
    """The job's info with new keys laid over it."""
    known = conn.execute(_INFO, {"project_id": project_id, "job_id": job_id}).scalar()
    return _encode(_decode(known or "{}") | info)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decode(value: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(value)
    return decoded


def _job(row: Any) -> Job:
    outputs = row["outputs"]
    return Job(
        id=row["id"],
        project_id=row["project_id"],
        deployment_id=row["deployment_id"],
        model=row["model"],
        state=JobState(row["state"]),
        priority=row["priority"],
        payload=msgspec.Raw(row["payload"].encode()),
        outputs=None if outputs is None else msgspec.Raw(outputs.encode()),
        info=_decode(row["info"]),
        retries=row["retries"],
        attempt=row["attempt"],
        cancel_requested=bool(row["cancel_requested"]),
        created_at=row["created_at"],
        claimed_at=row["claimed_at"],
        claim_expires_at=row["claim_expires_at"],
        done_at=row["done_at"],
    )


# The queue's hot statements are prepared text: building them from expressions costs as much as running them.

_INSERT = text(
    "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, payload, info, retries, attempt, "
    "cancel_requested, created_at) "
    "SELECT :id, :project_id, :deployment_id, :model, 'pending', :priority, :payload, :info, 0, 0, 0, :created_at "
    "WHERE EXISTS (SELECT 1 FROM deployments WHERE id = :deployment_id AND deleted_at IS NULL)"
)

_CLAIM = text(
    f"UPDATE jobs SET state = '{target(JobVerb.CLAIM)}', attempt = attempt + 1, attempt_token = :token, "
    "replica_id = :replica_id, hostname = :hostname, claim_timeout_seconds = :claim_timeout_seconds, "
    "claimed_at = :now, claim_expires_at = :expires_at "
    "WHERE sequence = (SELECT sequence FROM jobs "
    f"WHERE deployment_id = :deployment_id AND state = '{source(JobVerb.CLAIM)}' "
    "ORDER BY priority DESC, sequence LIMIT 1) "
    f"AND state = '{source(JobVerb.CLAIM)}' RETURNING {_COLUMNS}"
)

_INSERT_ATTEMPT = text(
    "INSERT INTO attempts (job_id, number, replica_id, hostname, claimed_at) "
    "VALUES (:job_id, :number, :replica_id, :hostname, :now)"
)

_END_ATTEMPT = text(
    "UPDATE attempts SET ended_at = :now, outcome = :outcome "
    "WHERE job_id = :job_id AND number = :number AND outcome IS NULL"
)

_ONE = "project_id = :project_id AND id = :job_id"
_ONE_OF_MODEL = f"{_ONE} AND (model = :model OR deployment_id = :model)"

_CANCEL = text(
    f"UPDATE jobs SET state = '{target(JobVerb.CANCEL)}', done_at = :now "
    f"WHERE {_ONE_OF_MODEL} AND state = '{source(JobVerb.CANCEL)}'"
)
_REQUEST_CANCEL = text(f"UPDATE jobs SET cancel_requested = 1 WHERE {_ONE_OF_MODEL} AND state = 'running'")
_CLEAR = text(
    f"UPDATE jobs SET state = '{target(JobVerb.CANCEL)}', done_at = :now "
    f"WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = '{source(JobVerb.CANCEL)}'"
)
_GET = text(f"SELECT {_COLUMNS} FROM jobs WHERE {_ONE_OF_MODEL}")
_STATE = text(f"SELECT state FROM jobs WHERE {_ONE}")
_INFO = text(f"SELECT info FROM jobs WHERE {_ONE}")
# One branch for each partial index.
_COUNT = text(
    "SELECT 'pending', count(*) FROM jobs "
    "WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = 'pending' "
    "UNION ALL SELECT 'running', count(*) FROM jobs "
    "WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = 'running'"
)
_BUSY_REPLICAS = text("SELECT DISTINCT replica_id FROM jobs WHERE state = 'running' AND replica_id IS NOT NULL")
_RUNNING_IN_DELETED = text(
    "SELECT DISTINCT jobs.deployment_id FROM jobs JOIN deployments ON deployments.id = jobs.deployment_id "
    "WHERE jobs.state = 'running' AND deployments.deleted_at IS NOT NULL"
)
_LOST_COLUMNS = "id, project_id, deployment_id, attempt, attempt_token, retries, info, cancel_requested"
_EXPIRED = text(f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND claim_expires_at <= :now LIMIT 1000")
_HELD_BY = text(f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND replica_id = :replica_id")
_HELD_IN = text(f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND deployment_id = :deployment_id")
