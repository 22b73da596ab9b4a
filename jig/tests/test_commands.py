"""Every other command as a user runs it, against a platform over a socket."""

import json
import re
import signal
import stat
import threading
from pathlib import Path

import pytest
from fake_platform import KEY, READY, SECONDS_MAX, FakePlatform
from jig_process import INTERNAL_ERROR, Jig, finish

from jig import cli
from jig.arguments import forgotten


@pytest.fixture
def deployed(platform: FakePlatform, project: Path) -> FakePlatform:
    """A platform on which the project's deployment is ready."""
    platform.rollout = [READY]
    platform.deploy("hello")
    return platform


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


def test_a_broken_config_is_in_the_way_of_no_command_that_needs_a_name_alone(jig: Jig, deployed: FakePlatform) -> None:
    config = jig.folder / "jig.toml"
    config.write_text('name = "hello"\nworker = "worker:Hello"\ngpu = "H1000"\n')
    assert jig("scale", "--min", "1").code == 0
    config.write_text("name = = hello\n")
    assert jig("scale", "hello", "--min", "1").code == 0
    finished = jig("scale", "--min", "1")
    assert finished.code == 1
    assert "jig.toml is not TOML" in finished.err
    assert "give the deployment's name on the command line" in finished.err


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


def test_a_queue_in_which_nothing_waits_is_clear_already(jig: Jig, deployed: FakePlatform) -> None:
    deployed.waiting_jobs = 0
    assert jig("queue-clear").out == "No job of hello waits.\n"
    assert jig("queue-clear", "--json").json == {"canceled_count": 0}
    assert not deployed.sent("POST", "/v1/queue/clear")


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


