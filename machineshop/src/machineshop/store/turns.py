"""A worker's turn: what it says of the jobs it holds, and its claim of the next ones, in one transaction."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.errors import MachineshopError
from machineshop.models import Claim
from machineshop.states import JobVerb
from machineshop.store import attempts, claims
from machineshop.store.chunks import Chunks
from machineshop.store.claims import Wanted
from machineshop.store.ends import Ends
from machineshop.store.finishing import Result, finish_together
from machineshop.store.moves import Holder

# Fewer are as quick one by one.
MIN_TOGETHER = 3


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of one job."""

    verb: JobVerb
    """RENEW, FINISH, FAIL, ABANDON or RELEASE."""
    job_id: str
    token: str | None = None
    info: dict[str, Any] = {}
    outputs: msgspec.Raw = msgspec.Raw(b"{}")
    given: Chunks | None = None
    """With RENEW: what the model has given of its outputs."""
    progress_at: float | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an update."""

    cancel_requested: bool = False
    error: MachineshopError | None = None
    """Nothing was changed, and this is why."""


class Turn(msgspec.Struct, frozen=True):
    """What became of a worker's turn."""

    told: list[Told]
    handed: list[Claim]
    opens: bool
    """There may be something to claim now that was not there before."""


def take_turn(
    conn: Connection,
    project_id: str,
    deployment_id: str,
    holder: Holder,
    updates: list[Update],
    wanted: Wanted | None,
    now: float,
) -> Turn:
    """Apply updates, each on its own, then claim where that is wanted."""
    ends = Ends()
    finished = _finish_together(conn, project_id, holder, updates, now, ends)
    told = [
        Told() if number in finished else _try(conn, project_id, holder, update, now, ends)
        for number, update in enumerate(updates)
    ]
    opens = ends.write(conn)
    handed = [] if wanted is None else claims.claim(conn, deployment_id, wanted)
    return Turn(told, handed, opens)


def update(conn: Connection, project_id: str, holder: Holder, said: Update, now: float) -> tuple[Told, bool]:
    """Apply one update; whether there may be something to claim now that was not there before.

    Raises:
        NotFound: No such job.
        StaleAttempt: Somebody else holds it, or it has ended.
    """
    ends = Ends()
    told = _apply(conn, project_id, holder, said, now, ends)
    return told, ends.write(conn)


def _apply(conn: Connection, project_id: str, holder: Holder, said: Update, now: float, ends: Ends) -> Told:
    holder = msgspec.structs.replace(holder, token=said.token)
    match said.verb:
        case JobVerb.RENEW:
            cancel_requested = attempts.renew(
                conn, project_id, said.job_id, holder, said.info, said.progress_at, now, said.given
            )
            return Told(cancel_requested=cancel_requested)
        case JobVerb.FINISH:
            attempts.finish(conn, project_id, said.job_id, holder, said.outputs, said.info, now, ends)
        case JobVerb.FAIL:
            attempts.fail(conn, project_id, said.job_id, holder, said.info, now, ends)
        case JobVerb.ABANDON:
            attempts.abandon(conn, project_id, said.job_id, holder, said.info, now, ends)
        case JobVerb.RELEASE:
            attempts.release(conn, project_id, said.job_id, holder, now, ends)
        case other:
            raise ValueError(other)
    return Told()


def _finish_together(
    conn: Connection, project_id: str, holder: Holder, updates: list[Update], now: float, ends: Ends
) -> set[int]:
    """Store the plain results among the updates at once; which those were that could be."""
    plain = {
        update.job_id: number
        for number, update in enumerate(updates)
        if update.verb is JobVerb.FINISH and update.token is not None
    }
    # What else is said of the same jobs has its order.
    if len(plain) < MIN_TOGETHER or len({update.job_id for update in updates}) < len(updates):
        return set()
    results = [Result(id_, updates[n].token or "", updates[n].outputs, updates[n].info) for id_, n in plain.items()]
    return {plain[job_id] for job_id in finish_together(conn, project_id, holder, results, now, ends)}


def _try(conn: Connection, project_id: str, holder: Holder, said: Update, now: float, ends: Ends) -> Told:
    """An update that is refused changes nothing, so the others can go on in the same transaction."""
    try:
        return _apply(conn, project_id, holder, said, now, ends)
    except MachineshopError as error:
        return Told(error=error)
