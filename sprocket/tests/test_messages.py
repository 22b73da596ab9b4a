from __future__ import annotations

import json
from typing import Any

import pytest

from sprocket.errors import PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError
from sprocket.messages import Claim, Update, check_status, claims_in, decode_object, encode_batch, reason, verdicts_in


def test_an_update_is_one_object() -> None:
    update = Update('a"b', "t\u00f6ken", "done", {"payload": '{"x":1}', "info": '{"y":2}'})
    assert json.loads(update.encode("hello")) == {
        "model": "hello",
        "request_id": 'a"b',
        "attempt_token": "t\u00f6ken",
        "status": "done",
        "payload": {"x": 1},
        "info": {"y": 2},
    }
    assert json.loads(Update("a", None, "running", {}).encode("hello")) == {
        "model": "hello",
        "request_id": "a",
        "status": "running",
        "payload": {},
    }


def test_what_ends_a_job_frees_its_worker() -> None:
    statuses = ("running", "done", "failed", "canceled", "pending")
    assert [Update("a", None, status, {}).ends for status in statuses] == [False, True, True, True, True]


def test_a_batch_is_one_object() -> None:
    updates = [Update(name, "t", "done", {"payload": "{}"}) for name in "ab"]
    body = json.loads(encode_batch("hello", updates, {"max_jobs": 2}))
    assert (body["model"], body["claim"]) == ("hello", {"max_jobs": 2})
    assert [update["request_id"] for update in body["updates"]] == ["a", "b"]
    assert json.loads(encode_batch("hello", [], None)) == {"model": "hello", "updates": [], "claim": None}


CLAIM = {"request_id": "a", "payload": {"n": 1}, "priority": 3, "info": {"k": 1}, "attempt": 2, "attempt_token": "t"}


def test_claims_come_alone_in_lists_or_not_at_all() -> None:
    claim = Claim("a", {"n": 1}, 3, {"k": 1}, 2, "t")
    assert claims_in({"data": CLAIM}) == [claim]
    assert claims_in({"data": [CLAIM, {"request_id": "b"}]}) == [claim, Claim("b", None, 0, {}, 1, None)]
    empty: list[dict[str, Any]] = [{}, {"data": None}, {"data": []}]
    assert [claims_in(answer) for answer in empty] == [[], [], []]


@pytest.mark.parametrize("data", ["text", {}, [{}], [CLAIM, 1], {"request_id": 7}, {"request_id": ""}])
def test_what_is_no_claim_is_said(data: Any) -> None:
    with pytest.raises(PlatformAwayError, match="request_id"):
        claims_in({"data": data})


def test_every_update_has_its_verdict() -> None:
    fault = {"message": "why", "type": "x", "param": None, "code": None}
    answers: list[Any] = [
        {"request_id": "a", "status": "done", "cancel_requested": False},
        {"request_id": "b", "status": "running", "cancel_requested": True},
        {"request_id": "c", "error": fault, "http_status": 409},
        {"request_id": "d", "error": fault, "http_status": 404},
        {"request_id": "e", "error": fault, "http_status": 413},
        {"request_id": "f", "error": fault, "http_status": 503},
        {"request_id": "g", "error": fault, "http_status": 401},
        {"request_id": "h", "error": fault},
        "odd",
    ]
    verdicts = verdicts_in({"updates": answers}, len(answers) + 1)
    assert verdicts[:2] == [False, True]
    assert [type(verdict) for verdict in verdicts[2:]] == [
        StaleAttemptError,
        StaleAttemptError,
        PlatformRefusedError,
        *5 * [PlatformAwayError],
    ]
    assert "why" in str(verdicts[2])
    assert [type(verdict) for verdict in verdicts_in({}, 2)] == 2 * [PlatformAwayError]


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, PlatformAwayError), (429, PlatformAwayError), (400, PlatformRefusedError), (403, PlatformRefusedError)],
)
def test_a_status_is_an_error_with_its_reason(status: int, error: type[PlatformError]) -> None:
    with pytest.raises(error, match=f"{status}: why"):
        check_status(status, b'{"error": {"message": "why"}}')
    check_status(200, b"")


def test_reasons_are_found_where_there_are_some() -> None:
    bodies = [b'{"error": "short"}', b"<html>", b"[]", b'{"error": null}', b'{"error": {}}', b"\xff", b"[" * 100_000]
    assert [reason(body) for body in bodies] == ["short", "", "", "", "", "", ""]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}x", b"nan", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_object_is_said(body: bytes) -> None:
    with pytest.raises(PlatformAwayError, match="not a JSON object"):
        decode_object(body)
