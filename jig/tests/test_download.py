"""`jig download`: whole files, for the platform's key alone, over nothing that is there."""

import pytest
from fake_platform import FakePlatform
from jig_process import Jig

from jig.errors import UsageError
from jig.storage import stored_file

BASE = "https://platform.example.com/api"


@pytest.fixture
def stored(platform: FakePlatform) -> FakePlatform:
    """A platform with a file."""
    platform.files["job%201-page.png"] = b"pixels" * 100_000
    return platform


@pytest.mark.parametrize("is_url", [True, False], ids=["URL", "name"])
def test_a_file_is_fetched_by_its_url_or_its_name(jig: Jig, stored: FakePlatform, is_url: bool) -> None:
    finished = jig("download", f"{stored.url}/v1/storage/job%201-page.png" if is_url else "job 1-page.png")
    assert finished.code == 0, finished.err
    assert (jig.folder / "job 1-page.png").read_bytes() == stored.files["job%201-page.png"]
    assert finished.out == "job 1-page.png, 585.9 KiB\n"
    assert [place.name for place in jig.folder.iterdir()] == ["job 1-page.png"]


def test_it_goes_where_output_says(jig: Jig, stored: FakePlatform) -> None:
    (jig.folder / "out").mkdir()
    assert jig("download", "job 1-page.png", "a.png").code == 0
    finished = jig("download", "job 1-page.png", "-o", "out", "--json")
    assert finished.json == {
        "file": "job 1-page.png",
        "path": str(jig.folder / "out" / "job 1-page.png"),
        "size_bytes": 600_000,
    }
    assert (jig.folder / "a.png").read_bytes() == (jig.folder / "out" / "job 1-page.png").read_bytes()
    finished = jig("download", "job 1-page.png", "--output", "no/such/folder.png")
    assert finished.code == 1
    assert "Cannot write no/such/folder.png: No such file or directory." in finished.err
    finished = jig("download", "job 1-page.png", "--output", "new/folder/")
    assert finished.out == "new/folder/job 1-page.png, 585.9 KiB\n"


def test_nothing_is_overwritten_without_force(jig: Jig, stored: FakePlatform) -> None:
    (jig.folder / "mine.png").write_text("mine")
    finished = jig("download", "job 1-page.png", "--output", "mine.png")
    assert finished.code == 1
    assert "mine.png exists already." in finished.err
    assert (jig.folder / "mine.png").read_text() == "mine"
    assert jig("download", "job 1-page.png", "--output", "mine.png", "--force").code == 0
    assert (jig.folder / "mine.png").read_bytes() == stored.files["job%201-page.png"]


def test_what_does_not_arrive_whole_leaves_nothing(jig: Jig, stored: FakePlatform) -> None:
    stored.missing_bytes = 1
    (jig.folder / "mine.png").write_text("mine")
    assert jig("download", "job 1-page.png").code == 1
    assert jig("download", "job 1-page.png", "--output", "mine.png", "--force").code == 1
    assert [place.name for place in jig.folder.iterdir()] == ["mine.png"]
    assert (jig.folder / "mine.png").read_text() == "mine"
    finished = jig("download", "nothing.png")
    assert "There is no file nothing.png." in finished.err
    assert not (jig.folder / "nothing.png").exists()


def test_the_key_goes_to_no_other_host(jig: Jig, stored: FakePlatform) -> None:
    finished = jig("download", "https://elsewhere.example.com/v1/storage/a.png")
    assert finished.code == 2
    assert f"is not at the platform of {stored.url}." in finished.err
    assert not stored.requests


@pytest.mark.parametrize(
    ("named", "path", "filename"),
    [
        ("a b.png", "/v1/storage/a%20b.png", "a b.png"),
        ("folder/a.png", "/v1/storage/folder/a.png", "a.png"),
        (f"{BASE}/v1/storage/a%20b.png?x=1", "/v1/storage/a%20b.png", "a b.png"),
        ("https://platform.example.com/v1/deployments/storage/a", "/v1/deployments/storage/a", "a"),
        (f"{BASE}/v1/storage/a%2F..%2Fb", "/v1/storage/a%2F..%2Fb", "b"),
    ],
)
def test_a_stored_file_has_a_path_and_a_name(named: str, path: str, filename: str) -> None:
    stored = stored_file(named, BASE)
    assert (stored.path, stored.filename) == (path, filename)


@pytest.mark.parametrize("named", ["", "..", "a/", f"{BASE}/v1/deployments/a", f"{BASE}/v1/storage/", "ftp://x/y"])
def test_what_is_no_stored_file_is_refused(named: str) -> None:
    with pytest.raises(UsageError):
        stored_file(named, BASE)
