"""`jig secrets` as a user runs it, and what becomes of them at the next deploy."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_platform import FakePlatform
from jig_process import Jig


def kept(project: Path) -> Any:
    return json.loads((project / ".jig.json").read_text())["hello"]["secrets"]


def test_a_value_comes_from_standard_input_without_its_lines_end(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    finished = jig("secrets", "set", "TOKEN", "--description", "for tests", stdin="a value\nof two lines\n")
    assert finished.code == 0, finished.err
    assert platform.secrets["hello-TOKEN"] == {
        "name": "hello-TOKEN",
        "value": "a value\nof two lines",
        "description": "for tests",
        "redeploy": False,
    }
    assert finished.out == "TOKEN is set.\n"
    assert "Replicas have it from the next `jig deploy` on." in finished.err
    assert "a value" not in finished.out + finished.err + (project / ".jig.json").read_text()
    assert kept(project) == {"TOKEN": "hello-TOKEN"}


def test_a_value_comes_from_a_file_or_the_command_line(jig: Jig, platform: FakePlatform, project: Path) -> None:
    (project / "token").write_text("from a file\r\n")
    assert jig("secrets", "set", "--name", "A", "--file", "token").code == 0
    assert jig("secrets", "set", "--name", "B", "--value", "from argv\n").code == 0
    assert jig("secrets", "set", "C", "--file", "-", stdin="from -").code == 0
    values = {name: fields["value"] for name, fields in platform.secrets.items()}
    assert values == {"hello-A": "from a file", "hello-B": "from argv\n", "hello-C": "from -"}


def test_a_value_is_taken_as_it_is_and_must_be_text(
    jig: Jig, platform: FakePlatform, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_bytes(b"a\r\nb\r\n")
    assert jig("secrets", "set", "A", "--file", str(tmp_path / "lines")).code == 0
    from_file(jig, tmp_path / "lines", name="B")
    assert {fields["value"] for fields in platform.secrets.values()} == {"a\r\nb"}
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with (tmp_path / "bytes").open() as stdin:
        refused = jig("secrets", "set", "C", stdin=stdin)
    assert "The value cannot be read from standard input: it is no UTF-8 text." in refused.err
    assert (refused.code, "hello-C" in platform.secrets) == (2, False)


def test_a_file_with_a_value_that_a_deploy_would_pack_is_warned_of(
    jig: Jig, platform: FakePlatform, project: Path, tmp_path: Path
) -> None:
    (project / "token").write_text("a value")
    (tmp_path / "elsewhere").write_text("a value")
    said = (
        "token is in the project's folder, so `jig deploy` packs it too. To leave it out, write in .jigignore: /token"
    )
    assert said in jig("secrets", "set", "A", "--file", "token").err
    assert ".jigignore" not in jig("secrets", "set", "A", "--file", str(tmp_path / "elsewhere")).err
    for words in ((), ("--file", "-")):
        assert said in from_file(jig, project / "token", *words)
        assert ".jigignore" not in from_file(jig, tmp_path / "elsewhere", *words)
    assert ".jigignore" not in from_file(jig, project / "token", "--value", "x")
    (project / ".jigignore").write_text("/token\n")
    assert ".jigignore" not in jig("secrets", "set", "A", "--file", "token").err


def from_file(jig: Jig, path: Path, *words: str, name: str = "A") -> str:
    """What is said where the standard input is this file."""
    with path.open() as stdin:
        finished = jig("secrets", "set", name, *words, stdin=stdin)
    assert finished.code == 0
    return finished.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("TOKEN", "--value", "x", "--file", "y"), "--value and --file exclude each other."),
        (("TOKEN", "--file", "nowhere"), "The value cannot be read from nowhere: No such file or directory."),
        (("TOKEN", "--value", ""), "The value is empty."),
        (("TOKEN", "--value", "x", "--ttl", "20d"), "--ttl 20d: it must be 1d to 14d."),
        (("TOKEN", "--value", "x", "--ttl", "1h"), "--ttl 1h: it must be 1d to 14d."),
        (("TOKEN",), "The value is empty."),
        (("NOT-A-NAME", "--value", "x"), "NOT-A-NAME cannot be a variable's name."),
        (("TOKEN", "--value", "x", "--ttl", "soon"), "--ttl soon: that is no duration."),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_sent(
    jig: Jig, platform: FakePlatform, project: Path, words: tuple[str, ...], said: str
) -> None:
    finished = jig("secrets", "set", *words)
    assert finished.code == 2
    assert said in finished.err
    assert not platform.secrets


def test_a_change_may_replace_replicas_and_tells_of_its_end(jig: Jig, platform: FakePlatform, project: Path) -> None:
    jig("secrets", "set", "TOKEN", stdin="one")
    platform.deploy("hello")
    changed = jig("secrets", "set", "TOKEN", stdin="one and a half")
    assert "Replicas that start from now on have it; those that run keep what they have." in changed.err
    assert "To replace those: jig secrets redeploy TOKEN" in changed.err
    finished = jig("secrets", "set", "TOKEN", "--ttl", "7d", "--redeploy", stdin="two")
    assert finished.out == "TOKEN is changed.\n"
    assert "It expires at 2026-01-08 00:00 UTC" in finished.err
    assert "Replicas of hello are being replaced" in finished.err
    assert platform.secrets["hello-TOKEN"]["ttl_seconds"] == 7 * 86_400


def test_the_list_says_which_the_next_deploy_has(jig: Jig, platform: FakePlatform, project: Path) -> None:
    assert "No secrets. Set one: jig secrets set NAME" in jig("secrets", "list").out
    jig("secrets", "set", "KEPT", "--ttl", "1d", stdin="x")
    jig("secrets", "set", "LOST", stdin="x")
    jig("secrets", "set", "UNSET", stdin="x")
    jig("secrets", "unset", "UNSET")
    del platform.secrets["hello-LOST"]
    platform.secrets["other-TOKEN"] = {"name": "other-TOKEN"}
    lines = [line.split(maxsplit=1) for line in jig("secrets", "list").out.splitlines()[1:]]
    assert [name for name, _ in lines] == ["KEPT", "LOST", "UNSET"]
    assert lines[0][1].startswith("set")
    assert "2026-01-08 00:00 UTC" in lines[0][1]
    assert lines[1][1].startswith("missing on the platform")
    assert lines[2][1].startswith("not in this project")
    assert {each["variable"] for each in jig("secrets", "list", "--json").json["data"]} == {"KEPT", "LOST", "UNSET"}


def test_a_deploy_has_the_secrets_that_are_remembered(jig: Jig, platform: FakePlatform, project: Path) -> None:
    (project / "jig.toml").write_text(
        'name = "hello"\nworker = "worker:Hello"\n'
        '[deploy.environment_variables]\nCOLOR = "blue"\nSHARED = {secret = "all"}\n'
    )
    jig("secrets", "set", "TOKEN", stdin="x")
    assert jig("deploy").code == 0
    assert platform.deployments["hello"]["environment_variables"] == [
        {"name": "COLOR", "value": "blue"},
        {"name": "SHARED", "value_from_secret": "all"},
        {"name": "TOKEN", "value_from_secret": "hello-TOKEN"},
    ]
    assert jig("secrets", "unset", "TOKEN").code == 0
    assert jig("deploy").code == 0
    assert len(platform.deployments["hello"]["environment_variables"]) == 2


def test_a_fresh_checkout_takes_over_what_was_set_for_the_deployment(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    platform.deploy("hello")
    platform.deployments["hello"]["environment_variables"] = [
        {"name": "TOKEN", "value_from_secret": "hello-TOKEN"},
        {"name": "FROM_CONFIG", "value_from_secret": "all"},
    ]
    assert jig("deploy").code == 0
    assert platform.deployments["hello"]["environment_variables"] == [
        {"name": "TOKEN", "value_from_secret": "hello-TOKEN"}
    ]
    assert kept(project) == {"TOKEN": "hello-TOKEN"}


def test_a_name_with_a_value_and_a_secret_is_refused(jig: Jig, platform: FakePlatform, project: Path) -> None:
    jig("secrets", "set", "COLOR", stdin="x")
    (project / "jig.toml").write_text(
        'name = "hello"\nworker = "worker:Hello"\n[deploy.environment_variables]\nCOLOR = "blue"\n'
    )
    finished = jig("deploy")
    assert finished.code == 1
    assert "COLOR has a value there, and a secret as well" in finished.err
    assert "jig secrets unset COLOR" in finished.err


def test_a_deleted_secret_is_no_longer_remembered(jig: Jig, platform: FakePlatform, project: Path) -> None:
    jig("secrets", "set", "TOKEN", stdin="x")
    platform.deploy("hello")
    platform.deployments["hello"]["environment_variables"] = [{"name": "TOKEN", "value_from_secret": "hello-TOKEN"}]
    platform.deploy("other")
    refused = jig("secrets", "delete", "TOKEN")
    assert refused.code == 2
    assert "Delete TOKEN, used by hello? Nobody can be asked here." in refused.err
    assert "hello-TOKEN" in platform.secrets
    del platform.deployments["other"]
    finished = jig("secrets", "delete", "TOKEN", "--yes")
    assert (finished.code, finished.out) == (0, "TOKEN is deleted.\n")
    assert "Replicas of hello can not be started any more" in finished.err
    assert kept(project) == {}
    again = jig("secrets", "delete", "TOKEN", "--yes")
    assert again.code == 1
    assert "There is no secret 'hello-TOKEN'" in again.err


def test_what_the_platform_has_lost_can_be_deleted_here(jig: Jig, platform: FakePlatform, project: Path) -> None:
    jig("secrets", "set", "TOKEN", stdin="x")
    platform.secrets.clear()
    assert jig("secrets", "delete", "TOKEN").out == "TOKEN was deleted already.\n"
    assert kept(project) == {}
    assert jig("secrets", "unset", "TOKEN").code == 2


def test_a_deploy_warns_of_secrets_that_end_soon(jig: Jig, platform: FakePlatform, project: Path) -> None:
    jig("secrets", "set", "TOKEN", stdin="x")
    ending = {
        "name": "TOKEN",
        "value_from_secret": "hello-TOKEN",
        "value_from_secret_expires_at": "2026-01-02T00:00:00Z",
    }
    platform.told = {"environment_variables": [ending, {"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": "rev-1"}]}
    assert "The secret of TOKEN expires at 2026-01-02 00:00 UTC" in jig("deploy").err


@pytest.mark.parametrize("secret", ["hello-TOKEN", "all"])
def test_a_deploy_without_a_change_tells_of_secrets_that_have_changed_since(
    jig: Jig, platform: FakePlatform, project: Path, secret: str
) -> None:
    (project / "jig.toml").write_text(
        f'name = "hello"\nworker = "worker:Hello"\n[deploy.environment_variables]\nTOKEN = {{secret = "{secret}"}}\n'
    )
    platform.secrets[secret] = {"name": secret, "updated_at": "2025-12-31T00:00:00Z"}
    assert jig("deploy").code == 0
    before = jig("deploy")
    assert "has changed since" not in before.err
    platform.secrets[secret]["updated_at"] = "2026-01-02T00:00:00Z"  # replicas are ready since the day before
    platform.rollout = platform.rollout[-1:]
    after = jig("deploy")
    assert after.code == 0
    assert "TOKEN has changed since replicas started, and those go on with what they had." in after.err
    assert "To replace them: jig secrets redeploy TOKEN" in after.err
    platform.secrets[secret]["value"] = "kept"
    finished = jig("secrets", "redeploy", "TOKEN")
    assert finished.out == "Replicas of hello are being replaced.\n"
    assert "The new ones have TOKEN as it is now." in finished.err
    assert platform.secrets[secret]["redeploy"] is True
    assert platform.secrets[secret]["value"] == "kept"


def test_a_redeploy_for_a_secret_says_that_nobody_uses_it_or_that_it_is_not_there(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    missing = jig("secrets", "redeploy", "TOKEN")
    assert missing.code == 1
    assert "There is no secret 'hello-TOKEN' in this project.\nSee which there are: jig secrets list" in missing.err
    platform.secrets["hello-TOKEN"] = {"name": "hello-TOKEN"}
    unused = jig("secrets", "redeploy", "TOKEN")
    assert (unused.code, unused.out) == (0, "No deployment uses TOKEN.\n")
