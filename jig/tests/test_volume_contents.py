"""The parser of small files that come many in one answer: all as they are, however they are cut, or an error."""

import hashlib
import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jig.errors import UnreachableError, VolumeError
from jig.volumes.contents import HEAD_BYTES_MAX, unpack
from jig.volumes.remote import StoredFile

MIB = 1024 * 1024
FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=40), min_size=1, max_size=5)
some = settings(max_examples=200, deadline=None, derandomize=True)


def stored(files: dict[str, bytes]) -> list[StoredFile]:
    return [StoredFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()]


def packed(files: dict[str, bytes]) -> bytes:
    told = [{"path": file.name, "size": file.size_bytes, "sha256": file.sha256} for file in stored(files)]
    return json.dumps({"files": told}).encode() + b"\n" + b"".join(files.values())


def take(pieces: Iterable[bytes], files: dict[str, bytes], came: dict[str, bytes]) -> None:
    for file, content in unpack(pieces, stored(files)):
        came[file.name] = content


def unpacked(pieces: Iterable[bytes], files: dict[str, bytes]) -> dict[str, bytes]:
    came: dict[str, bytes] = {}
    take(pieces, files, came)
    return came


@st.composite
def pieces_of(draw: st.DrawFn, content: bytes) -> list[bytes]:
    """The bytes, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=6)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@some
@given(FILES, st.data())
def test_files_come_out_as_they_went_in_however_the_answer_is_cut(files: dict[str, bytes], data: st.DataObject) -> None:
    assert unpacked(data.draw(pieces_of(packed(files))), files) == files


@some
@given(FILES, st.data())
def test_of_what_breaks_off_the_whole_files_come(files: dict[str, bytes], data: st.DataObject) -> None:
    answer = packed(files)
    end = data.draw(st.integers(0, len(answer) - 1))
    came: dict[str, bytes] = {}
    with pytest.raises(UnreachableError):
        take(data.draw(pieces_of(answer[:end])), files, came)
    assert came.items() <= files.items()


@some
@given(FILES, st.data())
def test_what_was_changed_on_the_way_is_an_error_or_makes_no_difference(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    answer = bytearray(packed(files))
    at = data.draw(st.integers(0, len(answer) - 1))
    answer[at] ^= data.draw(st.integers(1, 255))
    came: dict[str, bytes] = {}
    try:
        take(data.draw(pieces_of(bytes(answer))), files, came)
    except (VolumeError, UnreachableError):
        assert came.items() <= files.items()
    else:
        assert came == files  # a space in the line, say


@some
@given(FILES, st.binary(max_size=200))
def test_what_is_no_answer_is_an_error(files: dict[str, bytes], content: bytes) -> None:
    with pytest.raises((VolumeError, UnreachableError)):
        unpacked([content], files)


@pytest.mark.parametrize("line", [b"[]", b"null", b"{}", b'{"files": 1}', b'{"files": [1]}', b"[" * 100_000, b"\xff"])
def test_a_line_that_says_something_else_is_an_error(line: bytes) -> None:
    with pytest.raises(VolumeError, match="other files than it had listed"):
        unpacked([line + b"\n"], {"a": b"a"})


def test_more_than_was_asked_for_is_an_error() -> None:
    with pytest.raises(VolumeError):
        unpacked([packed({"a": b"a"}), b"", b"more"], {"a": b"a"})


def test_a_line_without_an_end_is_not_read_for_ever() -> None:
    read = 0

    def endless() -> Iterable[bytes]:
        nonlocal read
        while True:
            read += MIB
            yield b"x" * MIB

    with pytest.raises(VolumeError):
        unpacked(endless(), {"a": b"a"})
    assert read <= HEAD_BYTES_MAX + 2 * MIB
