"""Jobs: adding them and reading them. `claims`, `attempts`, `losses` and `withdrawals` move them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, func, literal, literal_column, null, select

from machineshop.errors import AnswerTooLarge, IdempotencyConflict
from machineshop.models import Include, Job, QueueCounts
from machineshop.states import JobState
from machineshop.store import lines, queues
from machineshop.store.job_rows import COLUMNS, encode, job_of
from machineshop.store.lines import LineKey
from machineshop.store.statement import Statement
from machineshop.store.tables import jobs

# What one answer holds of jobs' inputs and outputs; more would fill the server's memory, and its event loop.
ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
_PAYLOAD = msgspec.json.Decoder()


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs of a deployment a list holds."""

    states: frozenset[JobState] = frozenset()
    """Empty: all."""
    fair_key: str | None = None
    created_after: float | None = None
    created_before: float | None = None


def insert(conn: Connection, new: Sequence[Job]) -> list[Job]:
    """Add pending jobs of one deployment; where an idempotency key is known already, its job is given instead.

    Raises:
        NotFound: Their deployment has just been deleted.
        QueueFull: There is no room for all of them; none was added.
        IdempotencyConflict: A key is known for a job with another payload; none was added.
    """
    known = _known(conn, new)
    fresh = [job for job in new if job.id not in known]
    if fresh:
        _add(conn, fresh)
    return [known.get(job.id, job) for job in new]


def _add(conn: Connection, new: list[Job]) -> None:
    deployment_id = new[0].deployment_id
    change = queues.admit(conn, deployment_id, new[0].model, len(new))
    _INSERT.run_each(conn, [row_of(job, change) for job in new])
    for key, number in Counter(LineKey(job.fair_key, job.priority) for job in new).items():
        lines.join(conn, deployment_id, key, number, change)


def row_of(job: Job, change: int) -> dict[str, Any]:
    """The values of a new job's row."""
    return {
        "id": job.id,
        "project_id": job.project_id,
        "deployment_id": job.deployment_id,
        "model": job.model,
        "priority": job.priority,
        "fair_key": job.fair_key,
        "payload": bytes(job.payload).decode(),
        "info": encode(job.info) if job.info else "{}",
        "deadline_at": job.deadline_at,
        "idempotency_key": job.idempotency_key,
        "webhook_url": job.webhook_url,
        "resubmit_of": job.resubmit_of,
        "change": change,
        "created_at": job.created_at,
    }


def _known(conn: Connection, new: Sequence[Job]) -> dict[str, Job]:
    """The jobs that idempotency keys stand for already, by the ids of those that would repeat them."""
    known: dict[str, Job] = {}
    seen: dict[str, Job] = {}
    for job in new:
        if job.idempotency_key is None:
            continue
        before = seen.get(job.idempotency_key) or _find_by_key(conn, job)
        if before is None:
            seen[job.idempotency_key] = job
        elif not is_same(before.payload, job.payload):
            raise IdempotencyConflict(key=job.idempotency_key, id=before.id)
        else:
            known[job.id] = before
    return known


