"""Commands about deployments as a user runs them, against a platform over a socket."""

import json
import re
import signal
import threading
from pathlib import Path

import pytest
from fake_platform import KEY, READY, SECONDS_MAX, FakePlatform
from jig_process import Jig, finish


def test_list_shows_a_table_and_json_the_answer(jig: Jig, deployed: FakePlatform) -> None:
    assert re.search(r"^hello +Ready +1/1 +- ", jig("list").out, re.MULTILINE)
    assert jig("list", "--json").json["data"][0]["name"] == "hello"


def test_list_of_nothing_says_how_to_start(jig: Jig, platform: FakePlatform) -> None:
    assert "jig init" in jig("list").out
    assert jig("--json", "list").json == {"object": "list", "data": []}


def test_status_takes_the_name_from_the_config_or_from_the_command_line(
    jig: Jig, deployed: FakePlatform, tmp_path: Path
) -> None:
    text = jig("status").out
    assert "hello" in text
    assert "r-1" in text
    (jig.folder / "jig.toml").unlink()
    assert jig("status", "hello").out == text
    assert jig("status", "--name", "hello").out == text
    finished = jig("status")
    assert finished.code == 2
    assert "Which deployment?" in finished.err


def test_an_unknown_deployment_is_an_error_in_both_forms(jig: Jig, platform: FakePlatform) -> None:
    finished = jig("status", "nobody")
    assert (finished.code, finished.out) == (1, "")
    assert "There is no deployment nobody." in finished.err
    error = jig("status", "nobody", "--json").json["error"]
    assert error["type"] == "not_found_error"
    assert error["status"] == 404
    assert "`jig list`" in error["hint"]
    assert "`jig deploy`" in finished.err
    assert "hint" not in jig("job-status", "unknown", "nobody", "--json").json["error"]


def test_a_name_that_is_close_to_a_deployments_is_told_with_it(jig: Jig, deployed: FakePlatform) -> None:
    for words in (["status"], ["endpoint"], ["scale"], ["scale", "why"], ["destroy", "--yes"]):
        finished = jig(*words, "--name", "helo")
        assert finished.code == 1
        assert "There is no deployment helo." in finished.err
        assert "Did you mean hello? `jig list` shows" in finished.err
    assert "Did you mean" not in jig("status", "something-else").err


def test_a_replica_that_is_not_there_has_no_log(jig: Jig, deployed: FakePlatform) -> None:
    deployed.log_lines = []
    for more in ([], ["--follow"]):
        finished = jig("logs", "--replica-id", "r-2", *more)
        assert (finished.code, finished.out) == (1, "")
        assert "hello has no replica r-2, and no log of one." in finished.err
        assert "Did you mean r-1?" in finished.err
    finished = jig("logs", "--replica-id", "r-1")
    assert finished.code == 0
    assert "There are no log lines." in finished.err


def test_why_there_are_no_replicas_names_the_way_to_one(jig: Jig, deployed: FakePlatform) -> None:
    deployed.deployments["hello"] |= {"min_replicas": 0, "max_replicas": 0}
    finished = jig("scale", "why")
    assert "0 replicas (between 0 and 0)" in finished.out
    assert "To let one run: jig scale hello --max 1" in finished.err
    assert "To let one run: jig scale hello --max 1" in jig("scale", "--min", "0").err
    for words in (("--max", "1"), ("why",)):
        assert "jig scale hello" not in jig("scale", *words).err


def test_logs_print_lines_and_their_tail(jig: Jig, deployed: FakePlatform) -> None:
    assert jig("logs").out == "first line\nlast line\n"
    assert jig("logs", "--tail", "1").out == "last line\n"
    assert jig("logs", "--json").json == {"lines": ["first line", "last line"]}


def test_logs_are_asked_for_as_the_options_say(jig: Jig, deployed: FakePlatform) -> None:
    jig(
        "logs", "--replica_id", "r-1", "--revision", "rev-1", "--image-version", "abcd", "--tail", "5", "--since", "10m"
    )
    query = deployed.sent("GET", "/v1/deployments/hello/logs")[0].query
    assert query == {"replica_id": "r-1", "revision": "rev-1", "version": "abcd", "tail": "5", "since": "600s"}