def test_login_checks_the_key_and_keeps_it_for_its_owner_alone(bare_jig: Jig, platform: FakePlatform) -> None:
    finished = bare_jig("auth", "login", "--base-url", platform.url + "/v1/", "--api-key-stdin", stdin=KEY + "\n")
    assert finished.code == 0, finished.err
    assert KEY not in finished.out + finished.err
    path = Path(bare_jig.environment["JIG_CONTEXTS"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {
        "current": "local",
        "contexts": {"local": {"base_url": platform.url, "api_key": KEY}},
    }
    assert bare_jig("list").code == 0
    assert "Acme" in bare_jig("auth", "status").out
    assert f"*  local  {platform.url}" in bare_jig("context", "list").out
    assert bare_jig("auth", "logout").code == 0
    assert KEY not in path.read_text()
    assert bare_jig("list").code == 1


def test_without_any_platform_it_says_how_to_get_one(bare_jig: Jig) -> None:
    finished = bare_jig("list")
    assert finished.code == 1
    assert "machineshop serve" in finished.err
    assert "jig auth login" in finished.err


def test_a_wrong_key_is_not_kept(bare_jig: Jig, platform: FakePlatform) -> None:
    finished = bare_jig("auth", "login", "--base-url", platform.url, "--api-key-stdin", stdin="wrong\n")
    assert finished.code == 1
    assert "This key is not valid at" in finished.err
    assert "jig auth login" not in finished.err
    assert not Path(bare_jig.environment["JIG_CONTEXTS"]).exists()


def test_a_context_is_shown_without_its_key_and_forgotten(bare_jig: Jig) -> None:
    contexts = {name: {"base_url": f"https://{name}", "api_key": f"msk_{name}-secret"} for name in ("one", "other")}
    path = Path(bare_jig.environment["JIG_CONTEXTS"])
    path.write_text(json.dumps({"current": "one", "contexts": contexts}))

    shown = bare_jig("context", "show").out + bare_jig("context", "show", "one", "--json").out
    assert "https://one" in shown
    assert "secret" not in shown
    assert "Now at other." in bare_jig("context", "remove", "one").out
    assert list(json.loads(path.read_text())["contexts"]) == ["other"]
    for command in ("show", "remove"):
        missing = bare_jig("context", command, "one")
        assert (missing.code, "There is no context 'one'. Known: other." in missing.err) == (1, True)


def test_contexts_are_switched_by_name(bare_jig: Jig, platform: FakePlatform) -> None:
    contexts = {
        "current": "far",
        "contexts": {
            "far": {"base_url": "http://127.0.0.1:1", "api_key": "k"},
            "local": {"base_url": platform.url, "api_key": KEY},
        },
    }
    Path(bare_jig.environment["JIG_CONTEXTS"]).write_text(json.dumps(contexts))
    finished = bare_jig("list")
    assert finished.code == 1
    assert "No platform answers at http://127.0.0.1:1." in finished.err
    assert "machineshop serve" in finished.err
    assert bare_jig("context", "use", "local", "--json").json == {"current": "local", "base_url": platform.url}
    assert bare_jig("list").code == 0
    assert "Known: far, local" in bare_jig("context", "use", "lcal").err


def test_something_else_at_the_base_url_is_said_to_be_no_platform(jig: Jig, platform: FakePlatform) -> None:
    finished = jig("list", TOGETHER_BASE_URL=f"{platform.url}/web")
    assert finished.code == 1
    assert "is no platform" in finished.err


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


def test_help_is_a_command_too(jig: Jig, platform: FakePlatform) -> None:
    assert jig("help").out == jig("--help").out
    assert "REQUEST-ID" in jig("help", "job_status").out


def test_a_command_about_no_project_takes_no_config(jig: Jig, platform: FakePlatform) -> None:
    assert jig("list", "--config", "x.toml").code == 2


def test_what_may_be_repeated_is_tried_again(jig: Jig, platform: FakePlatform) -> None:
    platform.failures = [("", 503), ("", 500)]
    assert jig("list").code == 0
    platform.failures = [("", 500)]
    assert jig("submit", "hello", "--prompt", "x").code == 1
    assert len(platform.sent("POST", "/v1/queue/submit")) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], 'Unknown command "lst". Did you mean "list"?'),
        (["status", "--bogus"], "Unknown option: --bogus."),
        (["secrets", "set"], "jig secrets set needs --name."),
        (["status", "a", "b"], 'jig status takes fewer words: "b" is too much.'),
        (["context", "use", "a", "b", "c"], 'jig context use takes fewer words: "b", "c" are too much.'),
        (["deploy", "w/greeter"], 'jig deploy takes no folder: "w/greeter" has no meaning here.'),
        (["submit", "--prompt"], "jig submit needs a value for --prompt."),
        (["submit", "--prompt", "--watch"], "jig submit needs a value for --prompt."),
        (["submit", "--fair-key", "--prompt=x"], "jig submit needs a value for --fair-key."),
        (["logs", "--since", "--follow"], "jig logs needs a value for --since."),
        (["jobs", "--one", "--two"], 'Unknown command "--one".'),
    ],
    ids=[
        "no such command",
        "no such option",
        "nothing",
        "too many words",
        "in a group",
        "a folder",
        "no value",
        "an option for a value",
        "one with a value of its own",
        "no text",
        "no command",
    ],
)
def test_a_wrong_command_line_is_a_usage_error(jig: Jig, platform: FakePlatform, words: list[str], said: str) -> None:
    finished = jig(*words)
    assert (finished.code, finished.out) == (2, "")
    assert f"jig: {said}" in finished.err
    assert "--help`." in finished.err or "cd there first, or name its config with --config." in finished.err
    finished = jig("--json", *words)
    assert (finished.code, finished.err) == (2, "")
    assert finished.json["error"]["type"] == "usage_error"
    assert said in finished.json["error"]["message"]
    assert not platform.requests


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--config", "submit", "--prompt", "x"],
            '--config wants the path of a config file, and "submit" is a command.',
        ),
        (["-c", "jobs", "list"], '-c wants the path of a config file, and "jobs" is a command.'),
        (["--json", "--config"], "jig needs a value for --config: the path of a config file."),
        (["-c", "jig.toml"], "Which command? There is none behind the options."),
        (["submit", "--config"], None),
        (["--json", "--config=status", "status"], None),
        (["--config", "audit", "audit"], None),
        ([], None),
    ],
)
def test_a_forgotten_path_of_config_is_not_taken_for_one(words: list[str], said: str | None) -> None:
    wrong = forgotten(words, {"submit", "jobs", "audit", "status"}, files={"audit"})
    assert (wrong and wrong[0]) == said


def test_a_value_may_be_spelled_like_an_option(jig: Jig, platform: FakePlatform) -> None:
    for words in (["--prompt=--json"], ["--prompt", "--jsonl"], ["--prompt", "-x"]):
        assert jig("submit", "hello", *words).code == 0
    payloads = [sent.json["payload"] for sent in platform.sent("POST", "/v1/queue/submit")]
    assert payloads == [{"prompt": "--json"}, {"prompt": "--jsonl"}, {"prompt": "-x"}]


