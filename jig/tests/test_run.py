"""The parts of a run of a file's jobs: lines, portions, endings, results, and what is said of them."""

import io
import itertools
import json
from pathlib import Path

import pytest

from jig.errors import JigError, UsageError
from jig.run.collector import LOOK_BYTES, LOOK_JOBS, fitting
from jig.run.job_file import ERRORS_SHOWN, FileJob, JobFile, opened
from jig.run.job_lines import PAYLOAD_LIMIT_BYTES, LineError, parse_line
from jig.run.jobs import Counts, RunJobs
from jig.run.portions import PORTION_BYTES, PORTION_JOBS, Item, idempotency_key, item_of, portions, request_body
from jig.run.report import Progress, Rate, broken_off_text, summary_document, summary_text
from jig.run.results import Results


def counts(**numbers: int) -> Counts:
    return Counts(
        **{"total": 10, "submitted": 10, "repeated": 0, "done": 0, "failed": 0, "canceled": 0, "gone": 0, **numbers}
    )


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b'{"n": 1}', {"payload": {"n": 1}}),
        (b"{}", {"payload": {}}),
        (b'\xef\xbb\xbf {"n": 1}', {"payload": {"n": 1}}),
        (b'{"payload": {"payload": 1}, "priority": -3}', {"payload": {"payload": 1}, "priority": -3}),
        (b'{"payload": {}, "fair_key": null, "info": {}}', {"payload": {}, "fair_key": None, "info": {}}),
        ('{"text": "a\u2028b", "u": "\\u00e9"}'.encode(), {"payload": {"text": "a\u2028b", "u": "é"}}),
        (b'{"text": "@@me"}', {"payload": {"text": "@@me"}}),
    ],
)
def test_a_line_is_a_payload_or_holds_one(line: bytes, fields: object) -> None:
    assert parse_line(line) == fields


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        (b"", 1, "not JSON"),
        (b"hello", 1, "not JSON"),
        (b'{"n": 1} x', 10, "not JSON: Extra data"),
        (b'{"n": }', 7, "not JSON"),
        (b"[1]", 1, "must be a JSON object"),
        (b'"text"', 1, "not a string"),
        (b'{"a": "NaN", "b": [NaN]}', 20, "NaN is no JSON value"),
        (b'{"a": -Infinity}', 7, "-Infinity is no JSON value"),
        (b'{"a": 1e999}', 1, "larger than any"),
        (b'{"a": "\\ud800"}', 1, "surrogate"),
        (b'{"a": "\xff"}', 8, "not UTF-8"),
        (b'{"n": ' + b"[" * 100_000, 1, "nested too deeply"),
        (b'{"payload": [1]}', 2, '"payload" must be an object, not an array'),
        (b'{"payload": {"prio": 1}, "prio": 1}', 26, '"prio" is no field of a job'),
        (b'{"priority": "high", "payload": {}}', 2, '"priority" must be a whole number'),
        (b'{"priority": true, "payload": {}}', 2, '"priority" must be a whole number'),
        (b'{"payload": {}, "deadline_seconds": 0}', 17, "above 0"),
        (b'{"payload": {}, "deadline_seconds": 2592001}', 17, "at most 30 days"),
        (b'{"payload": {}, "webhook_url": "ftp://x"}', 17, "an http or https URL"),
        (b'{"payload": {}, "fair_key": ""}', 17, "1 to 128 characters"),
        (b'{"payload": {}, "idempotency_key": 7}', 17, "1 to 255 characters"),
        (b'{"payload": {}, "info": []}', 17, "an object"),
        (b'{"a": 1, "image": "@missing.png"}', 10, "missing.png, which does not exist"),
        (b'{"payload": {"image": "@missing.png"}}', 2, "missing.png, which does not exist"),
        (json.dumps({"text": "x" * PAYLOAD_LIMIT_BYTES}).encode(), 1, "put large inputs into files"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_column(line: bytes, column: int, said: str) -> None:
    with pytest.raises(LineError) as raised:
        parse_line(line)
    assert said in raised.value.message
    assert raised.value.column == column


def test_a_file_is_checked_whole_and_its_bad_lines_are_named() -> None:
    good = JobFile("jobs.jsonl", io.BytesIO(b'{"n": 1}\r\n\n   \n{"n": 2}'))
    assert good.check() == 2
    assert [(job.number, job.fields["payload"]) for job in good.jobs()] == [(1, {"n": 1}), (4, {"n": 2})]
    bad = JobFile("jobs.jsonl", io.BytesIO(b'{"n": 1}\n[]\n' + b"x\n" * 20))
    with pytest.raises(UsageError) as raised:
        bad.check()
    lines = raised.value.message.splitlines()
    assert lines[0] == "21 lines of jobs.jsonl are no jobs:"
    assert lines[1].startswith("jobs.jsonl:2:1: it must be a JSON object")
    assert lines[-1] == f"... and {21 - ERRORS_SHOWN} lines more"
    assert len(lines) == ERRORS_SHOWN + 2
    with pytest.raises(UsageError, match="holds no jobs"):
        JobFile("empty.jsonl", io.BytesIO(b"\n\n")).check()


def test_an_idempotency_key_belongs_to_one_line() -> None:
    line = b'{"payload": {}, "idempotency_key": "a"}\n'
    with pytest.raises(UsageError, match=r"jobs.jsonl:3:1: .* is that of line 1"):
        JobFile("jobs.jsonl", io.BytesIO(line + b"{}\n" + line)).check()


def test_a_line_without_end_takes_no_memory_without_end() -> None:
    with pytest.raises(UsageError, match=r"jobs.jsonl:1:\d+: the line is longer than 8.0 MiB"):
        JobFile("jobs.jsonl", io.BytesIO(b'{"a": "' + b"x" * (20 * 1024 * 1024) + b'"}\n{}')).check()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot read that file"), opened(str(path)):
            pass


def test_an_idempotency_key_is_the_same_for_the_same_line_of_the_same_run() -> None:
    job = FileJob(3, {"payload": {}}, "digest")
    key = idempotency_key(job, "run")
    assert key == idempotency_key(FileJob(3, {"payload": {"other": 1}}, "digest"), "run")
    others = [(FileJob(4, {}, "digest"), "run"), (FileJob(3, {}, "other"), "run"), (job, "another run")]
    assert len({key, *(idempotency_key(*other) for other in others)}) == 4


def test_a_line_wins_over_the_options() -> None:
    job = FileJob(1, {"payload": {"n": 1}, "priority": 5, "fair_key": None, "idempotency_key": "mine"}, "digest")
    item = item_of(job, {"n": 1}, defaults={"model": "hello", "priority": 1, "fair_key": "acme"}, run_id="run")
    wanted = {"model": "hello", "priority": 5, "fair_key": "acme", "idempotency_key": "mine", "payload": {"n": 1}}
    assert json.loads(item.body) == wanted
    assert json.loads(request_body([item, item])) == [wanted, wanted]


def test_portions_are_bounded_in_number_bytes_and_time() -> None:
    small = [Item(line, b"{}") for line in range(2 * PORTION_JOBS + 1)]
    assert [len(portion) for portion in portions(small, lambda: 0.0)] == [PORTION_JOBS, PORTION_JOBS, 1]
    large = [Item(line, b"x" * (PORTION_BYTES // 3)) for line in range(7)]
    assert [len(portion) for portion in portions(large, lambda: 0.0)] == [3, 3, 1]
    ticks = itertools.count(step=0.4)  # each look at the clock: uploads on the way, say
    slow = list(portions(small[:20], lambda: next(ticks)))
    assert max(len(portion) for portion in slow) == 3
    assert [item for portion in slow for item in portion] == small[:20]
    assert list(portions([], lambda: 0.0)) == []


def test_jobs_of_a_run_end_each_in_its_way() -> None:
    jobs = RunJobs(4)
    for at in range(4):
        jobs.add(at + 10, f"job-{at}", is_repeated=at == 0)
    jobs.end(1, "done")
    jobs.end(2, "failed")
    assert jobs.open_from(0, 10) == [0, 3]
    assert jobs.open_from(1, 10) == [3]
    assert jobs.open_from(0, 1) == [0]
    jobs.end(0, "gone")
    jobs.end(3, "canceled")
    assert jobs.open_from(0, 10) == []
    assert jobs.counts() == Counts(total=4, submitted=4, repeated=1, done=1, failed=1, canceled=1, gone=1)
    assert jobs.counts().ended == 4


def test_large_results_are_asked_for_in_smaller_numbers() -> None:
    assert fitting(1000, 10) == LOOK_JOBS
    assert fitting(1000, 10 * LOOK_BYTES) == 100
    assert fitting(1, 100 * LOOK_BYTES) == 1
    assert fitting(100, 10) == 200


def test_results_are_written_in_the_order_of_the_lines(tmp_path: Path) -> None:
    place = tmp_path / "results.jsonl"
    with Results(str(place), force=False) as results:
        for at in (2, 0, 1):
            results.add(at, at + 1, {"request_id": f"job-{at}", "outputs": {"n": "\u2028é\n"}}, "done")
        assert not place.exists()
        results.finish()
    found = [json.loads(line) for line in place.read_bytes().split(b"\n")[:-1]]
    assert [each["line"] for each in found] == [1, 2, 3]
    assert found[0] == {
        "line": 1,
        "request_id": "job-0",
        "status": "done",
        "outputs": {"n": "\u2028é\n"},
        "error": None,
    }
    with pytest.raises(UsageError, match="exists already"):
        Results(str(place), force=False)
    with Results(str(place), force=True):
        pass  # broken off: what was there stays
    assert len(place.read_bytes().splitlines()) > 0
    assert list(tmp_path.iterdir()) == [place]


def test_results_that_cannot_be_written_are_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot write"):
        Results(str(tmp_path / "missing" / "results.jsonl"), force=False)


def test_results_that_the_disk_does_not_take_are_an_error() -> None:
    with Results("/dev/full", force=False) as results:
        results.add(0, 1, {"request_id": "job-0"}, "done")
        with pytest.raises(JigError, match="Cannot write /dev/full: No space left"):
            results.finish()
    assert Path("/dev/full").is_char_device()  # it was written to, not replaced


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    rate = Rate()
    assert rate.per_second(0.0, 0) == 0.0
    assert rate.per_second(10.0, 100) == 10.0
    for second in range(11, 100):
        rate.per_second(float(second), 100)
    assert rate.per_second(100.0, 100) == 0.0


def test_a_run_on_its_way_is_one_line() -> None:
    line = Progress(counts(total=5000, submitted=4000, done=1200, failed=3), True, 240.0).line
    assert line == "4,000 submitted, 1,200 done, 3 failed, 240 jobs/s, 16 s left"
    assert Progress(counts(), True, 0.0, "no replica is ready").line == "0 done: no replica is ready"
    assert Progress(counts(submitted=4), False, 2.0).line == "4 submitted, 2 jobs/s, 3 s left"


def test_a_summary_names_the_first_jobs_without_a_result() -> None:
    errors = [(9, "job-9", "ValueError: x\ny\x1b[31m"), (2, "job-2", "e" * 1000)]
    text = summary_text(counts(done=5, failed=4, canceled=1), 4.0, errors, "jobs.jsonl", "hello").splitlines()
    assert text[0] == "10 jobs in 4.0 s, 2.5 jobs/s: 5 done, 4 failed, 1 canceled."
    assert text[1] == "The first of 5 without a result:"
    assert text[2].startswith("  jobs.jsonl:2  job-2  eee")
    assert len(text[2]) < 200
    assert text[3] == "  jobs.jsonl:9  job-9  ValueError: x y [31m"
    assert "jig jobs list hello --status failed" in text[4]
    assert summary_text(counts(done=10), 0.0, [], "jobs.jsonl", "hello") == "10 jobs in 0.00 s: 10 done."
    document = summary_document(counts(done=5, failed=5), 4.0, errors, "run")
    assert (document["jobs_per_second"], document["seconds"], document["run_id"]) == (2.5, 4.0, "run")


def test_a_run_that_is_interrupted_says_how_far_it_has_come() -> None:
    text = broken_off_text(counts(submitted=4, done=1, failed=1), 3, is_watched=True)
    assert text == (
        "4 of 10 jobs submitted and perhaps 3 more, whose request was on its way; "
        "1 done, 1 failed, 2 not ended, and they go on."
    )
    assert broken_off_text(counts(submitted=0), 0, is_watched=True) == "0 of 10 jobs submitted."
