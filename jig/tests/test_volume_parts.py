"""Units of several threads, and uploads in parts as they are remembered."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from jig.errors import PlatformError, UnreachableError
from jig.volumes.crew import Crew, Unit
from jig.volumes.parts import (
    LIFETIME_SECONDS,
    MIB,
    PART_BYTES,
    Journal,
    PartedUpload,
    part_bytes_of,
    remove_old_journals,
)

UPLOAD = PartedUpload("upload-1", PART_BYTES, [{"part_number": 1, "url": "http://x/1"}, {"part_number": 2, "url": "y"}])


def test_units_bring_more_units() -> None:
    done: list[str] = []

    def first() -> tuple[Unit, ...]:
        done.append("first")
        return (second, second)

    def second() -> tuple[Unit, ...]:
        done.append("second")
        return ()

    Crew(3).run([first, first])
    assert sorted(done) == ["first"] * 2 + ["second"] * 4


def test_the_first_error_ends_all_threads() -> None:
    crew, began = Crew(2), threading.Event()

    def fails() -> tuple[Unit, ...]:
        began.wait(60)
        raise ValueError("first")

    def goes_on() -> tuple[Unit, ...]:
        began.set()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            crew.check()
        raise AssertionError("it was not stopped")

    with pytest.raises(ValueError, match="first"):
        crew.run([fails, goes_on, goes_on])


@pytest.mark.parametrize("error", [UnreachableError("away"), PlatformError("unwell", status=503)], ids=["away", "503"])
def test_what_passes_is_tried_again(error: PlatformError) -> None:
    errors = [error, error]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    assert Crew(1).patiently(call) == "answer"


def test_patience_has_an_end() -> None:
    def call() -> None:
        raise PlatformError("unwell", status=503)

    with pytest.raises(PlatformError, match="unwell"):
        Crew(1).patiently(call, patience_seconds=0.1)


@pytest.mark.parametrize(("silence_seconds", "times"), [(0.0, 1), (60.0, 0)])
def test_a_platform_that_is_waited_for_is_said_once(
    monkeypatch: pytest.MonkeyPatch, silence_seconds: float, times: int
) -> None:
    monkeypatch.setattr("jig.patience.SILENCE_SECONDS", silence_seconds)
    said: list[str] = []
    errors = [PlatformError("It is away.", status=503) for _ in range(3)]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    assert Crew(1, said.append).patiently(call) == "answer"
    assert said == ["It is away. Trying again, for 120 s at most."] * times


def test_what_is_refused_is_not_tried_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise PlatformError("sealed", status=409)

    with pytest.raises(PlatformError):
        Crew(1).patiently(call)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(200 * MIB, PART_BYTES), (10_000 * PART_BYTES, PART_BYTES), (10_000 * PART_BYTES + 1, PART_BYTES + MIB)],
)
def test_parts_are_never_too_many(size_bytes: int, expected: int) -> None:
    assert part_bytes_of(size_bytes) == expected
    assert -(-size_bytes // part_bytes_of(size_bytes)) <= 10_000


def test_an_upload_is_remembered_part_by_part(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "platform", "file")
    assert journal.read(1000.0) is None
    now = time.time()
    journal.begin(UPLOAD, now)
    journal.add(2, "etag-2")
    read = Journal(tmp_path, "platform", "file").read(now)
    assert read is not None
    assert (read.upload_id, read.urls, read.etags) == ("upload-1", UPLOAD.urls, {2: "etag-2"})
    assert Journal(tmp_path, "platform", "another file").read(now) is None
    assert journal.read(now + LIFETIME_SECONDS + 1) is None
    journal.forget()
    assert journal.read(now) is None


@pytest.mark.parametrize("rest", ["[1, ", "\0\0\0", "{}"])
def test_a_damaged_line_costs_its_part_alone(tmp_path: Path, rest: str) -> None:
    journal = Journal(tmp_path, "file")
    journal.begin(UPLOAD, time.time())
    journal.add(1, "etag-1")
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + rest)
    read = journal.read(time.time())
    assert read is not None
    assert read.etags == {1: "etag-1"}


@pytest.mark.parametrize("text", ["", "no json\n", "[]\n", json.dumps({"upload_id": "x"}) + "\n"])
def test_a_damaged_journal_is_none(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path, "file")
    journal.begin(UPLOAD, time.time())
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert journal.read(time.time()) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file" / "uploads", "file")
    journal.begin(UPLOAD, time.time())
    journal.add(1, "etag")
    assert journal.read(time.time()) is None
    journal.forget()


def test_old_journals_are_removed(tmp_path: Path) -> None:
    for key in ("old", "new"):
        Journal(tmp_path, key).begin(UPLOAD, time.time())
    old = min(tmp_path.iterdir())
    os.utime(old, (0, 0))
    remove_old_journals(tmp_path)
    assert old not in list(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 1