def test_a_wrong_option_leads_to_the_help_of_its_command(jig: Jig) -> None:
    assert "See `jig volumes create --help`." in jig("volumes", "create", "--name").err
    assert "See `jig --help`." in jig("lst").err


def test_an_error_that_nobody_foresaw_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(words: list[str]) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(cli, "run", break_down)
    monkeypatch.delenv("JIG_DEBUG", raising=False)
    assert cli.main(["list"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"jig: {INTERNAL_ERROR}: ValueError: no such thing" in err
    assert "JIG_DEBUG=1" in err
    monkeypatch.setenv("JIG_DEBUG", "1")
    with pytest.raises(ValueError, match="no such thing"):
        cli.main(["list"])


def test_init_makes_a_project_that_deploys(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    finished = jig("init", "--json")
    assert finished.json["created"] == ["worker.py", "pyproject.toml", "README.md"]
    assert jig("deploy", "--detach").code == 0
    config, files = platform.bundle(platform.deployments["hello"]["image"])
    assert config["command"] == ["python", "-m", "sprocket", "worker:Hello", "--queue"]
    assert config["requirements"] == ""
    assert set(files) == {"worker.py", "pyproject.toml"}
    assert platform.deployments["hello"]["gpu_type"] == "none"


def test_init_overwrites_nothing(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    (folder / "worker.py").write_text("mine\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    finished = jig("init", "--json")
    assert finished.json["kept"] == ["worker.py", "pyproject.toml"]
    assert finished.json["created"] == ["README.md", "jig.toml"]
    assert (folder / "worker.py").read_text() == "mine\n"
    assert (folder / "pyproject.toml").read_text() == '[project]\nname = "mine"\n'
    assert jig("init", "--json").json["created"] == []


def test_init_names_the_worker_and_the_project_that_are_there(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    (folder / "worker.py").write_text("import sprocket\nclass Base: ...\nclass Detector(sprocket.Sprocket): ...\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "My_Detector"\n')
    assert "is your own" not in jig("init").out
    config = (folder / "jig.toml").read_text()
    assert config.startswith('name = "my-detector"\nworker = "worker:Detector"\n')


def test_init_says_which_line_to_change_where_it_cannot_tell_the_worker(
    jig: Jig, platform: FakePlatform, folder: Path
) -> None:
    (folder / "worker.py").write_text("from sprocket import Sprocket\nclass A(Sprocket): ...\nclass B(Sprocket): ...\n")
    said = jig("init").out
    assert 'write the name of its class for Hello in pyproject.toml: worker = "worker:Hello"' in said


def test_init_makes_the_folder_that_it_is_given(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    assert "cd new && jig deploy" in jig("init", "new").out
    assert "cd 'Bad Name' && jig deploy" in jig("init", "Bad Name").out
    assert (folder / "new" / "worker.py").exists()


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("A b", "a-b-worker"),
        ("gr", "gr-worker"),
        ("My Model", "my-model"),
        ("...-", "hello-world"),
        ("x" * 70, "x" * 63),
    ],
)
def test_init_says_how_it_calls_what_a_folder_gives_no_name_for(
    jig: Jig, platform: FakePlatform, folder: Path, named: str, name: str
) -> None:
    finished = jig("init", named)
    assert f"'{named}' cannot be a deployment's name: 4 to 63 lowercase letters" in finished.out
    assert f"It is called {name}. For another name change pyproject.toml" in finished.out
    assert f'[tool.jig]\nname = "{name}"\n' in (folder / named / "pyproject.toml").read_text()
    assert "cannot be" not in jig("init", named).out, "nothing is named the second time"


@pytest.mark.parametrize("key", [f"{KEY}\nmore", f"{KEY} more", f"{KEY}ä"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(jig: Jig, platform: FakePlatform, key: str) -> None:
    finished = jig("list", TOGETHER_API_KEY=key)
    assert finished.code == 1
    assert f"The API key for {platform.url} holds" in finished.err
    assert KEY not in finished.out + finished.err
    assert not platform.requests


@pytest.mark.parametrize("padding", ["\n", "\r\n", " "])
def test_white_space_around_a_key_is_forgiven(jig: Jig, platform: FakePlatform, padding: str) -> None:
    assert jig("list", TOGETHER_API_KEY=f"{KEY}{padding}").code == 0
