"""`jig volumes` as a user runs it: folders and S3 become versions, and nothing is sent twice."""

import json
import os
import signal
import socket
from pathlib import Path

import fake_volumes
import pytest
from fake_platform import FakePlatform
from jig_process import Jig, finish, wait_until

from jig.units import size
from jig.volumes.s3 import progress_line

MIB = 1024 * 1024
# What goes alone.
LARGER = b"y" * MIB
BATCH = f"PUT {fake_volumes.VOLUMES}/words/versions/0/files"
FILES = {"words.txt": b"one\ntwo\n", "deep/er/a b.bin": b"x" * 300_000, "empty": b""}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of small files."""
    folder = tmp_path / "source"
    for name, content in FILES.items():
        write(folder / name, content)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which uploads are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def jig(jig: Jig, cache: Path) -> Jig:
    """jig with this cache."""
    return Jig(jig.folder, {**jig.environment, "XDG_CACHE_HOME": str(cache)})


def write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def sent(platform: FakePlatform) -> list[str]:
    """The names of what was uploaded, each as often as it was."""
    alone = [each.path.rpartition("/")[2] for each in platform.sent("PUT", "/signed/")]
    together = [name for each in platform.sent("PUT", fake_volumes.VOLUMES) for name in fake_volumes.batch_of(each)]
    return sorted([*alone, *(name.rpartition("/")[2] for name in together)])


def stored(platform: FakePlatform, name: str, version: int) -> dict[str, bytes]:
    return fake_volumes.files_of(platform, name, version)


def test_a_folder_becomes_a_volume(jig: Jig, platform: FakePlatform, source: Path) -> None:
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 0, finished.err
    assert stored(platform, "words", 0) == FILES
    assert platform.volumes.versions["words"][0].sealed_at
    assert finished.out == "words has version 0: 3 files, 3 files sent, 293.0 KiB.\n"
    assert 'Mount it, in jig.toml:\n  [[deploy.volume_mounts]]\n  name = "words"\n' in finished.err
    assert "version =" not in finished.err
    assert "%" not in finished.err  # no progress bar where nobody sees it


def test_a_folder_that_a_deploy_would_pack_too_is_warned_of(jig: Jig, platform: FakePlatform, project: Path) -> None:
    write(project / "data" / "words" / "en.txt", b"one")
    finished = jig("volumes", "create", "words", "data/words")
    assert finished.code == 0, finished.err
    said = "data/words is in the project's folder, so `jig deploy` packs it too."
    assert f"{said} To leave it out, write in .jigignore: /data/words" in finished.err
    (project / ".jigignore").write_text("/data\n")
    write(project / "data" / "words" / "en.txt", b"two")
    assert ".jigignore" not in jig("volumes", "update", "words", "data/words").err


def test_the_document_says_what_was_sent(jig: Jig, source: Path) -> None:
    finished = jig("volumes", "create", "--name", "words", "--source", str(source), "--json")
    assert finished.code == 0, finished.err
    assert finished.json["volume"]["name"] == "words"
    assert finished.json["volume"]["sealed_at"]
    keys = ("files_count", "size_bytes", "sent_files", "sent_bytes", "resumed_bytes", "linked_files")
    assert [finished.json[key] for key in keys] == [3, 300_008, 3, 300_008, 0, 0]


def test_an_update_sends_only_what_is_new(jig: Jig, platform: FakePlatform, source: Path) -> None:
    assert jig("volumes", "create", "words", str(source)).code == 0
    platform.requests.clear()
    write(source / "new.txt", b"new")
    (source / "words.txt").rename(source / "renamed.txt")
    finished = jig("volumes", "update", "words", str(source), "--json")
    assert finished.code == 0, finished.err
    assert sent(platform) == ["new.txt"]
    assert (finished.json["sent_files"], finished.json["sent_bytes"], finished.json["linked_files"]) == (1, 3, 3)
    expected = {**FILES, "new.txt": b"new", "renamed.txt": FILES["words.txt"]}
    del expected["words.txt"]
    assert stored(platform, "words", 1) == expected
    assert stored(platform, "words", 0) == FILES


def test_an_update_without_a_change_makes_no_version(jig: Jig, platform: FakePlatform, source: Path) -> None:
    assert jig("volumes", "create", "words", str(source)).code == 0
    finished = jig("volumes", "update", "words", str(source))
    assert finished.code == 0, finished.err
    assert finished.out == "Nothing has changed: version 0 of words holds the same 3 files.\n"
    assert "sealed" not in finished.err
    assert "Mount it" not in finished.err
    assert jig("volumes", "update", "words", str(source), "--json").json["changed"] is False
    assert len(platform.volumes.versions["words"]) == 1


@pytest.mark.parametrize(
    ("file", "text", "table"),
    [
        ("jig.toml", 'name = "hello"\n', "[[deploy.volume_mounts]]"),
        ("jig.toml", '[tool.jig]\nname = "hello"\n', "[[tool.jig.deploy.volume_mounts]]"),
        ("pyproject.toml", '[tool.jig]\nname = "hello"\n', "[[tool.jig.deploy.volume_mounts]]"),
    ],
)
def test_after_an_update_it_is_said_how_the_new_version_gets_mounted(
    jig: Jig, platform: FakePlatform, source: Path, file: str, text: str, table: str
) -> None:
    (jig.folder / file).write_text(text)
    platform.volumes.put(platform, "words", {"a": b"a"})
    said = jig("volumes", "update", "words", str(source)).err
    hint = f'Mount it, in {file}:\n  {table}\n  name = "words"\n  mount_path = "/words"\n  version = 1\n'
    assert said.endswith(hint)


@pytest.mark.parametrize("command", ["create", "update"])
def test_a_viewer_is_refused_before_anything_is_read(
    jig: Jig, platform: FakePlatform, source: Path, command: str
) -> None:
    if command == "update":
        platform.volumes.put(platform, "words", {"a": b"a"})
    platform.scope = "viewer"
    finished = jig("volumes", command, "words", str(source))
    assert finished.code == 1
    assert "it needs the scope admin or developer, and has viewer." in finished.err
    assert "To go on" not in finished.err
    assert "read " not in finished.err
    assert not platform.sent("POST", fake_volumes.VOLUMES)


@pytest.mark.parametrize("name", ["a b", "a/b", "..", "ä", "a" * 101])
def test_a_name_that_cannot_be_is_refused_before_anything_is_read(
    jig: Jig, platform: FakePlatform, source: Path, name: str
) -> None:
    finished = jig("volumes", "create", name, str(source))
    assert finished.code == 2
    assert "cannot be a volume's name." in finished.err
    assert not platform.requests


def test_files_of_equal_bytes_are_sent_once(jig: Jig, platform: FakePlatform, source: Path) -> None:
    for number in range(5):
        write(source / f"copy-{number}", b"the same")
    finished = jig("volumes", "create", "words", str(source), "--json")
    assert finished.code == 0, finished.err
    assert len(sent(platform)) == 4
    assert finished.json["linked_files"] == 4
    assert stored(platform, "words", 0)["copy-3"] == b"the same"


def test_what_an_interrupted_update_with_another_folder_left_is_removed(
    jig: Jig, platform: FakePlatform, source: Path
) -> None:
    platform.volumes.put(platform, "words", {"a": b"a"})
    platform.files["words/1/left over"] = b"of another folder"
    assert jig("volumes", "update", "words", str(source)).code == 0
    assert stored(platform, "words", 1) == FILES


def test_a_create_goes_on_where_it_was_interrupted(jig: Jig, platform: FakePlatform, source: Path) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    platform.files["words/0/words.txt"] = FILES["words.txt"]
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 0, finished.err
    assert "its upload goes on" in finished.err
    assert sent(platform) == ["a b.bin", "empty"]
    assert stored(platform, "words", 0) == FILES


def test_a_create_of_what_exists_names_update(jig: Jig, platform: FakePlatform, source: Path) -> None:
    platform.volumes.put(platform, "words", {"a": b"a"})
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 1
    assert "The volume words already exists." in finished.err
    assert f"jig volumes update words {source}" in finished.err
    assert not sent(platform)


def test_an_open_volume_with_other_files_is_left_alone(jig: Jig, platform: FakePlatform, source: Path) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    platform.files["words/0/of somebody else"] = b"theirs"
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 1
    assert "holds what" in finished.err
    assert "of somebody else" in finished.err
    assert "jig volumes delete words" in finished.err
    assert not sent(platform)
    assert stored(platform, "words", 0) == {"of somebody else": b"theirs"}


def test_an_upload_that_was_never_finished_is_open_and_gets_no_next_version(
    jig: Jig, platform: FakePlatform, source: Path
) -> None:
    platform.volumes.versions["words"] = [fake_volumes.FakeVersion()]
    assert jig("volumes", "list").out.splitlines()[1].split()[:3] == ["words", "0", "open"]
    platform.files["words/0/words.txt"] = FILES["words.txt"]
    assert jig("volumes", "list").out.splitlines()[1].split()[:3] == ["words", "0", "open"]
    described = jig("volumes", "describe", "words").out
    assert "Status   open" in described
    assert described.splitlines()[-1].split()[:2] == ["0", "open"]
    assert jig("volumes", "describe", "words", "--json").json["status"] == "ready"
    for words in (str(source), "s3://bucket/words"):
        finished = jig("volumes", "update", "words", words)
        assert finished.code == 1
        assert "Version 0 of the volume words is open: its upload was never finished." in finished.err
        assert "Run `jig volumes create words SOURCE` again, or delete it: jig volumes delete words" in finished.err
    assert len(platform.volumes.versions["words"]) == 1
    assert not platform.volumes.versions["words"][0].sealed_at
    assert jig("volumes", "create", "words", str(source)).code == 0
    assert jig("volumes", "list").out.splitlines()[1].split()[:3] == ["words", "0", "ready"]


def test_a_later_version_that_was_not_sealed_is_sealed_by_an_update(
    jig: Jig, platform: FakePlatform, source: Path
) -> None:
    platform.volumes.put(platform, "words", {"a": b"a"}, FILES)
    platform.volumes.versions["words"][1].sealed_at = None
    assert jig("volumes", "update", "words", str(source)).code == 0
    assert len(platform.volumes.versions["words"]) == 2
    assert platform.volumes.versions["words"][1].sealed_at


def test_a_platform_that_is_unwell_for_a_moment_is_asked_again(jig: Jig, platform: FakePlatform, source: Path) -> None:
    write(source / "larger.bin", LARGER)
    platform.failures += [("larger.bin", 503), ("larger.bin", 500), ("upload-request", 502)]
    platform.failures += [(BATCH, 503), (BATCH, 408), ("/files", 503)]
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 0, finished.err
    assert not platform.failures
    assert stored(platform, "words", 0) == {**FILES, "larger.bin": LARGER}


@pytest.mark.parametrize(("refused", "name"), [("larger.bin", "larger.bin"), (BATCH, "words.txt")], ids=["one", "many"])
def test_what_the_platform_refuses_is_not_tried_again(
    jig: Jig, platform: FakePlatform, source: Path, refused: str, name: str
) -> None:
    write(source / "larger.bin", LARGER)
    platform.failures.append((refused, 413))
    finished = jig("volumes", "create", "words", str(source))
    assert finished.code == 1
    assert "The platform is unwell." in finished.err
    assert "To go on, run the same command again" in finished.err
    assert sent(platform).count(name) == 1
    assert not platform.volumes.versions["words"][0].sealed_at


def test_a_large_file_goes_in_parts_and_an_interrupted_one_goes_on(
    jig: Jig, platform: FakePlatform, tmp_path: Path, cache: Path
) -> None:
    large = tmp_path / "large"
    write(large / "model.bin", b"begin")
    os.truncate(large / "model.bin", 150 * MIB)
    platform.failures.append(("multipart/complete", 400))
    assert jig("volumes", "create", "model", str(large)).code == 1
    assert len(sent(platform)) == 5
    # The upload is lost, and so is what was remembered of it.
    platform.requests.clear()
    platform.failures.append(("/signed/part/upload-1/3", 413))
    assert jig("volumes", "create", "model", str(large)).code == 1
    (journal,) = (cache / "jig" / "uploads").iterdir()
    assert journal.stat().st_mode & 0o777 == 0o600
    arrived = {json.loads(line)[0] for line in journal.read_text().splitlines()[1:]}
    assert 3 not in arrived
    platform.requests.clear()
    finished = jig("volumes", "create", "model", str(large))
    assert finished.code == 0, finished.err
    assert set(sent(platform)) == {str(number) for number in range(1, 6) if number not in arrived}
    was_there = sum(min(32 * MIB, 150 * MIB - (number - 1) * 32 * MIB) for number in arrived)
    there = f"{size(150 * MIB - was_there)} sent, {size(was_there)} was there already"
    assert (there if arrived else "150.0 MiB sent ") in finished.err
    assert f"1 file sent, {size(150 * MIB - was_there)}" in finished.out
    assert stored(platform, "model", 0)["model.bin"] == (large / "model.bin").read_bytes()
    assert not list((cache / "jig" / "uploads").iterdir())


@pytest.mark.parametrize("end", ["delete", "seal"])
def test_nothing_is_remembered_of_a_volume_that_is_complete_or_gone(
    jig: Jig, platform: FakePlatform, tmp_path: Path, cache: Path, end: str
) -> None:
    large = tmp_path / "large"
    write(large / "model.bin", b"begin")
    os.truncate(large / "model.bin", 130 * MIB)
    platform.failures.append(("/signed/part/upload-0/3", 413))
    assert jig("volumes", "create", "model", str(large)).code == 1
    others = cache / "jig" / "uploads" / "of-another-volume.jsonl"
    others.write_text("")
    assert len(list(others.parent.iterdir())) == 2
    if end == "delete":
        assert jig("volumes", "delete", "model", "--yes").code == 0
    else:  # it has arrived in another way
        platform.files["model/0/model.bin"] = (large / "model.bin").read_bytes()
        assert jig("volumes", "create", "model", str(large)).code == 0
    assert list(others.parent.iterdir()) == [others]


def test_ctrl_c_says_how_to_go_on(jig: Jig, platform: FakePlatform, source: Path) -> None:
    with socket.socket() as silent:  # takes the bytes of a file, and answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        platform.told_upload_url = url
        write(source / "larger.bin", LARGER)
        with jig.start("volumes", "create", "words", str(source)) as process:
            wait_until(process, lambda: platform.sent("POST", "/v1/storage/upload-request"), "an upload begins")
            process.send_signal(signal.SIGINT)
            finished = finish(process)
    assert finished.code == 130
    assert "To go on, run the same command again" in finished.err
    platform.told_upload_url = None
    assert jig("volumes", "create", "words", str(source)).code == 0
    assert stored(platform, "words", 0) == {**FILES, "larger.bin": LARGER}


@pytest.mark.parametrize("words", [("--watch",), ("--aws-oidc-role-arn", "arn:x"), ("--credentials-secret", "s")])
def test_options_of_s3_are_for_s3_alone(jig: Jig, source: Path, words: tuple[str, ...]) -> None:
    finished = jig("volumes", "create", "words", str(source), *words)
    assert finished.code == 2
    assert "are about an s3:// source" in finished.err


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), ("file", "is a file")])
def test_a_source_is_a_folder(jig: Jig, platform: FakePlatform, name: str, said: str) -> None:
    (jig.folder / "file").write_text("x")
    finished = jig("volumes", "create", "words", name)
    assert finished.code == 2
    assert said in finished.err
    assert not platform.requests


def test_what_is_in_s3_is_fetched_by_the_platform(jig: Jig, platform: FakePlatform) -> None:
    finished = jig("volumes", "create", "words", "s3://bucket/words", "--credentials-secret", "aws")
    assert finished.code == 0, finished.err
    assert "which is being fetched" in finished.out
    origin = {"s3": {"uri": "s3://bucket/words", "credentials_secret": "aws"}}
    assert platform.sent("POST", fake_volumes.VOLUMES)[0].json["content"] == {"type": "files", "origin": origin}
    finished = jig(
        "volumes",
        "update",
        "--name",
        "words",
        "--source",
        "s3://bucket/more",
        "--aws-oidc-role-arn",
        "arn:x",
        "--watch",
    )
    assert finished.code == 0, finished.err
    assert finished.out == "words has version 1.\n"
    assert "syncing, 1 file, 7 B" in finished.err


def test_a_fetch_that_takes_long_says_what_the_platform_says_of_it() -> None:
    content = {"files_count": 2, "size": 3 << 20}
    volume = {"status": "syncing", "status_message": "Being copied: 9 files, 40.0 MiB in all.", "content": content}
    assert progress_line(volume) == "syncing, 2 files, 3.0 MiB: Being copied: 9 files, 40.0 MiB in all."


def test_a_fetch_that_fails_says_why(jig: Jig, platform: FakePlatform) -> None:
    jig("volumes", "create", "words", "s3://bucket/words")
    failed = platform.volumes.versions["words"][0]
    failed.status, failed.status_message = "failed", "The bucket is empty."
    platform.volumes.versions["next"] = [failed]
    finished = jig("volumes", "describe", "next")
    assert "The bucket is empty." in finished.out


def test_volumes_are_listed_and_described(jig: Jig, platform: FakePlatform) -> None:
    assert "No volumes." in jig("volumes", "list").out
    platform.deploy("ocr")
    platform.volumes.put(platform, "words", {"a": b"a"}, {f"file-{number:02}": b"x" * 2048 for number in range(30)})
    platform.volumes.versions["words"][0].mounted_by = ["dep-ocr"]
    listed = jig("volumes", "list").out.splitlines()
    assert listed[0].split() == ["NAME", "VERSION", "STATUS", "FILES", "SIZE", "MOUNTS", "UPDATED"]
    assert listed[1].split()[:7] == ["words", "1", "ready", "30", "60.0", "KiB", "1"]
    described = jig("volumes", "describe", "words").out
    assert "Version  1, the latest" in described
    assert "file-19" in described
    assert "file-20" not in described
    assert "... and 10 more files" in described
    assert described.splitlines()[-1].split()[:5] == ["0", "ready", "1", "1", "B"]
    assert described.splitlines()[-1].split()[-1] == "ocr"
    earlier = jig("volumes", "describe", "words", "--volume-version", "0").out
    assert "Version     0, of 0 to 1" in earlier
    assert "Mounted by  ocr" in earlier
    assert jig("volumes", "describe", "words", "--json").json["name"] == "words"
    assert "--files must be at least 0, not -1." in jig("volumes", "describe", "words", "--files", "-1").err
    assert "has no version 7" in jig("volumes", "describe", "words", "--volume-version", "7").err


def test_a_volume_is_deleted_if_somebody_says_so(jig: Jig, platform: FakePlatform) -> None:
    platform.volumes.put(platform, "words", {"a": b"a"}, {"b": b"b"})
    finished = jig("volumes", "delete", "words")
    assert finished.code == 2
    assert "Delete words with its 2 versions?" in finished.err
    finished = jig("volumes", "delete", "--name", "words", "--yes")
    assert finished.out == "words is deleted.\n"
    finished = jig("volumes", "delete", "words", "--yes")
    assert finished.code == 1
    assert "There is no volume words." in finished.err
    assert "There are no volumes yet." in finished.err


def test_a_volume_that_is_not_there_is_told_with_those_that_are(jig: Jig, platform: FakePlatform) -> None:
    platform.volumes.put(platform, "words", {"a": b"a"})
    platform.volumes.put(platform, "lists", {"a": b"a"})
    for words in (["delete", "--yes"], ["describe"]):
        near = jig("volumes", *words, "--name", "wrods")
        assert near.code == 1
        assert "There is no volume wrods." in near.err
        assert "Did you mean words?" in near.err
        far = jig("volumes", *words, "--name", "nope")
        assert "There are: lists, words." in far.err
        assert "jig volumes create" not in near.err + far.err
    changed = jig("volumes", "update", "wrods", ".")
    assert "Did you mean words?\nTo make it: jig volumes create wrods SOURCE" in changed.err