@pytest.mark.parametrize(
    ("since", "sent"), [("1d", "86400s"), ("1h30m", "5400s"), ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z")]
)
def test_logs_since_a_duration_or_a_time(jig: Jig, deployed: FakePlatform, since: str, sent: str) -> None:
    assert jig("logs", "--since", since).code == 0
    assert deployed.sent("GET", "/v1/deployments/hello/logs")[0].query == {"since": sent}


def test_logs_since_something_else_are_not_asked_for(jig: Jig, deployed: FakePlatform) -> None:
    finished = jig("logs", "--since", "yesterday")
    assert finished.code == 2
    assert "--since yesterday: that is neither a duration nor a time.\nWrite 10m, 2h, 1d, or" in finished.err
    assert not deployed.sent("GET", "/v1/deployments/hello/logs")


def test_a_number_is_no_deployment_to_scale(jig: Jig, deployed: FakePlatform) -> None:
    finished = jig("scale", "2")
    assert finished.code == 2
    assert 'jig: "2" is no deployment\'s name.\nTo have 2 replicas: jig scale --min 2 --max 2' in finished.err


def test_followed_logs_come_line_by_line(jig: Jig, deployed: FakePlatform) -> None:
    assert jig("logs", "--follow").out == "first line\nlast line\n"
    pieces = jig("logs", "--follow", "--json").out.splitlines()
    assert [json.loads(piece) for piece in pieces] == [{"lines": ["first line"]}, {"lines": ["last line"]}]


def test_following_with_a_key_that_ends_says_so(jig: Jig, deployed: FakePlatform) -> None:
    deployed.revokes_while_followed = True
    finished = jig("logs", "--follow")
    assert (finished.code, finished.out) == (1, "first line\nlast line\n")
    assert "This API key is not valid." in finished.err


def test_the_endpoint_of_a_deployment_that_does_not_exist_is_an_error(jig: Jig, deployed: FakePlatform) -> None:
    finished = jig("endpoint", "nobody")
    assert (finished.code, finished.out) == (1, "")
    assert "There is no deployment nobody." in finished.err


def test_endpoint_prints_only_the_url_on_stdout(jig: Jig, deployed: FakePlatform) -> None:
    finished = jig("endpoint")
    assert finished.out == f"{deployed.url}/v1/deployment-request/hello/generate\n"
    assert '-H "Authorization: Bearer $(jig auth key)"' in finished.err
    assert KEY not in finished.err
    assert jig("auth", "key").out == f"{KEY}\n"
    assert jig("auth", "key", "--json").json == {"base_url": deployed.url, "api_key": KEY}


def test_destroy_asks_first_and_waits_until_the_last_replica_has_ended(jig: Jig, deployed: FakePlatform) -> None:
    deployed.looks_until_gone = 3
    assert jig("destroy").code == 2
    assert "hello" in deployed.deployments
    finished = jig("destroy", "--yes")
    assert finished.code == 0, finished.err
    assert finished.out == "hello is gone.\n"
    assert "hello" not in deployed.deployments
    assert deployed.looks_until_gone == 1, "it has asked until no replica was left"
    assert finished.err.splitlines() == [
        "Waiting until hello is gone.",
        "Replicas that drain: 2.",
        "Replicas that drain: 1.",
    ]


def test_ctrl_c_while_a_deployment_ends_says_that_it_goes_on(jig: Jig, deployed: FakePlatform) -> None:
    deployed.looks_until_gone = 1000
    with jig.start("destroy", "--yes") as process:
        assert process.stderr is not None
        assert "Waiting until hello is gone." in process.stderr.readline()
        assert "Replicas that drain" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 130
    assert "hello is deleted; its replicas still end, by themselves." in errors


def test_destroy_detached_does_not_wait(jig: Jig, deployed: FakePlatform) -> None:
    deployed.looks_until_gone = 1000
    assert jig("destroy", "--yes", "--detach", "--json").json == {"name": "hello", "destroyed": False}


def test_ctrl_c_ends_following_without_a_word(jig: Jig, deployed: FakePlatform) -> None:
    deployed.log_lines = ["one line"]
    deployed.is_quiet = threading.Event()
    with jig.start("logs", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one line\n"
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    deployed.is_quiet.set()
    assert (finished.code, finished.err) == (130, "")


def test_a_server_that_stops_ends_following_with_a_sentence(jig: Jig, deployed: FakePlatform) -> None:
    deployed.is_stopping = True
    finished = jig("logs", "--follow")
    assert (finished.code, finished.out) == (1, "first line\nlast line\n")
    assert f"The platform at {deployed.url} has stopped, or the connection to it broke." in finished.err


def test_status_shows_only_the_last_replicas_that_ended(jig: Jig, deployed: FakePlatform) -> None:
    ended = {f"r-{9 - at}": {"replica_status": "Terminated", "revision_id": "rev-1"} for at in range(5)}
    deployed.told = {"replica_events": {"r-1": {**READY, "revision_id": "rev-1"}, **ended}}
    shown = re.findall(r"^  (r-\d)", jig("status").out, re.MULTILINE)
    assert shown == ["r-1", "r-5", "r-6", "r-7"]
    assert len(jig("status", "--json").json["replica_events"]) == 6
