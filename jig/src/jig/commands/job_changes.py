"""What a person does to submitted jobs: `jig jobs cancel` and `retry`, and `jig job-cancel`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.errors import ConflictError, IncompleteError, NotFoundError, UnsupportedError, UsageError
from jig.job_list import failed_once, in_portions
from jig.nearest import missing_deployment, naming
from jig.options import PROJECT_DEFAULTS, Duration, Name, NameOption, ProjectGlobals, RequestId
from jig.session import Session
from jig.tables import columns
from jig.units import SECONDS_PER_HOUR, count

MAX_GRACE_HOURS = 1

GRACE = "How long a running job's worker gets to stop by itself; then it is canceled all the same. [default: 30s]"
ALL_FAILED = "All failed jobs of the deployment that have not been retried yet."

ASKED = "running: its worker has been asked to stop"


def job_cancel(request_id: RequestId, name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Cancel a job: a pending one at once, a running one as soon as its worker takes it up."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        answer = canceled(session.client, {"model": name, "request_id": request_id})
    text = "It is running: its worker has been asked to stop." if is_asked(answer) else f"{request_id} is canceled."
    session.output.result(answer, text)


def cancel(
    *request_ids: Annotated[str, Parameter(help="The jobs' IDs.")],
    name: NameOption = None,
    grace: Annotated[Duration | None, Parameter(help=GRACE)] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Cancel jobs: pending ones at once, running ones when their worker stops, or after a grace time."""
    session = Session(options)
    if not request_ids:
        raise UsageError("Which jobs? Give their IDs.", hint="`jig jobs list` shows them.")
    if grace is not None and grace > MAX_GRACE_HOURS * SECONDS_PER_HOUR:
        raise UsageError(f"--grace must be at most {MAX_GRACE_HOURS}h.")
    name = session.deployment_name(name)
    asked = {"model": name} | ({} if grace is None else {"grace_seconds": grace})
    with naming(session.client, name):
        outcomes = [outcome(session.client, {**asked, "request_id": each}) for each in request_ids]
    refused = [each for each in outcomes if each["error"]]
    is_unknown = any(each["status"] is None for each in refused)
    hint = missing_deployment(session.client, name) if is_unknown else None
    if refused and session.output.json:
        raise IncompleteError(refusal(len(refused), len(outcomes)), hint=hint, details={"data": outcomes})
    session.output.result({"object": "list", "data": outcomes}, "\n".join(map(outcome_text, outcomes)))
    if refused:
        raise IncompleteError(refusal(len(refused), len(outcomes)), hint=hint)


def retry(
    *request_ids: Annotated[str, Parameter(help="The jobs' IDs.")],
    name: NameOption = None,
    all_failed: Annotated[bool, Parameter(negative=(), show_default=False, help=ALL_FAILED)] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Submit ended jobs again, as new ones with new IDs."""
    session = Session(options)
    if bool(request_ids) == all_failed:
        raise UsageError("Which jobs? Give their IDs, or --all-failed.", hint="`jig jobs list` shows them.")
    client, name = session.client, session.deployment_name(name)
    repeated: list[dict[str, Any]] = []
    with naming(client, name):
        wanted = failed_once(client, name) if all_failed else list(dict.fromkeys(request_ids))
        for portion in in_portions(wanted):
            repeated += resubmitted(client, name, portion, len(repeated))
    rows = [(str(each["resubmit_of"]), str(each["request_id"])) for each in repeated]
    text = columns(("JOB", "SUBMITTED AGAIN AS"), rows)
    session.output.result({"object": "list", "data": repeated}, text if repeated else "No failed jobs to retry.")


def resubmitted(client: Client, name: str, request_ids: list[str], before: int) -> list[dict[str, Any]]:
    """The new jobs of these; all or none of them.

    Raises:
        PlatformError: one of them is unknown or has not ended.
    """
    try:
        answer = client.post("/v1/queue/resubmit", {"model": name, "request_ids": request_ids})
    except ConflictError as error:
        done = f"{count(before, 'job')} submitted again before that." if before else "Nothing was submitted."
        error.hint = f"Only ended jobs are retried. {done}"
        raise
    data: list[dict[str, Any]] = answer["data"]
    return data


def outcome(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """What became of one job that should be canceled: its status, and the error where it was refused."""
    found: dict[str, Any] = {"request_id": body["request_id"], "status": None, "cancel_requested": False, "error": None}
    try:
        answer = canceled(client, body)
    except UnsupportedError:
        raise
    except NotFoundError as error:
        return found | {"error": error.message}
    except ConflictError as error:
        status = error.body.get("status")
        return found | {"status": status, "error": None if status == "canceled" else error.message}
    return found | {"status": answer.get("status"), "cancel_requested": is_asked(answer)}


def canceled(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    """The platform's answer to a cancel, that of a running job included.

    Raises:
        ConflictError: the job has ended.
    """
    try:
        answer: dict[str, Any] = client.post("/v1/queue/cancel", body)
    except ConflictError as error:
        if not error.body.get("cancel_requested"):
            raise
        return {"request_id": body["request_id"], "status": error.body.get("status"), "cancel_requested": True}
    return answer


def is_asked(answer: dict[str, Any]) -> bool:
    """True where the job runs on until its worker stops it."""
    return bool(answer.get("cancel_requested")) and answer.get("status") != "canceled"


def outcome_text(found: dict[str, Any]) -> str:
    """One line for one job."""
    return f"{found['request_id']}  {found['error'] or (ASKED if found['cancel_requested'] else found['status'])}"


def refusal(refused: int, total: int) -> str:
    """How many jobs were not canceled."""
    return f"{refused} of {count(total, 'job')} could not be canceled."
