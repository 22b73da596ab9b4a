"""Files of a volume that share the bytes of older ones, so that nobody has to send them again."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from machineshop.errors import NotFound
from machineshop.models import StoredFile, Volume
from machineshop.store import files, projects, volume_files
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
    rows = volume_files.named(conn, project_id, [prefix + path for path, _, _ in wanted])
    there = {name: row for name, row in rows.items() if row["volume_id"] == place.volume_id}
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
            if prefix + path in rows:
                replaced.append(rows[prefix + path]["blob_key"])
            held.append(Held.LINKED)
        elif found is not None and found["size"] == size and _is_to_be_hashed(found):
            held.append(Held.HASHING)
        else:
            held.append(Held.MISSING)
    files.put_files(conn, linked, place)
    return held, replaced


def link_copied(conn: Connection, volume: Volume, number: int, sources: Mapping[str, str], now: float) -> list[str]:
    """Put files into a version that is being copied, each with the bytes of another one of the volume.

    Arguments:
        conn: The connection.
        volume: Which.
        number: The version.
        sources: By the name of each new file that of the other one, which is copied from the same object.
        now: Seconds since the epoch.

    Returns:
        The keys of blobs that files had before, which nobody may need now.

    Raises:
        NotFound: The project is gone, or the volume.
        VolumeSealed: The version is not being copied any more.
    """
    projects.hold(conn, volume.project_id)
    place = volume_files.place_of(conn, volume.project_id, f"{volume_files.prefix_of(volume.name, number)}-")
    if place is None or place.volume_id != volume.id:
        raise NotFound(what="volume", id=volume.id)
    volume_files.begin_change(conn, place, is_copied=True)
    rows = volume_files.named(conn, volume.project_id, [*sources, *sources.values()])
    pairs = [(name, rows[source]) for name, source in sources.items()]
    files.put_files(conn, [_shared(row, name, now, row["origin_tag"]) for name, row in pairs], place)
    return [rows[name]["blob_key"] for name in sources if name in rows]


def _is_to_be_hashed(row: Any) -> bool:
    """Whether its digest will be known in a moment: not where its bytes are not in the storage."""
    return row["digest"] is None and row["hash_again_at"] is None


def _shared(source: Any, name: str, now: float, origin_tag: str | None = None) -> FileRecord:
    file = StoredFile(
        project_id=source["project_id"],
        name=name,
        size=source["size"],
        etag=source["etag"],
        created_at=now,
        digest=source["digest"],
        origin_tag=origin_tag,
    )
    return FileRecord(file, source["blob_key"])
