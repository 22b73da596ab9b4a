"""Which platform and which key are in force."""

import json
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jig.contexts import (
    Context,
    Contexts,
    Target,
    context_name,
    contexts_path,
    normal_base_url,
    read_contexts,
    resolve,
    write_contexts,
)
from jig.errors import ContextError

LOCAL = Context("http://127.0.0.1:8799", "local-key")
FAR = Context("https://far.example.com", "far-key", "far-authority")
BOTH = Contexts("local", {"local": LOCAL, "far": FAR})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8799/", "http://127.0.0.1:8799"),
        ("http://127.0.0.1:8799/v1", "http://127.0.0.1:8799"),
        ("https://far.example.com/v1/", "https://far.example.com"),
        ("far.example.com", "https://far.example.com"),
        ("localhost:8799", "http://localhost:8799"),
        (" 127.0.0.1:1 ", "http://127.0.0.1:1"),
    ],
)
def test_base_urls_have_one_form(url: str, expected: str) -> None:
    assert normal_base_url(url) == expected


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ContextError):
        normal_base_url(url)


@pytest.mark.parametrize(
    ("environment", "base_url", "key"),
    [
        ({}, LOCAL.base_url, "local-key"),
        ({"TOGETHER_API_KEY": "own"}, LOCAL.base_url, "own"),
        ({"TOGETHER_BASE_URL": "https://far.example.com/v1"}, FAR.base_url, "far-key"),
        ({"TOGETHER_BASE_URL": "https://FAR.example.com:443"}, "https://FAR.example.com:443", "far-key"),
        ({"TOGETHER_BASE_URL": "http://far.example.com"}, "http://far.example.com", None),
        ({"TOGETHER_BASE_URL": "https://far.example.com:444"}, "https://far.example.com:444", None),
        ({"TOGETHER_BASE_URL": "http://localhost:8799"}, "http://localhost:8799", "local-key"),
        ({"TOGETHER_BASE_URL": "http://[::1]:8799"}, "http://[::1]:8799", "local-key"),
        ({"TOGETHER_BASE_URL": "http://localhost:9000"}, "http://localhost:9000", None),
        ({"TOGETHER_BASE_URL": "https://127.0.0.1:8799"}, "https://127.0.0.1:8799", None),
        ({"TOGETHER_BASE_URL": "http://127.0.0.2:8799"}, "http://127.0.0.2:8799", None),
        ({"TOGETHER_BASE_URL": "https://other.example.com"}, "https://other.example.com", None),
        ({"TOGETHER_BASE_URL": "https://o.example.com", "TOGETHER_API_KEY": "own"}, "https://o.example.com", "own"),
    ],
)
def test_the_environment_overrides_and_no_key_goes_to_another_platform(
    environment: dict[str, str], base_url: str, key: str | None
) -> None:
    target = resolve(BOTH, environment)
    assert (target.base_url, target.api_key) == (base_url, key)


def test_of_the_contexts_of_one_machine_the_one_of_the_platform_lends_its_key() -> None:
    beside = Contexts("a", {"a": Context("http://127.0.0.1:28799", "a"), "b": Context("https://127.0.0.1:28800", "b")})
    target = resolve(beside, {"TOGETHER_BASE_URL": "https://127.0.0.1:28800"})
    assert (target.api_key, target.source, target.key_source) == ("b", "TOGETHER_BASE_URL", "context b")


def test_of_the_contexts_of_one_platform_the_same_url_goes_first_and_then_the_current_one() -> None:
    urls = {"other": "http://127.0.0.1:1", "now": "http://127.0.0.1:1", "alias": "http://localhost:1"}
    contexts = Contexts("now", {name: Context(url, name) for name, url in urls.items()})
    assert resolve(contexts, {"TOGETHER_BASE_URL": "http://127.0.0.1:1"}).api_key == "now"
    assert resolve(contexts, {"TOGETHER_BASE_URL": "http://localhost:1"}).api_key == "alias"
    assert resolve(contexts, {"TOGETHER_BASE_URL": "http://[::1]:1"}).api_key == "now"


