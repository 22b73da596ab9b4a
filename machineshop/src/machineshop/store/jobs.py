"""Jobs and their attempts. Each transition is one guarded statement: no row changed means that somebody else was first.

The guards are built from `states.JOB_MOVES`, so the table there is the only place that says what may follow what.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from machineshop.errors import NotFound, StaleAttempt
from machineshop.models import Claim, Job, Worker
from machineshop.states import JobState, JobVerb, source, target
from machineshop.store.statement import SKIP_LOCKED, Statement

# A job whose worker was lost this often is taken for the cause of it.
MAX_RETRIES = 3

_JOB_FIELDS = Job.__struct_fields__
_COLUMNS = ", ".join(_JOB_FIELDS)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who says that it holds a job: what must match for its word to count."""

    deployment_id: str | None = None
    """Known from a worker key."""
    replica_id: str | None = None
    """Known from a worker key."""
    token: str | None = None
    """Sent by workers that know of attempts."""


class _Moved(NamedTuple):
    """What a move gives back."""

    attempt: int
    deployment_id: str
    cancel_requested: bool


class _Lost(NamedTuple):
    """An attempt that is over without a word from its worker."""

    id: str
    project_id: str
    deployment_id: str
    attempt: int
    attempt_token: str
    retries: int
    info: str
    cancel_requested: bool
    deployment_deleted: bool


