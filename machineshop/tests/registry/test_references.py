"""References to images, taken apart and put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineshop.errors import InvalidRequest
from machineshop.services.references import Reference, is_name, is_tag, parse_reference

DIGEST = "sha256:" + "0a" * 32

part = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
names = st.lists(part, min_size=2, max_size=4).map("/".join)
registries = st.sampled_from([None, "localhost", "localhost:5000", "127.0.0.1:8799", "ghcr.io", "[::1]:8799", "h:80"])
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.sampled_from([None, DIGEST])


@given(registries, names, tags, digests)
def test_what_is_put_together_is_taken_apart_again(
    registry: str | None, name: str, tag: str | None, digest: str | None
) -> None:
    first = name.partition("/")[0]
    if registry is None and ("." in first or first == "localhost"):
        return  # that would be a registry's name
    reference = Reference(registry, name, tag, digest)
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=60) | st.text("ab/:@.-_[]A0 \n", max_size=40))
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidRequest as error:
        assert error.param == "image"
        return
    assert str(reference) == text
    assert is_name(reference.name)
    assert reference.tag is None or is_tag(reference.tag)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"127.0.0.1:8799/team/app@{DIGEST}", Reference("127.0.0.1:8799", "team/app", None, DIGEST)),
        (f"host.example/team/a/b:v1@{DIGEST}", Reference("host.example", "team/a/b", "v1", DIGEST)),
        ("localhost/team/app:v1", Reference("localhost", "team/app", "v1")),
        ("team/app", Reference(None, "team/app")),
        ("python:3.11", Reference(None, "python", "3.11")),
    ],
)
def test_references_as_they_arrive(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert expected.namespace == expected.name.split("/")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Team/app",
        "host.example/",
        "host.example/team/../app",
        "host.example:port/team/app",
        "https://host.example/team/app",
        "team/app:",
        "team/app@",
        "team/app@sha256:abc",
        "team/app@sha512:" + "0" * 64,
        "team/app:a:b",
        "team//app",
        "team/app/",
        "team/app\n",
        "a" * 300,
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidRequest, match="does not name an image: "):
        parse_reference(text)
