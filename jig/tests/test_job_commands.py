"""Commands about one job or a queue, against a platform over a socket."""

import json
import re

import pytest
from fake_platform import FakePlatform
from jig_process import Jig


def test_a_queue_in_which_nothing_waits_is_clear_already(jig: Jig, deployed: FakePlatform) -> None:
    deployed.waiting_jobs = 0
    assert jig("queue-clear").out == "No job of hello waits.\n"
    assert jig("queue-clear", "--json").json == {"canceled_count": 0}
    assert not deployed.sent("POST", "/v1/queue/clear")


def test_submit_prints_the_id(jig: Jig, deployed: FakePlatform) -> None:
    finished = jig("submit", "--prompt", "-1 apples")
    assert finished.out == "job-1\n"
    assert deployed.jobs["job-1"] == {"model": "hello", "payload": {"prompt": "-1 apples"}, "priority": 0}


def test_watch_follows_progress_and_prints_the_outputs(jig: Jig, deployed: FakePlatform) -> None:
    deployed.job_states = [
        {"status": "pending", "queue": {"position": 2}},
        {"status": "running", "info": {"progress": 0.5}},
        {"status": "done", "outputs": {"text": "hi"}},
    ]
    finished = jig("submit", "--payload", '{"n": 1}', "--watch")
    assert json.loads(finished.out) == {"text": "hi"}
    assert "pending, position 2" in finished.err
    assert "running: progress 0.5" in finished.err


def test_a_watched_job_that_fails_is_an_error_with_its_reason(jig: Jig, deployed: FakePlatform) -> None:
    deployed.job_states = [{"status": "failed", "info": {"error": "no such page"}}]
    finished = jig("submit", "--prompt", "x", "--watch")
    assert finished.code == 1
    assert "no such page" in finished.err
    assert jig("submit", "--prompt", "x", "--watch", "--json").json["error"]["job"]["status"] == "failed"


def test_files_of_a_payload_are_uploaded_without_the_key(jig: Jig, deployed: FakePlatform) -> None:
    (jig.folder / "page 1.png").write_bytes(b"pixels")
    finished = jig("submit", "--payload", '{"image": "@page 1.png", "text": "@@me", "n": 1}')
    assert finished.code == 0, finished.err
    payload = deployed.jobs["job-1"]["payload"]
    assert re.fullmatch(rf"{deployed.url}/v1/storage/[0-9a-f]{{24}}-page%201.png", payload["image"])
    assert payload["text"] == "@me"
    ((filename, content),) = deployed.files.items()
    assert filename.endswith("page%201.png")
    assert content == b"pixels"
    assert "Authorization" not in deployed.sent("PUT", "/signed/")[0].headers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one of --prompt TEXT, --payload JSON and, for many, --file FILE."),
        (["--prompt", "a", "--payload", "{}"], "--prompt and --payload exclude each other."),
        (["--payload", "[1]"], "must be a JSON object"),
        (["--payload", "{oops"], "--payload is not JSON"),
        (["--payload", "@missing.json"], "--payload @missing.json: cannot read that file: No such file or directory."),
        (["--payload", '{"image": "@missing.png"}'], "missing.png, which does not exist"),
    ],
)
def test_a_wrong_payload_is_a_usage_error_and_nothing_is_sent(
    jig: Jig, deployed: FakePlatform, words: list[str], said: str
) -> None:
    finished = jig("submit", *words)
    assert finished.code == 2
    assert said in finished.err
    assert not deployed.jobs


def test_a_payload_comes_from_a_file_or_from_standard_input(jig: Jig, deployed: FakePlatform) -> None:
    (jig.folder / "payload.json").write_text('{"n": 1}')
    jig("submit", "--payload", "@payload.json")
    assert deployed.jobs["job-1"]["payload"] == {"n": 1}
    jig("submit", "--payload", "-", stdin='{"n": 2}')
    assert deployed.jobs["job-1"]["payload"] == {"n": 2}


def test_job_status_is_spelled_both_ways(jig: Jig, deployed: FakePlatform) -> None:
    deployed.job_states = [{"status": "running", "info": {"page": 3}}]
    assert "running: page 3" in jig("job-status", "job-1").out
    assert jig("job_status", "--request-id", "job-1", "--json").json["status"] == "running"
    assert jig("job-status", "unknown").code == 1


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [("pending", 0, "is canceled"), ("running", 0, "asked to stop"), ("done", 1, "The job is done.")],
)
def test_job_cancel_says_what_became_of_it(jig: Jig, deployed: FakePlatform, state: str, code: int, said: str) -> None:
    deployed.job_states = [{"status": state}]
    finished = jig("job-cancel", "job-1")
    assert finished.code == code
    assert said in finished.out + finished.err


def test_queue_commands(jig: Jig, deployed: FakePlatform) -> None:
    assert jig("queue-status").out == "Running  1\nWaiting  2\n"
    assert jig("queue_status", "--json").json["total_jobs"] == 3
    assert jig("queue-clear").code == 2
    assert not deployed.sent("POST", "/v1/queue/clear")
    assert jig("queue-clear", "--yes").out == "3 jobs canceled.\n"
