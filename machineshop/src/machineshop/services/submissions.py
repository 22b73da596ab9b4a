"""Submissions: what somebody may submit as a job, and the job that it becomes. Pure."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from machineshop.errors import IdempotencyKeyReused, InvalidRequest, PayloadTooLarge
from machineshop.ids import new_id
from machineshop.models import Deployment, Job
from machineshop.states import JobState
from machineshop.store.jobs import is_same
from machineshop.store.moves import INFO_LIMIT_BYTES

MAX_PRIORITY = 2**31 - 1
MAX_DEADLINE_SECONDS = 30 * 86400
PAYLOAD_LIMIT_BYTES = 1024 * 1024
# What an attempt noted about its end does not belong to the next submit of the job.
NOTES_OF_THE_END = frozenset({"error", "traceback", "stacks", "sprocket"})


class Submission(msgspec.Struct):
    """A job as somebody submits it."""

    model: Annotated[str, msgspec.Meta(max_length=255)]
    payload: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
    priority: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY})] = 0
    info: dict[str, Any] | None = None
    fair_key: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_DEADLINE_SECONDS)] | None = None
    webhook_url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)] | None = None


class Submitted(msgspec.Struct, frozen=True):
    """What became of a submission."""

    job: Job
    duplicate: bool
    """Its idempotency key stood for this job already."""


def check(submission: Submission, place: str, check_webhook_url: Callable[[str], object]) -> None:
    """Refuse what cannot be a job.

    Args:
        submission: What somebody wants to submit.
        place: Where it stands in the request, such as `[3].`.
        check_webhook_url: Refuses a URL to which no webhook may go.

    Raises:
        InvalidRequest: The payload is not an object, or another field is out of range; `param` names it.
        PayloadTooLarge: The payload or the info is too long.
    """
    check_object(submission.payload, f"{place}payload")
    if len(bytes(submission.payload)) > PAYLOAD_LIMIT_BYTES:
        raise PayloadTooLarge(
            what=f"'{place}payload'",
            limit_bytes=PAYLOAD_LIMIT_BYTES,
            mend="Upload large inputs as files and send their URLs.",
        )
    if submission.info and len(msgspec.json.encode(submission.info)) > INFO_LIMIT_BYTES:
        raise PayloadTooLarge(
            what=f"'{place}info'", limit_bytes=INFO_LIMIT_BYTES, mend="Put what is large into the payload."
        )
    if abs(submission.priority) > MAX_PRIORITY:
        raise InvalidRequest(
            f"'{place}priority' must be between -{MAX_PRIORITY} and {MAX_PRIORITY}.", param=f"{place}priority"
        )
    if submission.webhook_url is not None:
        try:
            check_webhook_url(submission.webhook_url)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, param=f"{place}webhook_url") from None


def check_object(raw: msgspec.Raw, param: str) -> None:
    """Refuse what is no JSON object.

    Raises:
        InvalidRequest: It is something else.
    """
    if not bytes(raw).lstrip().startswith(b"{"):
        raise InvalidRequest(f'\'{param}\' must be a JSON object, such as {{"prompt": "hello"}}.', param=param)


def new_job(deployment: Deployment, submission: Submission, job_id: str, now: float) -> Job:
    """The job that a submission asks for."""
    deadline = submission.deadline_seconds
    return Job(
        id=job_id,
        project_id=deployment.project_id,
        deployment_id=deployment.id,
        model=deployment.name,
        state=JobState.PENDING,
        priority=submission.priority,
        fair_key=submission.fair_key or "",
        payload=submission.payload,
        info=submission.info or {},
        deadline_at=None if deadline is None else now + deadline,
        idempotency_key=submission.idempotency_key,
        webhook_url=submission.webhook_url,
        created_at=now,
    )


def check_keys(new: Sequence[Job]) -> None:
    """Refuse jobs of one request that have an idempotency key in common and different payloads.

    Raises:
        IdempotencyKeyReused: Two of them do.
    """
    first: dict[tuple[str, str], int] = {}
    for number, job in enumerate(new):
        if job.idempotency_key is None:
            continue
        before = first.setdefault((job.deployment_id, job.idempotency_key), number)
        if before != number and not is_same(new[before].payload, job.payload):
            param = f"[{number}].idempotency_key"
            raise IdempotencyKeyReused(first=before, second=number, key=job.idempotency_key, param=param)


def job_again(job: Job, now: float) -> Job:
    """A new job with what an ended one was submitted with."""
    return Job(
        id=new_id(),
        project_id=job.project_id,
        deployment_id=job.deployment_id,
        model=job.model,
        state=JobState.PENDING,
        priority=job.priority,
        fair_key=job.fair_key,
        payload=job.payload,
        info={name: value for name, value in job.info.items() if name not in NOTES_OF_THE_END},
        webhook_url=job.webhook_url,
        resubmit_of=job.id,
        created_at=now,
    )
