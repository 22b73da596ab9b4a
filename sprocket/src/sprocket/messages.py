"""What a worker and the platform say to one another, as JSON and as values; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .errors import PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError

_decode = json.JSONDecoder().raw_decode
"""What `json.loads` comes down to; the way there costs a worker that wakes for a claim another 0.03 ms."""

_quote = json.JSONEncoder().encode

AWAY_STATUSES = frozenset({408, 425, 429})
STALE_STATUSES = frozenset({404, 409})
KEY_STATUSES = frozenset({401, 403})


class Claim(NamedTuple):
    """A job as the queue hands it over. `attempt_token` is None where the platform fences by host name."""

    request_id: str
    payload: Any
    priority: int
    info: Mapping[str, Any]
    attempt: int
    attempt_token: str | None


class Update(NamedTuple):
    """What a worker says of a job that it holds.

    Attributes:
        request_id: the job.
        attempt_token: the attempt's, where the claim came with one.
        status: running, done, failed, canceled or pending.
        fields: further fields of the body, each already JSON text.
    """

    request_id: str
    attempt_token: str | None
    status: str
    fields: Mapping[str, str]

    @property
    def ends(self) -> bool:
        """Whether the worker has its hands free after this."""
        return self.status != "running"

    @property
    def size_chars(self) -> int:
        """About how long it is; what counts is in the fields."""
        return sum(map(len, self.fields.values()))

    def encode(self, deployment: str | None = None) -> str:
        """Give the update as JSON text.

        Args:
            deployment: where the update is a request of its own: whose job it is.
        """
        model = "" if deployment is None else f'"model":{_quote(deployment)},'
        token = "" if self.attempt_token is None else f'"attempt_token":{_quote(self.attempt_token)},'
        further = "".join([f',"{name}":{text}' for name, text in self.fields.items() if name != "payload"])
        return (
            f'{{{model}"request_id":{_quote(self.request_id)},{token}'
            f'"status":"{self.status}","payload":{self.fields.get("payload", "{}")}{further}}}'
        )


Verdict = bool | PlatformError
"""How an update fared: whether somebody has asked for the job to be cancelled, or why it was not taken."""


def encode_batch(deployment: str, updates: Iterable[Update], claim: Mapping[str, Any] | None) -> bytes:
    """Put updates and the wish for jobs together as one body."""
    wish = "null" if claim is None else json.dumps(claim)
    texts = ",".join([update.encode() for update in updates])
    return f'{{"model":{_quote(deployment)},"updates":[{texts}],"claim":{wish}}}'.encode()


def decode_object(body: bytes) -> dict[str, Any]:
    """Read an answer's body.

    Raises:
        PlatformAwayError: it is no JSON object.
    """
    try:
        text = body.decode().strip()
        value, end = _decode(text)
        if end != len(text):
            value = None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PlatformAwayError("the answer is not a JSON object")
    return value


def claims_in(answer: Mapping[str, Any]) -> list[Claim]:
    """Find the jobs in an answer: one, a list of them, or none.

    Raises:
        PlatformAwayError: there is something else in their place.
    """
    data = answer.get("data")
    if data is None:
        return []
    if isinstance(data, list):
        return [_claim_of(item) for item in data]
    return [_claim_of(data)]


def verdicts_in(answer: Mapping[str, Any], count: int) -> list[Verdict]:
    """Find how each of `count` updates fared, in their order; those that are not answered have not got through."""
    items = answer.get("updates")
    items = items if isinstance(items, list) else []
    found = [_verdict_of(item) for item in items[:count]]
    return found + [PlatformAwayError("the answer leaves the update out")] * (count - len(found))


def check_status(status: int, body: bytes) -> None:
    """Raise what an answer's status says, unless it says that all is well.

    Raises:
        PlatformAwayError: another try may help.
        PlatformRefusedError: another try changes nothing.
    """
    if status < 300:
        return
    text = reason(body) or f"HTTP {status}"
    if status >= 500 or status in AWAY_STATUSES:
        raise PlatformAwayError(f"the platform answered {status}: {text}")
    if status in KEY_STATUSES:
        text = f"{text} (is TOGETHER_API_KEY a key for this deployment?)"
    raise PlatformRefusedError(status, f"the platform answered {status}: {text}")


def check_update(status: int, body: bytes) -> None:
    """Raise what the answer to an update says.

    Raises:
        StaleAttemptError: the job is no longer this attempt's.
        PlatformAwayError, PlatformRefusedError: as for `check_status`.
    """
    if status < 300:
        return
    if status in KEY_STATUSES:
        # Whoever could claim may report: a key that is being rotated must not cost a finished job.
        raise PlatformAwayError(reason(body) or f"the platform answered {status}")
    if status in STALE_STATUSES:
        raise StaleAttemptError(reason(body) or f"the platform answered {status}")
    check_status(status, body)


def reason(body: bytes) -> str:
    """Find the text of an error's answer; empty where there is none."""
    try:
        return _reason_in(json.loads(body))
    except (ValueError, RecursionError):
        return ""


def _reason_in(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", "") if isinstance(error, dict) else error or "")[:500]


def _claim_of(data: Any) -> Claim:
    if not isinstance(data, dict) or not isinstance(data.get("request_id"), str) or not data["request_id"]:
        raise PlatformAwayError("the claim has no request_id")
    token, info, priority = data.get("attempt_token"), data.get("info"), data.get("priority")
    return Claim(
        request_id=data["request_id"],
        payload=data.get("payload"),
        priority=priority if isinstance(priority, int) else 0,
        info=info if isinstance(info, dict) else {},
        attempt=data["attempt"] if isinstance(data.get("attempt"), int) else 1,
        attempt_token=token if isinstance(token, str) else None,
    )


def _verdict_of(item: Any) -> Verdict:
    if not isinstance(item, dict):
        return PlatformAwayError("the answer to the update is no object")
    if item.get("error") is None:
        return bool(item.get("cancel_requested"))
    status = item.get("http_status")
    try:
        check_update(status if isinstance(status, int) and status >= 400 else 502, json.dumps(item).encode())
    except PlatformError as error:
        return error
    return PlatformAwayError("the answer to the update makes no sense")
