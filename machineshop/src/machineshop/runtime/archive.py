"""Unpacking a bundle's source with distrust.

Place in the flow: `bundle.py` has the layer on disk and wants it as a folder. The archive comes from whoever may push,
so nothing in it may reach outside its folder, fill the disk or the memory, or take very long to read.
"""

import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

LARGEST_SOURCE_BYTES = 4 * 1024**3
"""Unpacked. A layer within its limit could otherwise hold a thousand times as much."""
LARGEST_ARCHIVE_BYTES = LARGEST_SOURCE_BYTES + 128 * 1024**2
"""The tar itself, with its headers. Bounds what is read to find the end of it, whatever its headers say."""
LARGEST_HEADER_BYTES = 64 * 1024
"""Of one extended header, as it is taken into memory; a path and a link of full length need 10 KiB."""
LARGEST_HEADERS_BYTES = 32 * 1024**2
"""Of all extended headers together, as they are slow to read."""
MOST_HEADERS_IN_A_ROW = 4
"""Before one entry; `tarfile` goes one level deeper for each."""
MOST_FILES = 20_000
"""Files, links and folders, with those folders that only the paths of others name."""
DEEPEST_PATH = 32
LONGEST_PATH = 1024
LONGEST_NAME_BYTES = 255
"""What file systems can take."""
_COPY_BYTES = 1024 * 1024
_INFLATE_BYTES = 16 * 1024
_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED_TYPES = (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class UnsafeArchive(Exception):
    """An archive holds what no bundle may; the message says which entry and why."""


def unpack(archive: BinaryIO, target: Path) -> None:
    """Unpack a gzipped tar into a new folder: regular files, folders, and links that stay inside.

    Raises:
        UnsafeArchive: It holds anything else, too much of it, or is broken.
    """
    target.mkdir()
    try:
        with _Archive.open(fileobj=cast("IO[bytes]", _Inflated(archive)), mode="r|") as tar:
            _unpack_all(tar, target)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise UnsafeArchive(f"its archive is broken ({error})") from error


class _Inflated:
    """What is inside a gzip file; read in pieces of the size that is asked for, however much each byte unfolds to."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._inflate = packed, zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._room = LARGEST_ARCHIVE_BYTES

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        data = b""
        while not data and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(_INFLATE_BYTES)
            if not packed:
                raise EOFError("it ends too early")
            data = self._inflate.decompress(packed, size)
        self._room -= len(data)
        if self._room < 0:
            raise UnsafeArchive(f"it unpacks to more than {LARGEST_SOURCE_BYTES // 1024**3} GiB")
        return data


class _Header(tarfile.TarInfo):
    """A header that is looked at before anything is read because of it.

    Those in pax format are read here and not by `tarfile`, of which some versions make gigabytes of a small one.
    """

    def _proc_member(self, archive: "_Archive") -> tarfile.TarInfo:
        archive.admit(self)
        if self.type not in _PAX_TYPES:
            member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
            return member
        whole_blocks = -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        records = _pax_records(archive.fileobj.read(whole_blocks)[: self.size])
        try:
            member = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise UnsafeArchive("it has an extended header without an entry") from error
        # A global header says nothing of one entry, and what else it may say is of no interest here.
        if self.type != tarfile.XGLTYPE:
            member.name = records.get(b"path", member.name)
            member.linkname = records.get(b"linkpath", member.linkname)
        return member


def _pax_records(text: bytes) -> dict[bytes, str]:
    """The records about paths in the text of an extended header: `<length of all this> <name>=<value>` and a newline.

    Raises:
        UnsafeArchive: It is not made of such, or changes how the entry's content is stored.
    """
    found, place = {}, 0
    while place < len(text):
        digits, _, _ = text[place : place + 8].partition(b" ")
        end = place + int(digits) if digits.isdigit() else 0
        name, equals, value = text[place + len(digits) + 1 : max(0, end - 1)].partition(b"=")
        if not equals or text[end - 1 : end] != b"\n":
            raise UnsafeArchive("it has an extended header that makes no sense")
        if name == b"size" or name.startswith(b"GNU.sparse."):
            raise UnsafeArchive("it holds a sparse file, or one of a size that no header can say")
        if name in (b"path", b"linkpath"):
            found[name] = value.decode(errors="surrogateescape")
        place = end
    return found


class _Archive(tarfile.TarFile):
    """A tar of which no header can make `tarfile` take much into memory."""

    tarinfo = _Header
    members: list[tarfile.TarInfo]

    def __init__(self, *args: object, **options: object) -> None:
        self._in_a_row = self._headers_bytes = 0
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def admit(self, header: tarfile.TarInfo) -> None:
        """Raise UnsafeArchive for a header that asks for too much."""
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UnsafeArchive("it holds a sparse file")
        if header.type not in _EXTENDED_TYPES:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        self._headers_bytes += header.size
        if not 0 <= header.size <= LARGEST_HEADER_BYTES:
            raise UnsafeArchive(f"it holds an extended header of more than {LARGEST_HEADER_BYTES // 1024} KiB")
        if self._in_a_row > MOST_HEADERS_IN_A_ROW or self._headers_bytes > LARGEST_HEADERS_BYTES:
            raise UnsafeArchive("it holds more extended headers than its files can need")


def _unpack_all(tar: _Archive, target: Path) -> None:
    seen = {PurePosixPath(): True}
    room, entries = LARGEST_SOURCE_BYTES, 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # it would keep all of them
        path = _safe_path(member, seen)
        entries += 1
        room -= member.size if member.isreg() else 0
        if room < 0:
            raise UnsafeArchive(f"it unpacks to more than {LARGEST_SOURCE_BYTES // 1024**3} GiB")
        if max(entries, len(seen) - 1) > MOST_FILES:
            raise UnsafeArchive(f"it holds more than {MOST_FILES:,} entries")
        _unpack_member(tar, member, target / path)


def _safe_path(member: tarfile.TarInfo, seen: dict[PurePosixPath, bool]) -> PurePosixPath:
    """The entry's path below the target. `seen` holds the earlier ones, and whether each is a folder."""
    path = PurePosixPath(member.name)
    shown = repr(member.name[:200])
    if path.is_absolute() or ".." in path.parts or "\0" in member.name or len(member.name) > LONGEST_PATH:
        raise UnsafeArchive(f"the path {shown} does not stay inside")
    if len(path.parts) > DEEPEST_PATH:
        raise UnsafeArchive(f"the path {shown} is more than {DEEPEST_PATH} levels deep")
    if any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in path.parts):
        raise UnsafeArchive(f"the path {shown} has a name of more than {LONGEST_NAME_BYTES} bytes")
    if not (member.isreg() or member.isdir() or member.issym()) or member.size < 0:
        raise UnsafeArchive(f"{shown} is neither a file nor a folder nor a symbolic link")
    if any(not seen.get(parent, True) for parent in path.parents):
        raise UnsafeArchive(f"{shown} lies below something that is not a folder")
    if path in seen and not (seen[path] and member.isdir()):
        raise UnsafeArchive(f"{shown} is there twice")
    if member.issym() and not _stays_inside(path, member.linkname):
        raise UnsafeArchive(f"the link {shown} points outside")
    seen.update(dict.fromkeys(path.parents, True))
    seen[path] = member.isdir()
    return path


def _stays_inside(link: PurePosixPath, target: str) -> bool:
    """Whether a link leads to a place inside, whatever other links are on the way.

    It may climb only at its beginning: up from a real folder is where the path says, up from behind a link is not.
    """
    if not 0 < len(target) <= LONGEST_PATH:
        return False
    to, climbs = PurePosixPath(target), 0
    for part in to.parts:
        if part != "..":
            break
        climbs += 1
    return not to.is_absolute() and ".." not in to.parts[climbs:] and climbs <= len(link.parent.parts)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
        return
    content = tar.extractfile(member)
    with path.open("xb") as file:
        if content is not None:
            shutil.copyfileobj(content, file, _COPY_BYTES)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
