"""Reading rotated log files while they are written."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineshop.runtime.base import LogLine
from machineshop.runtime.replica_log import FileLog
from machineshop.runtime.shim import Log

OpenLog = Callable[[Path, int], Log]


@pytest.fixture
def log() -> Iterator[OpenLog]:
    """Opens logs as a supervisor does, and closes them after the test."""
    with ExitStack() as opened:
        yield lambda folder, file_bytes: opened.enter_context(closing(Log(str(folder), file_bytes)))


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def test_lines_are_stamped_and_read_as_they_come(log: OpenLog, tmp_path: Path) -> None:
    written, reader = log(tmp_path, 10_000), FileLog(tmp_path, "r-1")
    written.take(b"one\ntw")
    (first,) = reader.read_new()
    assert (first.text, first.replica_id) == ("one", "r-1")
    assert first.at > 1e9
    assert reader.read_new() == []
    written.take(b"o\r\nthree\n\n")
    assert texts(reader.read_new()) == ["two", "three", ""]
    written.take(b"no end")
    written.close()
    assert texts(reader.read_new()) == ["no end"]
    assert written.last_line == b"no end"


def test_a_next_run_goes_on_in_the_same_log(log: OpenLog, tmp_path: Path) -> None:
    for number in range(3):
        log(tmp_path, 10_000).take(b"run %d\n" % number)
    assert texts(FileLog(tmp_path, "r").read_last(None)) == ["run 0", "run 1", "run 2"]


def test_what_is_no_text_is_shown_somehow(log: OpenLog, tmp_path: Path) -> None:
    log(tmp_path, 10_000).take(b"\xff\xfe caf\xc3\xa9\n")
    assert texts(FileLog(tmp_path, "r").read_last(1)) == ["\ufffd\ufffd café"]


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    reader = FileLog(tmp_path / "nothing", "r")
    assert (reader.read_last(None), reader.read_last(3), reader.read_new()) == ([], [], [])


def test_a_log_that_cannot_be_written_is_dropped_and_taken_up_again(log: OpenLog, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    written = log(folder, 50)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    written.take(b"x" * 100 + b"\n")
    written.take(b"lost\n")
    folder.mkdir()
    written.take(b"kept\n")
    assert texts(FileLog(folder, "r").read_last(None)) == ["kept"]


def test_a_reader_that_falls_behind_goes_on_with_what_is_left(log: OpenLog, tmp_path: Path) -> None:
    written, reader = log(tmp_path, 100), FileLog(tmp_path, "r")
    written.take(b"first\n")
    assert texts(reader.read_new()) == ["first"]
    for number in range(50):
        written.take(b"line %d\n" % number)
    rest: list[str] = []
    while new := texts(reader.read_new()):
        rest += new
    assert rest[-1] == "line 49"
    assert rest == [f"line {number}" for number in range(50 - len(rest), 50)]
    assert len(list(tmp_path.iterdir())) == 2


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=20), min_size=1, max_size=20),
    tail=st.integers(0, 30),
)
def test_the_tail_and_what_follows_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[int]], tail: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with closing(Log(str(folder), 100_000)) as written:
        check_tail(FileLog(folder, "r"), written, chunks, tail)


def check_tail(reader: FileLog, written: Log, chunks: list[list[int]], tail: int) -> None:
    numbers = iter(range(100_000))
    said: list[str] = []

    def say(lengths: list[int]) -> None:
        lines = [f"{next(numbers)} {'x' * length}" for length in lengths]
        said.extend(lines)
        written.take("".join(f"{line}\n" for line in lines).encode())

    for chunk in chunks[: len(chunks) // 2]:
        say(chunk)
    read = texts(reader.read_last(tail))
    assert read == said[len(said) - min(tail, len(said)) :]
    before = len(said)
    for chunk in chunks[len(chunks) // 2 :]:
        say(chunk)
        while new := texts(reader.read_new()):
            read += new
    assert read[len(read) - (len(said) - before) :] == said[before:]


def test_lines_are_read_some_at_a_time_however_short_they_are(log: OpenLog, tmp_path: Path) -> None:
    written, reader = log(tmp_path, 1_000_000), FileLog(tmp_path, "r")
    written.take(b"".join(b"%d\n" % number for number in range(2500)))
    batches = []
    while new := texts(reader.read_new()):
        batches.append(new)
    assert [len(batch) for batch in batches] == [1000, 1000, 500]
    assert [text for batch in batches for text in batch] == [str(number) for number in range(2500)]