@pytest.mark.parametrize(
    ("environment", "source", "key_source"),
    [
        ({}, "context local", "context local"),
        ({"TOGETHER_API_KEY": "own"}, "context local", "TOGETHER_API_KEY"),
        ({"TOGETHER_BASE_URL": "https://far.example.com"}, "TOGETHER_BASE_URL", "context far"),
        ({"TOGETHER_BASE_URL": "https://x.test", "TOGETHER_API_KEY": "own"}, "TOGETHER_BASE_URL", "TOGETHER_API_KEY"),
        ({"TOGETHER_BASE_URL": "https://x.test"}, "TOGETHER_BASE_URL", None),
    ],
)
def test_it_is_known_where_the_platform_and_the_key_come_from(
    environment: dict[str, str], source: str, key_source: str | None
) -> None:
    target = resolve(BOTH, environment)
    assert (target.source, target.key_source) == (source, key_source)


@pytest.mark.parametrize(
    "holder",
    [LOCAL, BOTH, resolve(BOTH, {}), resolve(Contexts(), {"TOGETHER_API_KEY": "local-key"})],
    ids=["context", "contexts", "target of a context", "target of the environment"],
)
def test_a_key_never_shows_in_a_repr(holder: Context | Contexts | Target) -> None:
    assert "local-key" in json.dumps(asdict(holder))
    assert "local-key" not in repr(holder)


def test_without_anything_it_is_the_platform_of_this_machine() -> None:
    target = resolve(Contexts(), {})
    assert (target.base_url, target.api_key, target.source) == ("http://127.0.0.1:8799", None, "default")


def test_the_file_is_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "contexts.json"
    write_contexts(path, BOTH)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_contexts(path) == BOTH
    assert [place.name for place in path.parent.iterdir()] == ["contexts.json"]
    path.chmod(0o644)
    assert read_contexts(path) == BOTH
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "what a copy has opened is closed"


@pytest.mark.parametrize("text", ["{", "[]", '{"contexts": {"a": {}}}', json.dumps({"contexts": {"a": 1}})])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "contexts.json"
    path.write_text(text)
    with pytest.raises(ContextError, match=r"contexts\.json is not a contexts file"):
        read_contexts(path)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FIELDS = st.fixed_dictionaries(
    {}, optional={name: JSON | st.sampled_from(["https://a", "msk"]) for name in ("base_url", "api_key", "ca")}
)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({"contexts": JSON | st.dictionaries(st.text(), FIELDS)}, optional={"current": JSON}))
def test_any_file_is_of_contexts_or_said_not_to_be(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "contexts.json"
    path.write_text(json.dumps(document))
    try:
        contexts = read_contexts(path)
    except ContextError as refused:
        assert refused.message
    else:
        resolve(contexts, {})
        write_contexts(path, contexts)
        assert read_contexts(path) == contexts


def test_places_of_the_file(tmp_path: Path) -> None:
    assert contexts_path({"JIG_CONTEXTS": "/a/b"}).as_posix() == "/a/b"
    assert contexts_path({"XDG_CONFIG_HOME": "/x"}).as_posix() == "/x/jig/contexts.json"
    assert contexts_path({}).parts[-3:] == (".config", "jig", "contexts.json")


def test_contexts_are_named_after_their_host() -> None:
    assert context_name("http://127.0.0.1:1") == context_name("http://localhost") == "local"
    assert context_name("https://far.example.com") == "far.example.com"


@pytest.mark.parametrize(
    ("base_url", "authority"),
    [
        ("https://far.example.com", "far-authority"),
        ("https://far.example.com:444", None),
        ("https://localhost:8799", "own"),
        ("https://127.0.0.1:8799", "own"),
        ("https://127.0.0.1:1", None),
    ],
)
def test_an_authority_is_trusted_for_its_platform_alone(base_url: str, authority: str | None) -> None:
    secure = BOTH.with_context("secure", Context("https://127.0.0.1:8799", "key", "own"))

    assert resolve(secure, {"TOGETHER_BASE_URL": base_url}).ca == authority


def test_forgetting_the_current_context_leaves_the_others() -> None:
    assert BOTH.without("local") == Contexts("far", {"far": FAR})
    assert BOTH.without("far") == Contexts("local", {"local": LOCAL})
