"""Platforms that jig knows: `jig auth`, `jig context`, and the keys that they keep."""

import json
import stat
from pathlib import Path

import pytest
from fake_platform import KEY, FakePlatform
from jig_process import Jig


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
