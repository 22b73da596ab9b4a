"""The small pure parts: words of the command line, numbers as people read them, tables."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jig.answers import away_hint, checked, pause_seconds
from jig.arguments import normalize, wants_json
from jig.errors import PlatformError
from jig.http import httpx
from jig.job import state_line
from jig.output import has_colour, paint
from jig.payload import with_uploads
from jig.registry import repository_at
from jig.tables import columns, fields
from jig.units import age, coarse, count, elapsed, rounded, size

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list"], ["list"]),
        (["--json", "list"], ["list", "--json"]),
        (["-c", "a.toml", "--json", "deploy", "--detach"], ["deploy", "--detach", "-c", "a.toml", "--json"]),
        (["--config=a.toml", "job_status", "x_y"], ["job-status", "x_y", "--config=a.toml"]),
        (["--json", "submit", "--", "-x"], ["submit", "--json", "--", "-x"]),
        (["--version"], ["--version"]),
        (["--json"], ["--json"]),
        (["-c"], ["-c"]),
        (["un_known"], ["un_known"]),
        (["help"], ["--help"]),
        (["help", "job_status"], ["job-status", "--help"]),
        (["--json", "help", "list"], ["list", "--help", "--json"]),
    ],
)
def test_global_options_may_come_first(words: list[str], expected: list[str]) -> None:
    assert normalize(words, ["list", "deploy", "job-status", "submit"]) == expected


def test_json_is_seen_anywhere_among_the_options() -> None:
    assert wants_json(["lst", "--json"])
    assert not wants_json(["submit", "--", "--json"])


def test_numbers_are_short() -> None:
    assert [coarse(value) for value in (5, 61, 7300, 200_000)] == ["5s", "1m", "2h", "2d"]
    assert [elapsed(value) for value in (0.034, 4.24, 185)] == ["0.03 s", "4.2 s", "3 min 05 s"]
    assert [size(value) for value in (512, 34_900, 5_000_000, 3_000_000_000)] == [
        "512 B",
        "34.1 KiB",
        "4.8 MiB",
        "2.8 GiB",
    ]
    assert [count(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_fractions_are_cut_to_what_is_read() -> None:
    assert rounded({"a": 1 / 3, "b": [1234.56789, 0.00001234], "c": 7, "d": True}) == {
        "a": 0.333,
        "b": [1234.568, 0.0000123],
        "c": 7,
        "d": True,
    }


def test_ages_are_counted_from_now() -> None:
    assert age("2026-01-01T23:59:30Z", NOW) == "30s"
    assert age("2026-01-01T12:00:00", NOW) == "12h"
    assert age("2027-01-01T00:00:00Z", NOW) == "0s"
    assert age(None, NOW) == age("yesterday", NOW) == "-"


def test_columns_are_aligned_without_trailing_spaces() -> None:
    assert columns(("NAME", "STATUS"), [("a", "Ready"), ("longer", "")]) == "NAME    STATUS\na       Ready\nlonger"


def test_fields_indent_what_has_several_lines() -> None:
    assert fields([("A", "1"), ("Long", "2\n3")]) == "A     1\nLong  2\n      3"


def test_colours_only_on_a_terminal_that_wants_them() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert has_colour(Terminal(), {})
    assert not has_colour(Terminal(), {"NO_COLOR": "1"})
    assert not has_colour(Terminal(), {"TERM": "dumb"})
    assert paint("x", "red", enabled=False) == "x"
    assert paint("x", "red", enabled=True) == "\033[31mx\033[0m"


@pytest.mark.parametrize(
    ("base_path", "url", "name"),
    [
        ("http://127.0.0.1:8799/acme", "http://127.0.0.1:8799", "acme/hello"),
        ("https://registry.example.com/a/b/", "https://registry.example.com", "a/b/hello"),
        ("registry.example.com/a", "https://registry.example.com", "a/hello"),
    ],
)
def test_a_repository_lies_below_the_base_path(base_path: str, url: str, name: str) -> None:
    repository = repository_at(base_path, "hello")
    assert (repository.url, repository.name) == (url, name)
    assert repository.image("sha256:1").endswith(f"/{name}@sha256:1")


def test_a_key_that_may_not_is_told_with_where_it_comes_from() -> None:
    refusal = httpx.Response(403, json={"error": {"message": "It may not.", "code": "not_permitted"}})
    with pytest.raises(PlatformError) as refused:
        checked(refusal, "TOGETHER_API_KEY")
    assert refused.value.message == "It may not."
    assert (refused.value.hint or "").startswith("The key is that of TOGETHER_API_KEY: set it to another")


def test_an_address_of_a_context_is_told_with_its_name() -> None:
    assert away_hint("context tls").startswith("It is that of the context tls; `jig context list` shows others. Start")
    assert away_hint("TOGETHER_BASE_URL").startswith("Start one with `machineshop serve`")


def test_pauses_double_and_obey_retry_after() -> None:
    assert [round(pause_seconds(attempt, None, 0.5), 3) for attempt in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert pause_seconds(1, "3", 0.5) == 3
    assert pause_seconds(1, "600", 0.5) == 10


def test_only_top_level_files_are_uploaded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    payload = {"image": f"@{tmp_path}/a.png", "note": "@@home", "deep": {"image": "@b.png"}, "n": 1}
    assert with_uploads(payload, lambda path: f"url of {path.name}") == {
        "image": "url of a.png",
        "note": "@home",
        "deep": {"image": "@b.png"},
        "n": 1,
    }


def test_progress_is_one_line() -> None:
    job = {"status": "running", "retries": 1, "info": {"page": 2, "of": {"pages": 3}, "stage": "reading", "error": "x"}}
    assert state_line(job) == 'running, retry 1: page 2, of {"pages": 3}, stage reading'
    assert state_line({"status": "running", "info": {"progress": 0.1 + 0.2}}) == "running: progress 0.3"
    assert state_line({"status": "pending", "queue": {"position": 3}}) == "pending, position 3"
