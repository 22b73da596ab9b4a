"""Attempts: what a worker says of the job that it holds. Each is one move; `losses` has the ends without its word."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.errors import PayloadTooLarge
from machineshop.states import JobVerb
from machineshop.store import chunks, files, queues
from machineshop.store.charges import charge_renewed
from machineshop.store.chunks import Chunks
from machineshop.store.ends import Ends
from machineshop.store.losses import DELETED, MAX_RETRIES
from machineshop.store.moves import INFO_LIMIT_BYTES, Holder, end, merged_info, move, with_info
from machineshop.store.statement import Statement

# A job that was handed back this often is counted as lost from then on.
MAX_RELEASES = 10


def renew(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    info: dict[str, Any],
    progress_at: float | None,
    now: float,
    given: Chunks | None = None,
) -> bool:
    """Extend the claim by its own length, merge `info`, keep what was given; True when a cancel was asked for.

    Raises:
        NotFound: No such job.
        StaleAttempt: The holder does not hold it.
        PayloadTooLarge: The info, or what was given, would be too much.
    """
    changed: dict[str, Any] = {} if progress_at is None else {"progress_at": progress_at}
    if info:
        changed["info"] = merged = merged_info(conn, project_id, job_id, info)
        if len(merged) > INFO_LIMIT_BYTES:
            raise PayloadTooLarge(what="The job's info", limit_bytes=INFO_LIMIT_BYTES, mend="Emit less of it.")
    if given is not None:
        chunks.check_room(conn, job_id, given)
    moved = move(conn, JobVerb.RENEW, project_id, job_id, holder, now, changed)
    if given is not None:
        chunks.append(conn, job_id, moved.attempt, given)
    if info:
        queues.tally(conn, moved.deployment_id)
    charge_renewed(conn, job_id, moved, now)
    return bool(moved.cancel_requested)


def finish(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    outputs: msgspec.Raw,
    info: dict[str, Any],
    now: float,
    ends: Ends,
) -> None:
    """Store the result, with the files that the attempt has uploaded. Raises as `renew`."""
    changed = {"outputs": bytes(outputs).decode(), **with_info(conn, project_id, job_id, info)}
    moved = end(conn, JobVerb.FINISH, project_id, job_id, holder, now, changed, ends)
    if moved.has_files:
        files.publish_attempt(conn, job_id, moved.attempt)


def fail(
    conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float, ends: Ends
) -> None:
    """Store the model's failure, whose text is in `info["error"]`. Raises as `renew`."""
    end(conn, JobVerb.FAIL, project_id, job_id, holder, now, with_info(conn, project_id, job_id, info), ends)


def abandon(
    conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float, ends: Ends
) -> None:
    """The worker took up the user's cancel. Raises as `renew`."""
    end(conn, JobVerb.ABANDON, project_id, job_id, holder, now, with_info(conn, project_id, job_id, info), ends)


def release(conn: Connection, project_id: str, job_id: str, holder: Holder, now: float, ends: Ends) -> None:
    """Put the job back unharmed. Raises as `renew`.

    Where nobody wants it any longer, because it is to be canceled or its deployment is gone, it is canceled instead.
    A job that was handed back too often counts as lost.
    """
    row = _RELEASING.one(conn, {"project_id": project_id, "job_id": job_id})
    unwanted, releases, retries = row or (False, 0, 0)
    verb, changed = JobVerb.RELEASE, {}
    if unwanted:
        verb = JobVerb.ABANDON
    elif releases >= MAX_RELEASES:
        verb = JobVerb.LOSE
        if retries >= MAX_RETRIES:
            verb = JobVerb.GIVE_UP
            error = f"The job was handed back {releases} times, and lost {retries} times: it was given up."
            changed = with_info(conn, project_id, job_id, {"error": error})
    end(conn, verb, project_id, job_id, holder, now, changed, ends)


# Of a job: the user wants it canceled, or its deployment is deleted.
_RELEASING = Statement(
    f"SELECT cancel_requested = 1 OR {DELETED}, releases, retries FROM jobs "
    "WHERE project_id = :project_id AND id = :job_id"
)
