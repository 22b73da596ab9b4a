"""Files of a volume that share the bytes of older ones, so that nobody has to send them again."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from machineshop.models import StoredFile
from machineshop.store import files, volume_files
from machineshop.store.files import FileRecord


class Held(StrEnum):
    """What a version of a volume has of a file that a client has."""

    PRESENT = "present"
    """The same bytes under the same path."""
    LINKED = "linked"
    """The same, since just now: the volume had the bytes elsewhere."""
    HASHING = "hashing"
    """A file of this size, and nobody knows the hash of its bytes yet."""
    MISSING = "missing"
    """Nothing: it is to be uploaded."""


def link(
    conn: Connection, project_id: str, volume_name: str, number: int, wanted: Sequence[tuple[str, int, str]], now: float
) -> tuple[list[Held], list[str]]:
    """Put files into a version of a volume whose bytes any version of it has.

    Arguments:
        conn: The connection.
        project_id: Whose volume.
        volume_name: Which.
        number: The version: an open one, or the next.
        wanted: Of each file the path, the size in bytes, and the digest in hex digits.
        now: Seconds since the epoch.

    Returns:
        What the version has of each, and the keys of blobs that files had before, which nobody may need now.

    Raises:
        VolumeSealed: The version's files are settled.
        NotFound: There is no such volume any more.
        InvalidRequest: There is no such version, nor is it the next one.
    """
    prefix = volume_files.prefix_of(volume_name, number)
    place = volume_files.open_place(conn, project_id, volume_name, number)
    there = volume_files.named(conn, project_id, [prefix + path for path, _, _ in wanted])
    known = volume_files.with_digests(conn, place.volume_id, [digest for _, _, digest in wanted])
    held: list[Held] = []
    linked: list[FileRecord] = []
    replaced: list[str] = []
    for path, size, digest in wanted:
        found, source = there.get(prefix + path), known.get(digest)
        if found is not None and (found["size"], found["digest"]) == (size, digest):
            held.append(Held.PRESENT)
        elif source is not None and source["size"] == size:
            linked.append(_shared(source, prefix + path, now))
            if found is not None:
                replaced.append(found["blob_key"])
            held.append(Held.LINKED)
        elif found is not None and found["size"] == size and _is_to_be_hashed(found):
            held.append(Held.HASHING)
        else:
            held.append(Held.MISSING)
    files.put_files(conn, linked, place)
    return held, replaced


def _is_to_be_hashed(row: Any) -> bool:
    """Whether its digest will be known in a moment: not where its bytes are not in the storage."""
    return row["digest"] is None and row["hash_again_at"] is None


def _shared(source: Any, name: str, now: float) -> FileRecord:
    file = StoredFile(
        project_id=source["project_id"],
        name=name,
        size=source["size"],
        etag=source["etag"],
        created_at=now,
        digest=source["digest"],
    )
    return FileRecord(file, source["blob_key"])