def insert(conn: Connection, job: Job) -> None:
    """Add a pending job.

    Raises:
        NotFound: Its deployment has just been deleted.
    """
    added = _INSERT.run(
        conn,
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
    """Hand the next job to a worker: a new attempt, fenced by `token`.

    A replica that never renews works on one job at a time: what it still holds when it asks again, it has lost.
    """
    if worker.replica_id is not None and worker.claim_timeout_seconds is None:
        held = {"replica_id": worker.replica_id, "hostname": worker.hostname}
        _lose(conn, _HELD_UNRENEWED, held, "its worker asked for another job without ending it", now)
    row = _CLAIM.one(
        conn,
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
    if row is None:
        return None
    job = _job(row)
    _INSERT_ATTEMPT.run(
        conn,
        {
            "job_id": job.id,
            "number": job.attempt,
            "replica_id": worker.replica_id,
            "hostname": worker.hostname,
            "now": now,
        },
    )
    return Claim(job, token)


def renew(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    info: dict[str, Any],
    progress_at: float | None,
    now: float,
) -> bool:
    """Extend the claim by its own length and merge `info`; True when a cancel was asked for.

    Raises:
        NotFound: No such job.
        StaleAttempt: The holder does not hold it.
    """
    changed: dict[str, Any] = {} if progress_at is None else {"progress_at": progress_at}
    if info:
        changed["info"] = _merged_info(conn, project_id, job_id, info)
    moved = _move(conn, JobVerb.RENEW, project_id, job_id, holder, now, changed)
    return bool(moved.cancel_requested)


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
    """Put the job back unharmed, and return its deployment's id. Raises as `renew`.

    Where nobody wants it any longer, because it is to be canceled or its deployment is gone, it is canceled instead.
    """
    unwanted = _UNWANTED.one(conn, {"project_id": project_id, "job_id": job_id})
    verb = JobVerb.ABANDON if unwanted is not None and unwanted[0] else JobVerb.RELEASE
    return _move(conn, verb, project_id, job_id, holder, now, {}).deployment_id


def cancel(conn: Connection, project_id: str, model: str, job_id: str, now: float) -> Job:
    """Cancel a pending job, or ask the worker of a running one to stop; returns the job as it is then.

    Raises:
        NotFound: No such job.
    """
    where = {"project_id": project_id, "model": model, "job_id": job_id, "now": now}
    if _CANCEL.run(conn, where).rowcount == 0:
        _REQUEST_CANCEL.run(conn, where)
    job = get(conn, project_id, model, job_id)
    if job is None:
        raise NotFound(what="job", id=job_id)
    return job


def clear(conn: Connection, project_id: str, deployment_id: str, now: float) -> int:
    """Cancel all pending jobs of a deployment; returns how many."""
    return _CLEAR.run(conn, {"project_id": project_id, "deployment_id": deployment_id, "now": now}).rowcount


def get(conn: Connection, project_id: str, model: str, job_id: str) -> Job | None:
    """One job of a deployment, by the deployment's name or id."""
    row = _GET.one(conn, {"project_id": project_id, "model": model, "job_id": job_id})
    return None if row is None else _job(row)


def count(conn: Connection, project_id: str, deployment_id: str) -> dict[JobState, int]:
    """How many jobs of a deployment wait and run."""
    rows = _COUNT.run(conn, {"project_id": project_id, "deployment_id": deployment_id})
    return {JobState(state): number for state, number in rows.fetchall()}


def busy_replicas(conn: Connection) -> frozenset[str]:
    """The replicas that hold a job, of all projects."""
    return frozenset(replica_id for (replica_id,) in _BUSY_REPLICAS.run(conn, {}).fetchall())


def deleted_deployments_with_jobs(conn: Connection) -> list[tuple[str, str]]:
    """Project and id of the deployments that are deleted and still have a job that has not ended."""
    return [(project_id, deployment_id) for project_id, deployment_id in _LIVE_IN_DELETED.run(conn, {}).fetchall()]


def expire(conn: Connection, now: float) -> set[str]:
    """End the claims that have run out; returns the deployments whose queues got jobs back."""
    return _lose(conn, _EXPIRED, {"now": now}, "its claim expired: the worker stopped renewing it", now)


def lose_replica(conn: Connection, replica_id: str, now: float) -> set[str]:
    """End the claims of a replica that is gone; returns the deployments whose queues got jobs back."""
    return _lose(conn, _HELD_BY, {"replica_id": replica_id}, "its replica ended in the middle of it", now)


def lose_deployment(conn: Connection, project_id: str, deployment_id: str, now: float) -> None:
    """End the jobs of a deployment that is gone with all its replicas."""
    clear(conn, project_id, deployment_id, now)
    for row in _HELD_IN.run(conn, {"deployment_id": deployment_id}).fetchall():
        _end_lost(conn, _Lost(*row), "its deployment was deleted", now, may_retry=False)


def _lose(conn: Connection, query: Statement, where: dict[str, Any], cause: str, now: float) -> set[str]:
    woken = set()
    for lost in [_Lost(*row) for row in query.run(conn, where).fetchall()]:
        may_retry = lost.retries < MAX_RETRIES and not lost.deployment_deleted
        if _end_lost(conn, lost, cause, now, may_retry=may_retry) is JobVerb.LOSE:
            woken.add(lost.deployment_id)
    return woken


def _end_lost(conn: Connection, lost: "_Lost", cause: str, now: float, *, may_retry: bool) -> JobVerb:
    """One lost attempt: again, or canceled where that was asked for, or failed."""
    changed: dict[str, Any] = {}
    if lost.cancel_requested:
        verb = JobVerb.ABANDON
    elif may_retry:
        verb = JobVerb.LOSE
    else:
        verb = JobVerb.GIVE_UP
        why = "its deployment was deleted" if lost.deployment_deleted else cause
        error = f"The job was lost in attempt {lost.attempt}: {why}."
        changed = {"info": _encode(_decode(lost.info) | {"error": error})}
    _move(conn, verb, lost.project_id, lost.id, Holder(token=lost.attempt_token), now, changed)
    return verb


def _move(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
) -> "_Moved":
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
    row = _move_statement(verb, tuple(conditions), tuple(changed)).one(conn, values)
    if row is None:
        raise _refusal(conn, project_id, job_id)
    moved = _Moved(*row)
    if target(verb) is not JobState.RUNNING:
        _END_ATTEMPT.run(conn, {"job_id": job_id, "number": moved.attempt, "now": now, "outcome": str(verb)})
    return moved


def _refusal(conn: Connection, project_id: str, job_id: str) -> NotFound | StaleAttempt:
    row = _STATE.one(conn, {"project_id": project_id, "job_id": job_id})
    return NotFound(what="job", id=job_id) if row is None else StaleAttempt(state=row[0])


_statements: dict[tuple[JobVerb, tuple[str, ...], tuple[str, ...]], Statement] = {}


def _move_statement(verb: JobVerb, conditions: tuple[str, ...], changed: tuple[str, ...]) -> Statement:
    """The guarded UPDATE of a verb, made once for each shape."""
    key = (verb, conditions, changed)
    if key not in _statements:
        sets = [f"{column} = :{column}" for column in changed] + _SETS[verb]
        guards = "".join(f" AND {column} = :held_{column}" for column in conditions)
        _statements[key] = Statement(
            f"UPDATE jobs SET {', '.join(sets)} "
            f"WHERE id = :job_id AND project_id = :project_id AND state = '{source(verb)}'{guards} "
            f"RETURNING {', '.join(_Moved._fields)}"
        )
    return _statements[key]


_UNCLAIMED = ["attempt_token = NULL", "claim_expires_at = NULL"]
_BACK = [
    "state = 'pending'",
    "replica_id = NULL",
    "hostname = NULL",
    "claimed_at = NULL",
    "progress_at = NULL",
    *_UNCLAIMED,
]


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
    row = _INFO.one(conn, {"project_id": project_id, "job_id": job_id})
    return _encode(_decode("{}" if row is None else row[0]) | info)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decode(value: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(value)
    return decoded


def _job(row: Sequence[Any]) -> Job:
    """A job from `_COLUMNS`."""
    fields = dict(zip(_JOB_FIELDS, row, strict=True))
    outputs = fields["outputs"]
    fields["state"] = JobState(fields["state"])
    fields["payload"] = msgspec.Raw(fields["payload"].encode())
    fields["outputs"] = None if outputs is None else msgspec.Raw(outputs.encode())
    fields["info"] = _decode(fields["info"])
    fields["cancel_requested"] = bool(fields["cancel_requested"])
    return Job(**fields)


_INSERT = Statement(
    "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, payload, info, retries, attempt, "
    "cancel_requested, created_at) "
    "SELECT :id, :project_id, :deployment_id, :model, 'pending', :priority, :payload, :info, 0, 0, 0, :created_at "
    "WHERE EXISTS (SELECT 1 FROM deployments WHERE id = :deployment_id AND deleted_at IS NULL)"
)

_CLAIM = Statement(
    f"UPDATE jobs SET state = '{target(JobVerb.CLAIM)}', attempt = attempt + 1, attempt_token = :token, "
    "replica_id = :replica_id, hostname = :hostname, claim_timeout_seconds = :claim_timeout_seconds, "
    "claimed_at = :now, claim_expires_at = :expires_at "
    "WHERE sequence = (SELECT sequence FROM jobs "
    f"WHERE deployment_id = :deployment_id AND state = '{source(JobVerb.CLAIM)}' "
    f"ORDER BY priority DESC, sequence LIMIT 1 {SKIP_LOCKED}) "
    f"AND state = '{source(JobVerb.CLAIM)}' RETURNING {_COLUMNS}"
)

_INSERT_ATTEMPT = Statement(
    "INSERT INTO attempts (job_id, number, replica_id, hostname, claimed_at) "
    "VALUES (:job_id, :number, :replica_id, :hostname, :now)"
)

_END_ATTEMPT = Statement(
    "UPDATE attempts SET ended_at = :now, outcome = :outcome "
    "WHERE job_id = :job_id AND number = :number AND outcome IS NULL"
)

_ONE = "project_id = :project_id AND id = :job_id"
_ONE_OF_MODEL = f"{_ONE} AND (model = :model OR deployment_id = :model)"

_CANCEL = Statement(
    f"UPDATE jobs SET state = '{target(JobVerb.CANCEL)}', done_at = :now "
    f"WHERE {_ONE_OF_MODEL} AND state = '{source(JobVerb.CANCEL)}'"
)
_REQUEST_CANCEL = Statement(f"UPDATE jobs SET cancel_requested = 1 WHERE {_ONE_OF_MODEL} AND state = 'running'")
_CLEAR = Statement(
    f"UPDATE jobs SET state = '{target(JobVerb.CANCEL)}', done_at = :now "
    f"WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = '{source(JobVerb.CANCEL)}'"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM jobs WHERE {_ONE_OF_MODEL}")
_STATE = Statement(f"SELECT state FROM jobs WHERE {_ONE}")
_INFO = Statement(f"SELECT info FROM jobs WHERE {_ONE}")
# One branch for each partial index.
_COUNT = Statement(
    "SELECT 'pending', count(*) FROM jobs "
    "WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = 'pending' "
    "UNION ALL SELECT 'running', count(*) FROM jobs "
    "WHERE project_id = :project_id AND deployment_id = :deployment_id AND state = 'running'"
)
_BUSY_REPLICAS = Statement("SELECT DISTINCT replica_id FROM jobs WHERE state = 'running' AND replica_id IS NOT NULL")
_LIVE_IN_DELETED = Statement(
    "SELECT project_id, id FROM deployments WHERE deleted_at IS NOT NULL AND ("
    "EXISTS (SELECT 1 FROM jobs WHERE jobs.deployment_id = deployments.id AND jobs.state = 'pending') "
    "OR EXISTS (SELECT 1 FROM jobs WHERE jobs.deployment_id = deployments.id AND jobs.state = 'running'))"
)
# Of a job: the user wants it canceled, or its deployment is deleted.
_DELETED = "EXISTS (SELECT 1 FROM deployments d WHERE d.id = jobs.deployment_id AND d.deleted_at IS NOT NULL)"
_UNWANTED = Statement(f"SELECT cancel_requested = 1 OR {_DELETED} FROM jobs WHERE {_ONE}")
_LOST_COLUMNS = ", ".join(_Lost._fields).replace("deployment_deleted", _DELETED)
_EXPIRED = Statement(
    f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND claim_expires_at <= :now LIMIT 1000"
)
_HELD_BY = Statement(f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND replica_id = :replica_id")
_HELD_UNRENEWED = Statement(
    f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND replica_id = :replica_id "
    "AND hostname = :hostname AND claim_timeout_seconds IS NULL"
)
_HELD_IN = Statement(f"SELECT {_LOST_COLUMNS} FROM jobs WHERE state = 'running' AND deployment_id = :deployment_id")
