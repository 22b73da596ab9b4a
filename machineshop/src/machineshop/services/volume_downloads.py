"""Many small files at once out of a version of a volume: one request, and one look into the store.

Large files are read one by one, by the routes of files.
"""

from collections.abc import AsyncIterator, Iterator, Sequence

from machineshop.blobs import BlobStore
from machineshop.blobs.base import CHUNK_BYTES, BlobMissing
from machineshop.errors import ArtifactMissing, InvalidRequest, NotFound
from machineshop.models import StoredFile, Volume
from machineshop.services.volume_rules import check_paths
from machineshop.store import volume_files
from machineshop.store.database import Database

# What the files of one request may have together: of larger ones a request for each costs little beside their bytes.
LIMIT_BYTES = 8 * 1024 * 1024
# As many as are read at a time, or `CHUNK_BYTES` of them: what a request has in memory, whatever it asks for.
READ_AT_ONCE = 64
# Of a version that is still open, a file may be replaced between the look at its row and that at its bytes.
_TRIES = 3

Found = tuple[StoredFile, str]
"""A file, and the key of its blob."""


class VolumeDownloads:
    """The files of all projects' volumes, for whoever wants very many of them."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def open(
        self, volume: Volume, number: int, paths: Sequence[str]
    ) -> tuple[list[StoredFile], AsyncIterator[bytes]]:
        """Some files, and their bytes, one file's behind the other's.

        Args:
            volume: Whose files they are.
            number: The version; it may be the next one, which is not made yet.
            paths: Which, `MAX_BATCH` at most; the answer has them in this order.

        Raises:
            InvalidRequest: A path is none or there twice, or they have more than `LIMIT_BYTES` together.
            NotFound: The version has no such file.
            ArtifactMissing: It has, and the storage lacks the bytes. Behind the first ones, that breaks off the rest.
        """
        check_paths(volume_files.prefix_of(volume.name, number), paths, "paths")
        for left in reversed(range(_TRIES)):
            found = await self._find(volume, number, paths)
            pieces = list(_cut(found))
            try:
                first = await self._read(pieces[0])
            except ArtifactMissing:
                if not left:
                    raise
            else:
                return [file for file, _ in found], self._stream(first, pieces[1:])
        raise AssertionError("unreachable: the last try returns or raises")

    async def _find(self, volume: Volume, number: int, paths: Sequence[str]) -> list[Found]:
        rows = await self._database.read(volume_files.some_with_blobs, volume, number, paths)
        by_path = {volume_files.path_of(file): (file, blob_key) for file, blob_key in rows}
        for path in paths:
            if path not in by_path:
                raise NotFound(what="file", id=path, where=f" in version {number} of the volume '{volume.name}'")
        size = sum(file.size for file, _ in rows)
        if size > LIMIT_BYTES:
            raise InvalidRequest(
                f"These files have {size} bytes together, and at most {LIMIT_BYTES} come at once: ask for fewer of "
                f"them at a time, and read a large one by itself, by GET /v1/storage/{volume.name}/{number}/<path>.",
                param="paths",
            )
        return [by_path[path] for path in paths]

    async def _stream(self, first: bytes, pieces: Sequence[Sequence[Found]]) -> AsyncIterator[bytes]:
        yield first
        for piece in pieces:
            yield await self._read(piece)

    async def _read(self, piece: Sequence[Found]) -> bytes:
        try:
            contents = await self._blobs.read_all([blob_key for _, blob_key in piece])
        except BlobMissing as error:
            path = next(volume_files.path_of(file) for file, blob_key in piece if blob_key == error.args[0])
            raise ArtifactMissing(f"The bytes of '{path}' are not in the platform's storage.") from None
        return b"".join(contents)


def _cut(found: Sequence[Found]) -> Iterator[list[Found]]:
    """Files in pieces that are read as one: of `CHUNK_BYTES` and `READ_AT_ONCE` at most, a larger file by itself."""
    piece: list[Found] = []
    size = 0
    for each in found:
        if piece and (size + each[0].size > CHUNK_BYTES or len(piece) == READ_AT_ONCE):
            yield piece
            piece, size = [], 0
        piece.append(each)
        size += each[0].size
    yield piece