def is_same(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    """Whether two JSON texts say the same, whatever the order and the spaces."""
    if bytes(one) == bytes(other):
        return True
    try:
        first, second = (msgspec.json.encode(_PAYLOAD.decode(text), order="sorted") for text in (one, other))
    except msgspec.MsgspecError:  # a number that nobody can read
        return False
    return first == second


def _find_by_key(conn: Connection, job: Job) -> Job | None:
    row = _BY_IDEMPOTENCY_KEY.one(conn, {"deployment_id": job.deployment_id, "key": job.idempotency_key})
    return None if row is None else job_of(row)


def get(conn: Connection, project_id: str, model: str, job_id: str) -> Job | None:
    """One job of a deployment, by the deployment's name or id."""
    row = _GET.one(conn, {"project_id": project_id, "model": model, "job_id": job_id})
    return None if row is None else job_of(row)


def get_by_id(conn: Connection, project_id: str, job_id: str) -> Job | None:
    """One job of a project."""
    row = _GET_BY_ID.one(conn, {"project_id": project_id, "job_id": job_id})
    return None if row is None else job_of(row)


def get_many(
    conn: Connection, project_id: str, model: str, job_ids: Sequence[str], include: Include = Include.PAYLOAD
) -> list[Job]:
    """Jobs of a deployment, by its name or id, in the order asked for, each once, without those that there are not.

    Raises:
        AnswerTooLarge: Together they have more than `ANSWER_LIMIT_BYTES` of what is to be included.
    """
    wanted = list(dict.fromkeys(job_ids))
    ids: object = wanted if conn.dialect.name != "sqlite" else encode(wanted)
    values = {"project_id": project_id, "model": model, "ids": ids}
    if include is not Include.NONE and len(wanted) > 1:  # one alone is always below the limit
        size = _SIZE_OF_MANY[include].one(conn, values)
        if size is not None and size[0] > ANSWER_LIMIT_BYTES:
            raise AnswerTooLarge(limit_bytes=ANSWER_LIMIT_BYTES)
    found = {job.id: job for job in map(job_of, _GET_MANY[include].all(conn, values))}
    return [found[job_id] for job_id in wanted if job_id in found]


class Page(NamedTuple):
    """A part of a list."""

    jobs: list[Job]
    more: bool
    """Whether there are others after these."""


def list_page(
    conn: Connection,
    deployment_id: str,
    chosen: JobFilter,
    before: int | None,
    limit: int,
    include: Include = Include.PAYLOAD,
) -> Page:
    """A deployment's jobs, the newest first, from the one before the sequence number `before` on.

    A page has `limit` jobs at most, and fewer where more would have more than `ANSWER_LIMIT_BYTES`.
    """
    conditions = [jobs.c.deployment_id == deployment_id, *_conditions(chosen)]
    if before is not None:
        conditions.append(jobs.c.sequence < before)
    order = jobs.c.sequence.desc()
    sizes = conn.execute(select(jobs.c.sequence, _size(include)).where(*conditions).order_by(order).limit(limit + 1))
    fitting: list[int] = []
    total = 0
    for sequence, size in sizes.all():
        total += size
        if len(fitting) == limit or (fitting and total > ANSWER_LIMIT_BYTES):
            break
        fitting.append(sequence)
    else:
        return Page(_listed(conn, conditions, fitting, include), more=False)
    return Page(_listed(conn, conditions, fitting, include), more=True)


def _listed(conn: Connection, conditions: list[ColumnElement[bool]], fitting: list[int], include: Include) -> list[Job]:
    if not fitting:
        return []
    query = select(*_columns(include)).where(*conditions, jobs.c.sequence >= fitting[-1])
    return [job_of(row) for row in conn.execute(query.order_by(jobs.c.sequence.desc()).limit(len(fitting)))]


def _conditions(chosen: JobFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.states and chosen.states <= {JobState.FAILED, JobState.CANCELED}:
        # In the words of the index that holds nothing else.
        conditions.append((jobs.c.state == "failed") | (jobs.c.state == "canceled"))
    if chosen.states:
        conditions.append(jobs.c.state.in_(sorted(chosen.states)))
    if chosen.fair_key is not None:
        conditions.append(jobs.c.fair_key == chosen.fair_key)
    if chosen.created_after is not None:
        conditions.append(jobs.c.created_at > chosen.created_after)
    if chosen.created_before is not None:
        conditions.append(jobs.c.created_at < chosen.created_before)
    return conditions


def changed_since(conn: Connection, deployment_id: str, change: int, sequence: int, limit: int) -> list[Job]:
    """The jobs that changed after (change, sequence), in the order of their last changes, without what they hold.

    Their payloads are empty and they have no outputs: who follows a whole queue is told what became of its jobs.
    """
    query = (
        select(*_columns(Include.NONE))
        .where(
            jobs.c.deployment_id == deployment_id,
            jobs.c.change >= change,
            (jobs.c.change > change) | (jobs.c.sequence > sequence),
        )
        .order_by(jobs.c.change, jobs.c.sequence)
        .limit(limit)
    )
    return [job_of(row) for row in conn.execute(query)]


def count(conn: Connection, deployment_id: str) -> QueueCounts:
    """How many jobs of a deployment wait and run."""
    return queues.counts(conn, deployment_id)


def deployment_of(conn: Connection, project_id: str, job_id: str) -> str | None:
    """The deployment of a job."""
    row = _DEPLOYMENT_OF.one(conn, {"project_id": project_id, "job_id": job_id})
    return None if row is None else row[0]


def busy_replicas(conn: Connection) -> frozenset[str]:
    """The replicas that hold a job, of all projects."""
    return frozenset(replica_id for (replica_id,) in _BUSY_REPLICAS.all(conn, {}))


def has_worked(conn: Connection, deployment_id: str, replica_id: str, since: float) -> bool:
    """Whether a replica has ended a job since then, as far as the last jobs of its queue tell."""
    values = {"deployment_id": deployment_id, "replica_id": replica_id, "since": since}
    return _HAS_WORKED.one(conn, values) is not None


def stuck_replicas(conn: Connection, deployment_id: str, before: float, heard_since: float) -> list[str]:
    """The replicas of a deployment with a job whose model has said nothing since `before`, as was heard since then."""
    values = {"deployment_id": deployment_id, "before": before, "heard_since": heard_since}
    return [replica_id for (replica_id,) in _STUCK.all(conn, values)]


def deleted_deployments_with_jobs(conn: Connection) -> list[tuple[str, str]]:
    """Project and id of the deployments that are deleted and still have a job that has not ended."""
    return [(project_id, deployment_id) for project_id, deployment_id in _LIVE_IN_DELETED.all(conn, {})]


def remove_old(conn: Connection, deployment_id: str, keep_count: int, keep_since: float, limit: int) -> int:
    """Remove ended jobs that are too old or too many, `limit` at most; returns how many."""
    values = {"deployment_id": deployment_id, "keep": keep_count}
    too_old, surplus = (keep_since, _LAST_OF_ALL), (keep_since, 0)
    if nth := _NTH_ENDED.one(conn, values):
        # Many end at one moment, with one turn of a worker or one `clear`: of those only some may be too many.
        (sequence,) = _NTH_AT.all(conn, values | {"at": nth[0]})[0]
        surplus = (nth[0], sequence)
    until, last = max(too_old, surplus)
    return _REMOVE.run(conn, values | {"until": until, "last": last, "limit": limit}).rowcount


def _columns(include: Include) -> list[ColumnElement[Any]]:
    """The columns of a job; what is not included is not read."""
    absent: dict[str, ColumnElement[Any]] = {}
    if include is not Include.PAYLOAD:
        absent["payload"] = literal_column("''")
    if include is Include.NONE:
        absent["outputs"] = null()
    return [absent.get(name, jobs.c[name]) for name in Job.__struct_fields__]


def _size(include: Include) -> ColumnElement[int]:
    """How many characters of a job are included."""
    outputs = func.coalesce(func.length(jobs.c.outputs), 0)
    match include:
        case Include.PAYLOAD:
            return func.length(jobs.c.payload) + outputs
        case Include.OUTPUTS:
            return outputs
        case Include.NONE:
            return literal(0)


_INSERT = Statement(
    "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, fair_key, payload, info, retries, "
    "releases, attempt, charged_seconds, has_files, cancel_requested, deadline_at, idempotency_key, webhook_url, "
    "resubmit_of, change, created_at) VALUES (:id, :project_id, :deployment_id, :model, 'pending', :priority, "
    ":fair_key, :payload, :info, 0, 0, 0, 0, 0, 0, :deadline_at, :idempotency_key, :webhook_url, :resubmit_of, "
    ":change, :created_at)"
)
_BY_IDEMPOTENCY_KEY = Statement(
    f"SELECT {COLUMNS} FROM jobs WHERE deployment_id = :deployment_id AND idempotency_key = :key"
)
_ONE = "project_id = :project_id AND id = :job_id"
_GET = Statement(f"SELECT {COLUMNS} FROM jobs WHERE {_ONE} AND (model = :model OR deployment_id = :model)")
_GET_BY_ID = Statement(f"SELECT {COLUMNS} FROM jobs WHERE {_ONE}")
_SHOWN = {
    Include.PAYLOAD: COLUMNS,
    Include.OUTPUTS: COLUMNS.replace("payload", "'' AS payload"),
    Include.NONE: COLUMNS.replace("payload", "'' AS payload").replace("outputs", "NULL AS outputs"),
}


def _of_many(selected: str) -> Statement:
    """SELECT this of the jobs with these ids."""
    return Statement(
        # The plus signs keep the indexes of all jobs of the deployment out of this.
        f"SELECT {selected} FROM jobs WHERE +project_id = :project_id AND (+model = :model OR +deployment_id = :model) "
        "AND id IN (SELECT value FROM json_each(:ids))",
        postgres=f"SELECT {selected} FROM jobs WHERE project_id = :project_id "
        "AND (model = :model OR deployment_id = :model) AND id = ANY (:ids ::text[])",
    )


_GET_MANY = {include: _of_many(shown) for include, shown in _SHOWN.items()}
_SIZE_OF_OUTPUTS = "coalesce(length(outputs), 0)"
_SIZE_OF_MANY = {
    Include.PAYLOAD: _of_many(f"coalesce(sum(length(payload) + {_SIZE_OF_OUTPUTS}), 0)"),
    Include.OUTPUTS: _of_many(f"coalesce(sum({_SIZE_OF_OUTPUTS}), 0)"),
}
_DEPLOYMENT_OF = Statement(f"SELECT deployment_id FROM jobs WHERE {_ONE}")
_BUSY_REPLICAS = Statement("SELECT DISTINCT replica_id FROM jobs WHERE state = 'running' AND replica_id IS NOT NULL")
# Of the last thousand alone: a look at all that a busy queue has ended since would take long.
_HAS_WORKED = Statement(
    "SELECT 1 FROM (SELECT replica_id FROM jobs WHERE deployment_id = :deployment_id AND done_at IS NOT NULL "
    "AND done_at >= :since ORDER BY done_at DESC LIMIT 1000) AS last WHERE replica_id = :replica_id LIMIT 1"
)
_STUCK = Statement(
    "SELECT DISTINCT replica_id FROM jobs WHERE state = 'running' AND deployment_id = :deployment_id "
    "AND claim_expires_at > 0 AND progress_at < :before AND replica_id IS NOT NULL "
    "AND (claim_timeout_seconds IS NULL OR claim_expires_at - claim_timeout_seconds >= :heard_since)"
)
_LIVE_IN_DELETED = Statement(
    "SELECT d.project_id, d.id FROM deployments d JOIN queues q ON q.deployment_id = d.id "
    "WHERE d.deleted_at IS NOT NULL AND q.pending + q.running > 0"
)
_LAST_OF_ALL = 2**62
_ENDED = "FROM jobs WHERE deployment_id = :deployment_id AND done_at IS NOT NULL"
# The first one too many: its time, from the index alone, and then its number, in no order of another index: that would
# be read through to the end.
_NTH_ENDED = Statement(f"SELECT done_at {_ENDED} ORDER BY done_at DESC LIMIT 1 OFFSET :keep")
_NTH_AT = Statement(
    f"SELECT sequence {_ENDED} AND done_at = :at ORDER BY sequence + 0 DESC LIMIT 1 "
    f"OFFSET :keep - (SELECT count(*) {_ENDED} AND done_at > :at)"
)
_REMOVE = Statement(
    f"DELETE FROM jobs WHERE sequence IN (SELECT sequence {_ENDED} "
    "AND done_at <= :until AND (done_at < :until OR sequence <= :last) "
    "AND NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.job_id = jobs.id AND w.next_try_at IS NOT NULL) "
    "ORDER BY done_at, sequence LIMIT :limit)"
)
