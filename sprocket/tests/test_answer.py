"""Answers from bytes: every way of framing, every way of cutting, and what is no answer."""

from __future__ import annotations

import pytest

from sprocket.answer import BODY_LIMIT_BYTES, HEAD_LIMIT_BYTES, Answer
from sprocket.errors import PlatformAwayError

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n"

WHOLE = {
    "length": OK + b"date: today\r\nContent-Length: 5\r\nx: y\r\n\r\nhello",
    "chunks": CHUNKED + b"2;name=value\r\nhe\r\n03 \r\nllo\r\n0\r\ntrailer: x\r\n\r\n",
    "interim answers first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\n"
    + OK
    + b"content-length:5\r\n\r\nhello",
    "no reason": b"HTTP/1.1 200\r\ncontent-length: 5\t\r\n\r\nhello",
}


def feed_all(answer: Answer, pieces: list[bytes]) -> None:
    for piece in pieces:
        answer.feed(piece)


def fed(raw: bytes, piece_bytes: int | None = None) -> Answer:
    answer = Answer()
    step = piece_bytes or len(raw)
    for at in range(0, len(raw), step):
        assert not answer.complete
        assert answer.feed(raw[at : at + step]) == answer.complete
    return answer


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_is_the_same_however_it_is_cut(name: str) -> None:
    raw = WHOLE[name]
    for piece_bytes in range(1, len(raw) + 1):
        answer = fed(raw, piece_bytes)
        assert (answer.status, answer.body, answer.complete, answer.reusable) == (200, b"hello", True, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        OK + b"content-length: 5\r\nconnection: Close\r\n\r\nhello",
        OK + b"content-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
        OK + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\nmore",
    ],
    ids=["old version", "says so", "more bytes", "two lengths", "more bytes after chunks"],
)
def test_after_some_answers_the_connection_is_not_used_again(raw: bytes) -> None:
    answer = fed(raw)
    assert (answer.body, answer.complete, answer.reusable) == (b"hello", True, False)


def test_bytes_after_the_answer_end_the_connection() -> None:
    answer = fed(WHOLE["length"])
    assert answer.feed(b"HTTP/1.1 408 Request Timeout\r\n")
    assert (answer.body, answer.reusable) == (b"hello", False)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    answer = fed(OK + b"\r\nhello")
    assert not answer.complete
    assert answer.end()
    assert (answer.body, answer.reusable) == (b"hello", False)


@pytest.mark.parametrize("raw", [OK, OK + b"content-length: 5\r\n\r\nhell", CHUNKED + b"5\r\nhello\r\n"])
def test_an_answer_that_stops_early_is_not_complete(raw: bytes) -> None:
    assert not fed(raw).end()


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    answer = fed(b"HTTP/1.1 %d x\r\ncontent-length: 7\r\n\r\n" % status)
    assert (answer.status, answer.body, answer.complete, answer.reusable) == (status, b"", True, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"H\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
        OK + b"content-length: 0x5\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"five\r\n",
        CHUNKED + b"-5\r\n",
        CHUNKED + b"2\r\nhello\r\n",
        CHUNKED + b"1" * 5000,
    ],
)
def test_what_is_no_answer_is_said_at_once(raw: bytes) -> None:
    with pytest.raises(PlatformAwayError, match="not understood"):
        fed(raw)


@pytest.mark.parametrize("line", [b"x: " + b"y" * HEAD_LIMIT_BYTES, b"x" * (HEAD_LIMIT_BYTES + 1)])
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_has_a_limit(line: bytes, end: bytes) -> None:
    with pytest.raises(PlatformAwayError, match="head is too large"):
        fed(OK + line + end, 4096)


@pytest.mark.parametrize("digits", [b"%d" % (BODY_LIMIT_BYTES + 1), b"9" * 5000])
def test_an_announced_body_has_a_limit(digits: bytes) -> None:
    with pytest.raises(PlatformAwayError):
        fed(OK + b"content-length: " + digits + b"\r\n\r\n")


@pytest.mark.parametrize("start", [OK + b"\r\n", CHUNKED + b"7fffffff\r\n"])
def test_an_unannounced_body_has_a_limit(start: bytes) -> None:
    answer = fed(start)
    with pytest.raises(PlatformAwayError, match="larger than"):
        feed_all(answer, 129 * [b"x" * (1 << 20)])
