"""Unpacking archives from people who may mean no good."""

import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machineshop.runtime import archive as limits
from machineshop.runtime.archive import UnsafeArchive, unpack

Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, to: str = "", text: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, to, mode, len(text)
    return info, text.encode()


def archive(*entries: Entry, form: int = tarfile.PAX_FORMAT, comment: str = "") -> io.BytesIO:
    file, headers = io.BytesIO(), {"comment": comment} if comment else {}
    with tarfile.open(fileobj=file, mode="w:gz", format=form, pax_headers=headers) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


def test_files_folders_and_links_inside_are_unpacked(tmp_path: Path) -> None:
    target = tmp_path / "source"
    entries = [
        entry("./src", tarfile.DIRTYPE),
        entry("src/worker.py", text="print()"),
        entry("run.sh", text="#!/bin/sh", mode=0o4777),
        entry("src/link", tarfile.SYMTYPE, to="../run.sh"),
        entry("deep/er/file", text="x"),
    ]
    unpack(archive(*entries), target)
    assert (target / "src/worker.py").read_text() == "print()"
    assert (target / "src/link").read_text() == "#!/bin/sh"
    assert (target / "deep/er/file").read_text() == "x"
    assert (target / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (target / "src/worker.py").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([entry("/etc/passwd", text="x")], "does not stay inside"),
        ([entry("../x", text="x")], "does not stay inside"),
        ([entry("a/../../x", text="x")], "does not stay inside"),
        ([entry("n" * 2000, text="x")], "does not stay inside"),
        ([entry("link", tarfile.SYMTYPE, to="/etc/passwd")], "points outside"),
        ([entry("link", tarfile.SYMTYPE, to="..")], "points outside"),
        ([entry("a/link", tarfile.SYMTYPE, to="../../x")], "points outside"),
        ([entry("d/e", tarfile.DIRTYPE), entry("l", tarfile.SYMTYPE, to="d/e/../../..")], "points outside"),
        ([entry("d", tarfile.SYMTYPE, to="."), entry("d/x", text="x")], "not a folder"),
        ([entry("f", text="x"), entry("f/x", text="x")], "not a folder"),
        ([entry("f", text="x"), entry("./f", text="y")], "twice"),
        ([entry("d", tarfile.DIRTYPE), entry("d", tarfile.SYMTYPE, to="x")], "twice"),
        ([entry("hard", tarfile.LNKTYPE, to="/etc/passwd")], "neither a file nor a folder"),
        ([entry("null", tarfile.CHRTYPE)], "neither a file nor a folder"),
        ([entry("pipe", tarfile.FIFOTYPE)], "neither a file nor a folder"),
    ],
)
def test_what_reaches_outside_or_is_no_file_is_refused(tmp_path: Path, entries: list[Entry], complaint: str) -> None:
    with pytest.raises(UnsafeArchive, match=complaint):
        unpack(archive(*entries), tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_link_behind_a_link_cannot_climb_out(tmp_path: Path) -> None:
    entries = [
        entry("a/b/c/file", text="x"),
        entry("l", tarfile.SYMTYPE, to="a/b"),
        entry("m", tarfile.SYMTYPE, to="l/c"),
    ]
    unpack(archive(*entries), tmp_path / "source")
    assert (tmp_path / "source/m/file").read_text() == "x"
    with pytest.raises(UnsafeArchive, match="points outside"):
        unpack(archive(*entries, entry("n", tarfile.SYMTYPE, to="m/../../..")), tmp_path / "again")


def test_too_many_or_too_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_FILES", 3)
    monkeypatch.setattr(limits, "LARGEST_SOURCE_BYTES", 10 * 1024)
    with pytest.raises(UnsafeArchive, match="more than 3 entries"):
        unpack(archive(*[entry(f"f{n}") for n in range(4)]), tmp_path / "many")
    with pytest.raises(UnsafeArchive, match="unpacks to more than"):
        unpack(archive(entry("zeros", text="0" * 20_000)), tmp_path / "large")
    assert not (tmp_path / "large/zeros").exists()


@pytest.mark.parametrize(
    "broken",
    [b"", b"no archive", archive(entry("f", text="x" * 5000)).getvalue()[:60], gzip.compress(b"neither" * 200)],
    ids=["empty", "text", "cut off", "not a tar"],
)
def test_a_broken_archive_is_refused(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="broken"):
        unpack(io.BytesIO(broken), tmp_path / "source")


def headers(*of: tuple[bytes, bytes | int]) -> io.BytesIO:
    """Raw headers of these types, with their contents or so many zeros, and a file at the end."""
    compress = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    packed = []
    for kind, content in of:
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, content if isinstance(content, int) else len(content)
        packed.append(compress.compress(info.tobuf(tarfile.USTAR_FORMAT)))
        text = b"" if isinstance(content, int) else content
        packed.append(compress.compress(text + bytes(-len(text) % 512)))
        packed += [compress.compress(bytes(2**20)) for _ in range(content >> 20 if isinstance(content, int) else 0)]
    packed.append(compress.compress(tarfile.TarInfo("file").tobuf(tarfile.USTAR_FORMAT) + bytes(1024)))
    return io.BytesIO(b"".join(packed) + compress.flush())


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_an_extended_header_of_any_kind_that_unfolds_to_much_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    bomb = headers((kind, 32 * 2**20))
    with little_memory(), pytest.raises(UnsafeArchive, match="extended header of more than 64 KiB"):
        unpack(bomb, tmp_path / "source")
    assert bomb.tell() <= 16 * 1024


def test_a_small_extended_header_cannot_make_much_of_itself(tmp_path: Path) -> None:
    # Read carelessly, each record's name goes on to the end of the header: a gigabyte of names.
    overlapping = b"2 " * 30_000 + b"="
    with little_memory(), pytest.raises(UnsafeArchive, match="makes no sense"):
        unpack(headers((b"x", overlapping)), tmp_path / "source")


@pytest.mark.parametrize(
    "text",
    [
        b"x",
        b"5 a=b",
        b"9 a=b\n",
        b"6 a=b\nx",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6  a=b",
        b"5 ab\n",
        b"99999999999 a=b\n",
        b"1" * 60_000,
    ],
    ids=repr,
)
def test_an_extended_header_that_is_not_made_of_records_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="makes no sense"):
        unpack(headers((b"x", text)), tmp_path / "source")


