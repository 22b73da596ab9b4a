"""`jig volumes download` as a user runs it: whole files, in their folder alone, and nothing fetched twice."""

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import fake_volumes
import pytest
from fake_platform import FakePlatform
from jig_process import Jig, finish, wait_until

MIB = 1024 * 1024
LARGE = bytes(range(256)) * 4096 * 40
FILES = {"words.txt": b"one\ntwo\n", "deep/er/a b.bin": b"x" * 300_000, "empty": b"", "large": LARGE}
CONTENTS = f"{fake_volumes.VOLUMES}/words/versions/0/files/contents"
LARGE_PATH = "/v1/storage/words/0/large"


@pytest.fixture
def words(platform: FakePlatform) -> FakePlatform:
    """A platform with a volume."""
    have(platform, FILES)
    return platform


@pytest.fixture
def place(jig: Jig) -> Path:
    """Where the files come unless it is said otherwise."""
    return jig.folder / "words"


def have(platform: FakePlatform, *versions: dict[str, bytes]) -> None:
    """Have the volume with these versions, and nothing else."""
    platform.files.clear()
    platform.volumes.put(platform, "words", *versions)


def held(folder: Path) -> dict[str, bytes]:
    """All files of a folder, whatever they are called."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def test_a_volume_comes_into_a_folder_of_its_name(jig: Jig, words: FakePlatform, place: Path) -> None:
    finished = jig("volumes", "download", "words")
    assert finished.code == 0, finished.err
    assert held(place) == FILES
    assert finished.out.startswith("words: 4 files, 40.3 MiB, in ")
    assert finished.out.endswith(" s.\n")
    assert [line.split()[0] for line in finished.err.splitlines()] == ["list", "compare", "download"]
    assert len(words.sent("POST", CONTENTS)) == 1
    assert len(words.sent("GET", LARGE_PATH)) == 1
    mask = os.umask(0)
    os.umask(mask)
    assert (place / "words.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_is_there_is_not_fetched_again_and_other_files_stay(jig: Jig, words: FakePlatform, place: Path) -> None:
    write(place / "mine.txt", b"mine")
    write(place / "words.txt", FILES["words.txt"])
    assert "3 files, 40.3 MiB" in jig("volumes", "download", "words").out
    assert held(place) == {**FILES, "mine.txt": b"mine"}
    requests = len(words.sent("POST", CONTENTS) + words.sent("GET", LARGE_PATH))
    finished = jig("volumes", "download", "words")
    assert finished.out == "words: 4 files, all of which were there.\n"
    assert len(words.sent("POST", CONTENTS) + words.sent("GET", LARGE_PATH)) == requests
    (place / "empty").unlink()
    finished = jig("volumes", "download", "words", "--json")
    assert finished.err == ""
    document = finished.json
    assert document["seconds"].keys() == {"list", "compare", "download"}
    del document["seconds"]
    assert document == {
        "volume": "words",
        "version": 0,
        "folder": str(place),
        "files_count": 4,
        "size_bytes": sum(map(len, FILES.values())),
        "there_files": 3,
        "fetched_files": 1,
        "fetched_bytes": 0,
        "resumed_bytes": 0,
        "replaced_files": 0,
    }


def test_a_version_and_a_part_of_it_come_where_somebody_says(jig: Jig, platform: FakePlatform, tmp_path: Path) -> None:
    platform.volumes.put(platform, "words", {"a/b": b"0", "ab": b"0"}, {"a/b": b"1", "a/c/d": b"2", "ab": b"3"})
    folder = tmp_path / "new" / "place"
    assert jig("volumes", "download", "words", str(folder), "--version", "0").code == 0
    assert held(folder) == {"a/b": b"0", "ab": b"0"}
    parts = [("a/", {"a/b": b"1", "a/c/d": b"2"}), ("ab", {"ab": b"3"}), ("a/c", {"a/c/d": b"2"})]
    for option, (path, files) in zip(("--folder", "--output", "-o"), parts, strict=True):
        folder = tmp_path / "part" / path
        assert jig("volumes", "download", "--name", "words", option, str(folder), "--path", path).code == 0
        assert held(folder) == files
    finished = jig("volumes", "download", "words", "--path", "b")
    assert finished.code == 1
    assert "Version 1 of the volume words has no file 'b', and none in a folder of that name." in finished.err
    assert 'Invalid value "-1" for --version.' in jig("volumes", "download", "words", "--version", "-1").err
    assert not (jig.folder / "words").exists()


def test_what_differs_is_overwritten_by_force_alone(jig: Jig, platform: FakePlatform, place: Path) -> None:
    files = {f"{number}.txt": b"theirs" for number in range(8)}
    platform.volumes.put(platform, "words", {**files, "same": b"same", "new": b"new"})
    mine = {**{name: b"mine" if name < "4" else b"mine!!" for name in files}, "same": b"same"}
    for name, content in mine.items():
        write(place / name, content)
    finished = jig("volumes", "download", "words")
    assert finished.code == 1
    assert "8 files in words would be overwritten:\n  0.txt\n  1.txt\n  2.txt\n  3.txt\n  4.txt\n  and 3 more\n" in (
        finished.err
    )
    assert "--force" in finished.err
    assert held(place) == mine, "nothing was fetched either"
    finished = jig("volumes", "download", "words", "--force", "--json")
    assert finished.json["replaced_files"] == 8
    assert held(place) == {**files, "same": b"same", "new": b"new"}


@pytest.mark.parametrize("cut", [0, 5, 200, 100_000, 300_400])
def test_an_answer_that_breaks_off_is_gone_on_with(jig: Jig, words: FakePlatform, place: Path, cut: int) -> None:
    words.volumes.cuts += [cut, cut]
    finished = jig("volumes", "download", "words", "--json")
    assert finished.code == 0, finished.out
    assert held(place) == FILES
    assert finished.json["fetched_bytes"] == sum(map(len, FILES.values()))
    asked = [request.json["paths"] for request in words.sent("POST", CONTENTS)]
    assert all(set(later) <= set(earlier) for earlier, later in pairwise(asked))
    starts = [request.headers.get("Range", "bytes=0-") for request in words.sent("GET", LARGE_PATH)]
    assert {int(start[6:-1]) for start in starts} <= {0, cut, 2 * cut}, "all that had come was kept"


def test_after_ctrl_c_the_same_command_goes_on(jig: Jig, words: FakePlatform, place: Path) -> None:
    words.volumes.cuts += [30 * MIB]
    have(words, {"large": LARGE})
    with jig.start("volumes", "download", "words") as process:
        wait_until(process, lambda: words.sent("GET", LARGE_PATH), "the file is under way")
        words.is_away = True
        wait_until(process, lambda: sum(path.stat().st_size for path in place.iterdir()) == 30 * MIB, "it breaks off")
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.code == 130
    assert "Interrupted: 30.0 MiB of 40.0 MiB have arrived." in finished.err
    assert "run the same command again" in finished.err
    assert not (place / "large").exists()
    words.is_away = False
    words.volumes.cuts.clear()
    words.requests.clear()
    finished = jig("volumes", "download", "words", "--json")
    assert (finished.json["resumed_bytes"], finished.json["fetched_bytes"]) == (30 * MIB, 10 * MIB)
    assert held(place) == {"large": LARGE}
    (request,) = words.sent("GET", LARGE_PATH)
    assert request.headers["Range"] == f"bytes={30 * MIB}-"


def part_of(place: Path, jig: Jig, words: FakePlatform) -> Path:
    """What an interrupted run leaves of the large file."""
    words.failures += [(LARGE_PATH, 403)]
    assert jig("volumes", "download", "words", "--path", "large").code == 1
    (part,) = place.iterdir()
    return part


@pytest.mark.parametrize(
    "kept", [LARGE[: MIB - 1] + b"!", LARGE + b"!", b"!" * len(LARGE)], ids=["start", "long", "other"]
)
def test_a_part_that_the_disk_has_spoiled_is_fetched_anew(
    jig: Jig, words: FakePlatform, place: Path, kept: bytes
) -> None:
    part = part_of(place, jig, words)
    part.write_bytes(kept)
    finished = jig("volumes", "download", "words", "--json")
    assert finished.code == 0, finished.out
    assert held(place) == FILES
    assert finished.json["resumed_bytes"] == 0
    assert finished.json["fetched_bytes"] == sum(map(len, FILES.values()))


def test_what_an_interrupted_run_of_another_version_left_goes(jig: Jig, words: FakePlatform, place: Path) -> None:
    part = part_of(place, jig, words)
    have(words, FILES, {"large": b"small by now", part.name + ".txt": b"a file"})
    assert jig("volumes", "download", "words").code == 0
    assert held(place) == {"large": b"small by now", part.name + ".txt": b"a file"}


def test_a_large_file_that_is_sent_from_its_start_again_is_whole(jig: Jig, words: FakePlatform, place: Path) -> None:
    words.volumes.cuts += [MIB]
    have(words, {"large": LARGE})
    words.volumes.takes_ranges = False
    assert jig("volumes", "download", "words").code == 0
    assert held(place) == {"large": LARGE}


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "last": lambda content: content[:-1] + b"!",
    "more": lambda content: content.replace(b"one\ntwo", b"one\ntoo"),
    "head": lambda content: content.replace(b'"path": "empty"', b'"path": "../mt"'),
    "size": lambda content: content.replace(b'"size": 8', b'"size": 9'),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_bytes_that_are_others_are_not_kept(jig: Jig, words: FakePlatform, place: Path, kind: str) -> None:
    have(words, {"a": b"a", "empty": b"", "words.txt": b"one\ntwo\n"})
    words.volumes.spoil = SPOILED[kind]
    finished = jig("volumes", "download", "words")
    assert finished.code == 1
    assert "another SHA-256" in finished.err or "other files than it had listed" in finished.err
    assert "words.txt" not in held(place)
    assert sorted(path.name for path in jig.folder.iterdir()) == ["words"]


def test_a_large_file_of_other_bytes_is_not_kept(jig: Jig, words: FakePlatform, place: Path) -> None:
    have(words, {"large": LARGE})
    words.volumes.spoil = lambda content: b"!" + content[1:]
    finished = jig("volumes", "download", "words")
    assert finished.code == 1
    assert "The bytes of 'large' arrived with another SHA-256" in finished.err
    assert not (place / "large").exists()
    words.volumes.spoil = bytes
    assert jig("volumes", "download", "words").code == 0
    assert held(place) == {"large": LARGE}


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", ".", "a//b", "a/", "a\nb", "a\0b", "\x1b[2J"])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(
    jig: Jig, words: FakePlatform, name: str
) -> None:
    words.volumes.called["words.txt"] = name
    finished = jig("volumes", "download", "words")
    assert finished.code == 1
    assert f"The platform names a file {name!r}, which jig does not write." in finished.err
    assert "\x1b" not in finished.err
    assert list(jig.folder.iterdir()) == []
    assert not (jig.folder.parent / "out").exists()


def test_no_link_below_the_folder_is_followed(jig: Jig, words: FakePlatform, place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside / "er" / "a b.bin", b"outside")
    place.mkdir()
    (place / "deep").symlink_to(outside)
    finished = jig("volumes", "download", "words", "--force")
    assert finished.code == 1
    assert "words/deep/er/a b.bin cannot be there" in finished.err
    (place / "deep").unlink()
    (place / "words.txt").symlink_to(outside / "er" / "a b.bin")
    finished = jig("volumes", "download", "words")
    assert "1 file in words would be overwritten:\n  words.txt\n" in finished.err
    assert jig("volumes", "download", "words", "--force").code == 0
    assert held(place) == FILES
    assert not (place / "words.txt").is_symlink(), "the link itself was replaced"
    assert held(outside) == {"er/a b.bin": b"outside"}


def test_the_folder_itself_may_be_a_link(jig: Jig, words: FakePlatform, place: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    place.symlink_to(tmp_path / "disk")
    assert jig("volumes", "download", "words").code == 0
    assert held(tmp_path / "disk") == FILES


def test_what_cannot_be_written_is_said(jig: Jig, words: FakePlatform, place: Path) -> None:
    write(place, b"a file")
    assert "words is no folder." in jig("volumes", "download", "words").err
    place.unlink()
    write(place / "deep", b"a file")
    assert "words/deep/er/a b.bin cannot be there" in jig("volumes", "download", "words", "--force").err
    (place / "deep").unlink()
    (place / "words.txt").mkdir()
    assert "words/words.txt is a folder, and a file in the volume." in jig("volumes", "download", "words").err
    (place / "words.txt").rmdir()
    os.mkfifo(place / "words.txt")
    assert "would be overwritten:\n  words.txt\n" in jig("volumes", "download", "words").err
    assert jig("volumes", "download", "words", "--force").code == 0
    assert held(place) == FILES


def test_of_a_version_that_is_not_whole_somebody_is_told(jig: Jig, words: FakePlatform, place: Path) -> None:
    version = words.volumes.versions["words"][0]
    version.sealed_at = None
    finished = jig("volumes", "download", "words")
    assert finished.code == 0
    assert "warning: Version 0 of the volume words is open" in finished.err
    version.status, version.status_message = "failed", "The bucket is gone."
    finished = jig("volumes", "download", "words")
    assert finished.code == 1
    assert "Version 0 of the volume words is failed: The bucket is gone." in finished.err


def test_a_hash_that_the_platform_does_not_know_yet_is_waited_for(jig: Jig, words: FakePlatform, place: Path) -> None:
    words.volumes.unhashed = 2
    finished = jig("volumes", "download", "words")
    assert finished.code == 0
    assert "The platform still reads what was uploaded before." in finished.err
    assert held(place) == FILES


def test_what_there_is_not_is_said(jig: Jig, words: FakePlatform) -> None:
    assert "There is no volume word." in jig("volumes", "download", "word").err
    finished = jig("volumes", "download", "words", "--version", "7")
    assert finished.code == 1
    assert "has no version 7" in finished.err
    words.volumes.put(words, "none", {})
    words.volumes.versions["none"][0].sealed_at = None
    assert "Version 0 of the volume none has no files." in jig("volumes", "download", "none").err
    finished = jig("volumes", "download", "../words")
    assert finished.code == 2
    assert list(jig.folder.iterdir()) == []


def test_two_runs_do_not_fill_one_folder(jig: Jig, words: FakePlatform, place: Path) -> None:
    have(words, {"large": LARGE})
    words.volumes.cuts += [MIB]
    with jig.start("volumes", "download", "words") as process:
        wait_until(process, lambda: words.sent("GET", LARGE_PATH), "the file is under way")
        words.failures += [(LARGE_PATH, 503)] * 1000
        finished = jig("volumes", "download", "words")
        assert finished.code == 1
        assert "Another `jig volumes download` fills words." in finished.err
        words.failures.clear()
        assert finish(process).code == 0
    assert held(place) == {"large": LARGE}
