"""`jig auth login` and the names under which it keeps keys: nobody's is forgotten in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_platform import KEY, OTHER_KEY, FakePlatform, FakeServer
from jig_process import Finished, Jig


class Login:
    """Logs in to a platform with a key on standard input."""

    def __init__(self, jig: Jig, platform: FakePlatform) -> None:
        self.jig = jig
        self.platform = platform

    def __call__(self, key: str, *words: str) -> Finished:
        return self.jig("auth", "login", "--base-url", self.platform.url, "--api-key-stdin", *words, stdin=f"{key}\n")

    @property
    def contexts(self) -> dict[str, Any]:
        contexts: dict[str, Any] = json.loads(Path(self.jig.environment["JIG_CONTEXTS"]).read_text())
        return contexts

    @property
    def keys(self) -> dict[str, str]:
        return {name: context["api_key"] for name, context in self.contexts["contexts"].items()}


@pytest.fixture
def login(bare_jig: Jig, platform: FakePlatform) -> Login:
    return Login(bare_jig, platform)


def test_the_context_that_was_written_is_named(login: Login) -> None:
    assert "context local of " in login(KEY).out
    assert "context work of " in login(KEY, "--name", "work").out
    assert login.keys == {"local": KEY, "work": KEY}
    assert login.contexts["current"] == "work"


def test_a_key_of_another_project_gets_a_context_of_its_own(login: Login) -> None:
    login(KEY)
    finished = login(OTHER_KEY)
    assert "context local-vision of " in finished.out
    assert "stay as they are" in finished.err
    assert login.keys == {"local": KEY, "local-vision": OTHER_KEY}
    login(KEY)
    login(OTHER_KEY)
    assert login.keys == {"local": KEY, "local-vision": OTHER_KEY}
    assert login.contexts["current"] == "local-vision"


def test_a_new_key_of_the_same_project_replaces_the_old_one_and_says_so(login: Login) -> None:
    login(KEY)
    login.platform.projects["msk_new"] = "Default"
    finished = login("msk_new")
    assert f"Its key for {login.platform.url} is replaced." in finished.err
    assert login.keys == {"local": "msk_new"}


def test_a_key_that_is_dead_makes_room(login: Login) -> None:
    login(KEY)
    del login.platform.projects[KEY]
    assert "is replaced." in login(OTHER_KEY).err
    assert login.keys == {"local": OTHER_KEY}


def test_the_key_of_a_platform_that_does_not_run_is_kept(login: Login) -> None:
    gone = FakeServer()
    gone.start()
    Login(login.jig, gone.platform)(KEY)
    gone.stop()
    login(KEY)
    assert set(login.contexts["contexts"]) == {"local", "local-default"}


def test_a_chosen_name_is_taken_and_what_it_replaces_is_said(login: Login) -> None:
    login(KEY)
    finished = login(OTHER_KEY, "--name", "local", "--json")
    assert finished.json["context"] == "local"
    assert login.keys == {"local": OTHER_KEY}
    assert "is replaced." in login(KEY, "--name", "local").err


def test_a_key_is_sent_to_its_own_platform_alone(login: Login) -> None:
    login(KEY)
    other = FakeServer()
    other.start()
    try:
        finished = login.jig("list", TOGETHER_BASE_URL=other.platform.url)
        assert finished.code == 1
        assert f"There is no API key for {other.platform.url}." in finished.err
        assert f"jig auth login {other.platform.url}`, or set TOGETHER_API_KEY" in finished.err
        assert other.platform.requests == []
        Login(login.jig, other.platform)(OTHER_KEY, "--name", "other")
        assert login.jig("list", TOGETHER_BASE_URL=login.platform.url).code == 0
        assert login.platform.requests[-1].headers["Authorization"] == f"Bearer {KEY}"
    finally:
        other.stop()


def test_a_refused_key_is_named_by_where_it_comes_from(login: Login) -> None:
    login(KEY)
    del login.platform.projects[KEY]
    assert "The key is that of the context local." in login.jig("list").err
    finished = login.jig("list", TOGETHER_API_KEY="msk_other")
    assert "The key is that of TOGETHER_API_KEY: set it to another, or unset it" in finished.err


def test_the_status_says_where_platform_and_key_come_from_and_the_scope(login: Login) -> None:
    login(KEY)
    login.platform.scope = "viewer"
    lines = [line.split(None, 1) for line in login.jig("auth", "status").out.splitlines()]
    assert ["From", "context local"] in lines
    assert ["Scope", "viewer"] in lines
    finished = login.jig("auth", "status", TOGETHER_API_KEY=OTHER_KEY)
    assert "Key from" in finished.out
    assert "TOGETHER_API_KEY" in finished.out
    document = login.jig("auth", "status", "--json", TOGETHER_API_KEY=OTHER_KEY).json
    assert (document["source"], document["key_source"]) == ("context local", "TOGETHER_API_KEY")