def test_extended_headers_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsafeArchive, match="more extended headers"):
        unpack(headers(*[(b"x", b"")] * 3000), tmp_path / "row")
    monkeypatch.setattr(limits, "LARGEST_HEADERS_BYTES", 3000)
    with pytest.raises(UnsafeArchive, match="more extended headers"):
        unpack(archive(*[entry(f"{n}{'x' * 200}") for n in range(20)]), tmp_path / "sum")
    cut = headers((b"x", b"6 a=b\n"))
    no_entry = gzip.compress(gzip.decompress(cut.getvalue())[:1024] + bytes(1024))
    with pytest.raises(UnsafeArchive, match="without an entry"):
        unpack(io.BytesIO(no_entry), tmp_path / "end")


@pytest.mark.parametrize(
    "header",
    [
        (tarfile.GNUTYPE_SPARSE, b""),
        (b"x", b"22 GNU.sparse.major=1\n"),
        (b"x", b"21 GNU.sparse.size=1\n"),
        (b"x", b"12 size=500\n"),
    ],
    ids=repr,
)
def test_sparse_files_are_refused(tmp_path: Path, header: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnsafeArchive, match="sparse"):
        unpack(headers(header), tmp_path / "source")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_any_letters_are_unpacked(tmp_path: Path, form: int) -> None:
    name, folder = f"{'größe' * 30}/{'x' * 200}/\udcff", "d" * 150
    entries = [
        entry(name, text="content"),
        entry(folder, tarfile.DIRTYPE),
        entry(f"{folder}/link", tarfile.SYMTYPE, to=f"../{name}"),
    ]
    unpack(archive(*entries, form=form, comment="made by hand"), tmp_path / "source")
    assert (tmp_path / "source" / folder / "link").read_text() == "content"
    assert (tmp_path / "source" / name).read_text() == "content"


def test_what_is_read_is_bounded_whatever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGEST_ARCHIVE_BYTES", 100_000)
    unpack(archive(entry("file", text="x" * 80_000)), tmp_path / "small")
    with pytest.raises(UnsafeArchive, match="unpacks to more than"):
        unpack(archive(*[entry(f"{n}", tarfile.DIRTYPE) for n in range(300)]), tmp_path / "many")


def test_folders_that_only_a_path_names_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_FILES", 100)
    with pytest.raises(UnsafeArchive, match="more than 100 entries"):
        unpack(archive(*[entry(f"{n}/{'d/' * 29}f") for n in range(10)]), tmp_path / "source")
    assert len(list((tmp_path / "source").rglob("*"))) <= 100
    unpack(archive(*[entry(f"a/b/{n}") for n in range(98)]), tmp_path / "enough")
    with pytest.raises(UnsafeArchive, match="more than 100 entries"):
        unpack(archive(*[entry("d", tarfile.DIRTYPE)] * 101), tmp_path / "again")


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([entry("d/" * 32 + "f")], "32 levels"),
        ([entry("ä" * 128)], "255 bytes"),
        ([entry("d/f"), entry("d")], "twice"),
        ([entry("d/f"), entry("d", tarfile.SYMTYPE, to="x")], "twice"),
        ([entry(".")], "twice"),
        ([entry("l", tarfile.SYMTYPE, to="")], "points outside"),
        ([entry("l", tarfile.SYMTYPE, to="x/" * 600)], "points outside"),
    ],
)
def test_what_no_file_system_takes_is_refused(tmp_path: Path, entries: list[Entry], complaint: str) -> None:
    with pytest.raises(UnsafeArchive, match=complaint):
        unpack(archive(*entries), tmp_path / "source")
