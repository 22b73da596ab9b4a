"""How words on the command line are read, and what is said of wrong ones."""

import pytest
from fake_platform import FakePlatform
from jig_process import INTERNAL_ERROR, Jig

from jig import cli
from jig.arguments import forgotten


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
        (["logs", "--tail", "ten"], '--tail must be a whole number, not "ten".'),
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
        "no number",
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
