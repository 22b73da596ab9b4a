"""Which files of a folder go into a volume, and what becomes of those that cannot or that change meanwhile."""

import os
import socket
from pathlib import Path

import pytest

from jig.errors import VolumeError
from jig.volumes import source
from jig.volumes.digests import hash_files, read
from jig.volumes.fill import remarks
from jig.volumes.source import find_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def write(place: Path, content: bytes = b"x") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def names(folder: Path) -> list[str]:
    return [file.name for file in find_files(folder).files]


def test_every_file_is_taken_hidden_ones_too(folder: Path) -> None:
    for name in ("b", "a/c", "a/.hidden", ".git/config", "a b/ü.txt"):
        write(folder / name)
    (folder / "without files").mkdir()
    assert names(folder) == [".git/config", "a b/ü.txt", "a/.hidden", "a/c", "b"]


def test_a_link_counts_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "blobs" / "1234", b"weights")
    write(folder / "inside", b"in")
    (folder / "model.bin").symlink_to("../blobs/1234")
    (folder / "again").symlink_to("inside")
    (folder / "whole").symlink_to(tmp_path / "blobs")
    found = find_files(folder)
    assert {file.name: file.size_bytes for file in found.files} == {
        "again": 2,
        "inside": 2,
        "model.bin": 7,
        "whole/1234": 7,
    }
    assert remarks(folder, found) == [f"Links lead out of {folder}: 2 files from elsewhere will be uploaded."]


@pytest.mark.parametrize("target", [".", "..", "a"])
def test_a_link_in_a_circle_is_refused(folder: Path, target: str) -> None:
    write(folder / "a" / "file")
    (folder / "a" / "link").symlink_to(folder / target)
    with pytest.raises(VolumeError, match="is a link to a folder that it is in"):
        find_files(folder)


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("gone")
    with pytest.raises(VolumeError, match="is a link that leads nowhere: gone"):
        find_files(folder)


def test_what_is_no_file_is_left_out_and_told(folder: Path) -> None:
    write(folder / "file")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(folder / "socket"))
        found = find_files(folder)
    assert [file.name for file in found.files] == ["file"]
    assert remarks(folder, found) == ["Left out, as they are no files: pipe, socket."]


@pytest.mark.parametrize(
    "name", [b"line\nbreak", b"\xff.bin", "sep\u2028arator".encode()], ids=["line break", "no text", "separator"]
)
def test_a_name_that_no_volume_holds_is_refused(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(VolumeError, match="in its name") as caught:
        find_files(folder)
    caught.value.message.encode()  # it can be printed


def test_a_path_that_is_too_long_is_refused(folder: Path) -> None:
    write(folder / ("a" * 200) / ("b" * 200) / ("c" * 200))
    with pytest.raises(VolumeError, match="a name of 602 characters"):
        find_files(folder)


def test_a_folder_without_files_is_refused(folder: Path) -> None:
    (folder / "below").mkdir()
    with pytest.raises(VolumeError, match="There is no file in"):
        find_files(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FILES_MAX", 2)
    for number in range(3):
        write(folder / str(number))
    with pytest.raises(VolumeError, match="more than 2 files"):
        find_files(folder)


def test_what_cannot_be_read_is_told(folder: Path) -> None:
    place = write(folder / "secret")
    found = find_files(folder)
    place.unlink()
    with pytest.raises(VolumeError, match=r"Cannot read .*secret: No such file"):
        hash_files(found.files, lambda count_bytes: None)


@pytest.mark.parametrize("is_longer", [True, False], ids=["longer", "shorter"])
def test_a_file_that_changes_while_it_is_read_is_told(folder: Path, is_longer: bool) -> None:
    place = write(folder / "log", b"x" * 1_000_000)
    (file,) = find_files(folder).files
    chunks = read(file, 0, file.size_bytes)
    next(chunks)
    with place.open("ab") as opened:
        opened.truncate(2_000_000 if is_longer else 10)
    with pytest.raises(VolumeError, match="log has changed while it was read"):
        list(chunks)


def test_a_part_of_a_file_is_read(folder: Path) -> None:
    write(folder / "digits", b"0123456789" * 100_000)
    (file,) = find_files(folder).files
    assert b"".join(read(file, 5, 700_005)) == b"5678901234" * 70_000
